"""Saving and loading adapters, and refusing what is damaged."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from promptot.adaptation import CoCoOpPrompts, IVLPPrompts, MaPLePrompts
from promptot.adaptation.linear_head import LinearHead
from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError
from promptot.runs.adapter import TENSORS, build_model, load_adapter, save_adapter
from promptot.runs.card import CARD

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = ("cat", "hot dog")


def make_prompts(classes: int | None = None) -> IVLPPrompts:
    generator = torch.Generator().manual_seed(0)
    return IVLPPrompts(64, 128, 4, 3, 2, 2, classes=classes, generator=generator)


@pytest.fixture
def adapter(backbone: Backbone, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    save_adapter(folder, make_prompts(), backbone, NAMES, "a {}.", metrics={"test_accuracy": 0.5})
    return folder


@pytest.mark.parametrize("classes", [None, 2])
def test_a_saved_adapter_gives_the_same_features(
    backbone: Backbone, tmp_path: Path, classes: int | None
) -> None:
    prompts = make_prompts(classes)
    save_adapter(tmp_path / "adapter", prompts, backbone, NAMES, "a photo of a {}.")
    card, loaded = load_adapter(tmp_path / "adapter")
    images = torch.randn(2, 3, 32, 32)
    before = Student(backbone, prompts, NAMES)(images)[0]
    after = build_model(card, loaded, backbone)(images)[0]
    assert torch.equal(before.image, after.image)
    assert torch.equal(before.text, after.text)


def test_an_adapter_without_prompts(backbone: Backbone, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", None, backbone, NAMES, "a photo of a {}.")
    card, prompts = load_adapter(tmp_path / "adapter")
    assert prompts is None
    assert card.prompts.design == "none"


@pytest.mark.parametrize("design", ["maple", "cocoop", "linear-probe"])
def test_every_design_comes_back_as_it_was(backbone: Backbone, tmp_path: Path, design: str) -> None:
    learned = {
        "maple": lambda: MaPLePrompts(64, 128, 2, 3, fixed_words="of a"),
        "cocoop": lambda: CoCoOpPrompts(64, 32, 3, fixed_words="of"),
        "linear-probe": lambda: LinearHead(torch.randn(2, 32), torch.randn(2)),
    }[design]()
    template = ("a photo of a {}.", "a {}.")
    save_adapter(tmp_path / "adapter", learned, backbone, NAMES, template)
    card, loaded = load_adapter(tmp_path / "adapter")
    assert card.prompts.design == design
    assert card.template == template
    before = build_model(card, learned, backbone)
    after = build_model(card, loaded, backbone)
    assert type(after.learned) is type(before.learned)
    assert after.learned is loaded
    features = before.encode_images(torch.randn(2, 3, 32, 32))
    assert torch.equal(after.logits(features), before.logits(features))
    flags = [[p.requires_grad for p in x.parameters()] for x in (learned, loaded)]
    assert flags[0] == flags[1]


@pytest.mark.parametrize("kind", ["shared", "class-specific", "none"])
def test_adapters_of_format_1_still_load(backbone: Backbone, kind: str) -> None:
    """Written by promptot 0.1.0, with the features that it computed from them."""
    folder = FIXTURES / "format-1"
    card, prompts = load_adapter(folder / kind)
    assert card.format_version == 1
    images = torch.linspace(-2, 2, 2 * 3 * 32 * 32).sin().reshape(2, 3, 32, 32)
    with torch.no_grad():
        student, _ = build_model(card, prompts, backbone)(images)
    expected = load_file(folder / f"{kind}-features.safetensors")
    torch.testing.assert_close(student.image, expected["image"], rtol=0, atol=1e-5)
    torch.testing.assert_close(student.text, expected["text"], rtol=0, atol=1e-5)


def test_a_linear_probe_refuses_other_class_names(backbone: Backbone, tmp_path: Path) -> None:
    save_adapter(tmp_path, LinearHead(torch.ones(2, 32), torch.ones(2)), backbone, NAMES, "a {}.")
    model = build_model(*load_adapter(tmp_path), backbone)
    with pytest.raises(PromptotError, match="specific to each of 2 classes and can't serve 'dog'"):
        model.for_classes(["cat", "dog"])


def test_an_adapter_for_the_largest_published_model_is_small(
    backbone: Backbone, tmp_path: Path
) -> None:
    prompts = IVLPPrompts(512, 768, 4, 12, 4, 12)
    names = tuple(f"class number {index}" for index in range(1000))
    save_adapter(tmp_path / "adapter", prompts, backbone, names, "a photo of a {}.")
    size = sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir())
    assert size < 1_000_000


def test_saving_again_replaces_and_leaves_nothing_behind(adapter: Path, backbone: Backbone) -> None:
    save_adapter(adapter, make_prompts(), backbone, ("x", "y"), "a {}.")
    assert load_adapter(adapter)[0].class_names == ("x", "y")
    assert sorted(path.name for path in adapter.parent.iterdir()) == ["adapter"]


def test_a_failure_while_saving_leaves_the_old_adapter(
    adapter: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PromptotError, match="No space left"):
        save_adapter(adapter, make_prompts(), backbone, ("x",), "a {}.")
    assert load_adapter(adapter)[0].class_names == NAMES
    assert sorted(path.name for path in adapter.parent.iterdir()) == ["adapter"]


def test_another_backbone_is_refused(adapter: Path, tmp_path: Path) -> None:
    from weights import openai_state_dict

    state = {key: torch.tensor(value) for key, value in openai_state_dict(8).items()}
    save_file(state, tmp_path / "other.safetensors")
    other = load_backbone(f"openai:{tmp_path / 'other.safetensors'}")
    with pytest.raises(PromptotError, match="was trained in 'openai:.*Load the backbone that"):
        build_model(*load_adapter(adapter), other)


def edit_card(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        card = json.loads((folder / CARD).read_text())
        change(card)
        (folder / CARD).write_text(json.dumps(card))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Change the tensors and make the card's hash agree, as someone hostile would."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / TENSORS)
        change(tensors)
        save_file(tensors, folder / TENSORS)
        digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
        edit_card(lambda card: card.update(tensors_sha256=digest))(folder)

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / CARD).unlink(), "There is no adapter"),
        (lambda f: (f / CARD).write_text("{"), "card.json' is not valid"),
        (lambda f: (f / CARD).write_text("[" * 100_000), "card.json' is not valid"),
        (lambda f: (f / CARD).write_bytes(b"\xff\xfe"), "can't be read"),
        (lambda f: (f / TENSORS).unlink(), "can't be read"),
        (lambda f: (f / TENSORS).write_bytes(b"\0" * 99), "not the file that the card"),
        (edit_card(lambda c: c.update(format_version=99)), "format version 99.*Update promptot"),
        (edit_card(lambda c: c.update(surprise=1)), "surprise"),
        (edit_card(lambda c: c["prompts"].update(text_tokens=-1)), "text_tokens"),
        (edit_card(lambda c: c["prompts"].update(text_tokens=5)), "not those that the card"),
        (edit_card(lambda c: c["prompts"].update(text_depth=10**9)), "text_depth"),
        (edit_card(lambda c: c["prompts"].update(design="maple")), "no design that is known"),
        (edit_card(lambda c: c["prompts"].update(design="other")), "no design that is known"),
        (edit_card(lambda c: c["prompts"].update(text_tokens="4")), "no design that is known"),
        (edit_card(lambda c: c["prompts"].update(text_depth=2**16)), "no design that is known"),
        (edit_card(lambda c: c["prompts"].update(surprise=1)), "no design that is known"),
        (edit_card(lambda c: c["prompts"].pop("text_width")), "no design that is known"),
        (edit_card(lambda c: c["prompts"].update(initial_context=[1])), "initial_context"),
        (edit_card(lambda c: c["backbone"].update(weight_hash="zz")), "weight_hash"),
        (edit_tensors(lambda t: t.update(extra=torch.zeros(1))), "not those that the card"),
        (edit_tensors(lambda t: t["text.0"].fill_(float("nan"))), "not finite"),
        (edit_tensors(lambda t: t.update({"text.0": t["text.0"].long()})), "not finite"),
    ],
)
def test_damage_is_named(adapter: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(adapter)
    with pytest.raises(PromptotError, match=message):
        load_adapter(adapter)
