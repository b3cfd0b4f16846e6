"""Each kind of tower: learned, saved, predicted with, served and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import WITHOUT_TOKENS, Families
from PIL import Image

import promptot
from promptot.recipes import load_recipe
from promptot.serving.comparing import Comparer

TAGS = (
    "coca_ViT-B-32/laion2b_s13b_b90k",
    "EVA02-B-16/merged2b_s8b_b131k",
    "ViT-B-16-SigLIP2-256/webli",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "RN50/openai",
            "PE-Core-B-16/meta",
            "nllb-clip-base-siglip/v1",
            "ViTamin-S/datacomp1b",
        )
    ),
)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Families:
    return Families(tmp_path_factory.mktemp("families"))


@pytest.mark.parametrize("name", TAGS)
def test_a_run_predicts_the_same_wherever_it_is(
    families: Families, photos: Path, tmp_path: Path, name: str
) -> None:
    """In memory, loaded from its folder, on the page, and in graphs of other runtimes."""
    pytest.importorskip("onnxruntime")
    _, _, backbone = families(name)
    architecture, _, tag = name.rpartition("/")
    design = "coop" if name.startswith(WITHOUT_TOKENS) else "ivlp"
    fit = "sigmoid" if backbone.logit_bias is not None else "softmax"
    recipe = load_recipe(
        design,
        ["objective=ot", "prompts.text_tokens=3", "prompts.init_words=null", "optim.epochs=1",
         f"objective.fit={fit}"],
    )  # fmt: skip
    with families.offline(architecture, tag):
        promptot.fit(photos, tmp_path / "run", recipe=recipe, backbone=f"open_clip:{name}", shots=1)
        classifier = promptot.load(tmp_path / "run")
    images = sorted(photos.rglob("*.png"))[::5]
    found, left_out = classifier.probabilities(images)
    assert not left_out
    total = torch.as_tensor(found).sum(dim=1)
    if fit == "softmax":
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)
    comparison = Comparer(classifier)(images[0])
    assert comparison.fit == fit
    with torch.no_grad():
        pixels = backbone.preprocess.test()(Image.open(images[0]).convert("RGB"))[None]
        logits = classifier.model.logits(classifier.model.encode_images(pixels))
    torch.testing.assert_close(torch.tensor(comparison.adapted), logits[0], atol=1e-4, rtol=1e-5)
    expected = logits.sigmoid() if fit == "sigmoid" else logits.softmax(dim=1)
    torch.testing.assert_close(torch.as_tensor(found)[0].float(), expected[0], atol=1e-5, rtol=0)

    for kind in ("onnx", "torchscript"):
        result = promptot.export(tmp_path / "run", tmp_path / kind, kind, backbone=backbone)
        assert result.difference.largest < 1e-4
