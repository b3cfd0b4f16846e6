"""Features: what fits together, and text that depends on the image."""

from __future__ import annotations

import pytest
import torch

from promptot.errors import PromptotError
from promptot.objectives import Features


@pytest.mark.parametrize(
    ("image", "text"),
    [((2, 3), (4, 5)), ((3,), (4, 3)), ((2, 3), (3,)), ((1, 2, 3), (4, 3)), ((2, 3), (1, 4, 3))],
)
def test_must_fit_together(image, text):
    with pytest.raises(PromptotError, match="don't fit together"):
        Features(torch.zeros(image), torch.zeros(text))


def test_vocabulary_must_fit_too():
    with pytest.raises(PromptotError, match=r"vocabulary features \[6, 4\]"):
        Features(torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(6, 4))


def test_logits_and_rows_by_hand(random_features, per_image):
    features = random_features(3, 5, seed=0)
    labels = torch.tensor([4, 0, 4])
    own = per_image(features, drift=0.5)
    for i in range(3):
        for each, text in ((features, features.text), (own, own.text[i])):
            expected = torch.stack([20 * each.image[i] @ row for row in text])
            torch.testing.assert_close(each.logits(20.0)[i], expected)
        assert torch.equal(features.text_of(labels)[i], features.text[labels[i]])
        assert torch.equal(own.text_of(labels)[i], own.text[i, labels[i]])
    assert torch.equal(own.joint_rows(labels)[:, :16], own.image)
    assert torch.equal(own.joint_rows(labels)[:, 16:], own.text_of(labels))


def test_words_are_classes_then_anchors(random_features, per_image):
    features = random_features(3, 5, seed=0, words=2)
    assert torch.equal(features.words(), torch.cat([features.text, features.vocabulary]))
    own = per_image(features, drift=0.5)
    assert own.words().shape == (3, 7, 16)
    assert torch.equal(own.words()[1, :5], own.text[1])
    assert torch.equal(own.words()[1, 5:], features.vocabulary)
    both = Features(own.image, own.text, features.vocabulary.expand(3, -1, -1))
    assert torch.equal(both.words(), own.words())
    alone = Features(features.image, features.text)
    assert alone.words() is alone.text


def test_precision_and_detachment_reach_every_part(random_features):
    features = random_features(2, 3, seed=0, words=4)
    half = Features(*(part.bfloat16().requires_grad_() for part in vars(features).values()))
    changed = half.at_least_float32().detach()
    assert all(part.dtype == torch.float32 for part in vars(changed).values())
    assert not any(part.requires_grad for part in vars(changed).values())
