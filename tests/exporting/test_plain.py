"""What merges into the weights is a plain CLIP, read by other libraries without promptot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_export import Adapter, outside, random_images

import promptot
from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.exporting.export import EARLIER_FILES
from promptot.exporting.formats import ABOUT

FEATURES = 1e-5
"""The largest difference of a feature from the run's."""
TEXTS = ["a photo of a cat.", "a photo of a zebra finch."]
SOURCES = {"open_clip": "open_clip", "transformers": "hf", "openai": "openai"}
OUTSIDE = {
    "open_clip": """
import open_clip, torch
model, _, _ = open_clip.create_model_and_transforms("local-dir:out")
model.eval()
image = model.encode_image(torch.load("images.pt"))
text = model.encode_text(open_clip.get_tokenizer("local-dir:out")(TEXTS))
""",
    "transformers": """
import torch
from transformers import CLIPModel, CLIPProcessor
model, processor = (kind.from_pretrained("out") for kind in (CLIPModel, CLIPProcessor))
tensor = lambda found: found if isinstance(found, torch.Tensor) else found.pooler_output
image = tensor(model.get_image_features(pixel_values=torch.load("images.pt")))
text = tensor(model.get_text_features(**processor(text=TEXTS, padding=True, return_tensors="pt")))
""",
    "openai": """
import open_clip, torch
state = torch.load("out/clip.pt")
model = open_clip.load_openai_model("out/clip.pt", precision="fp32", device="cpu").eval()
model.load_state_dict(state)  # it has rounded them to fp16
image = model.encode_image(torch.load("images.pt"))
text = model.encode_text(open_clip.tokenize(TEXTS))
""",
}
SAVE = """
features = {"image": image, "text": text}
torch.save({k: torch.nn.functional.normalize(v.detach(), dim=-1) for k, v in features.items()}, "f")
"""


def of_all_matrices(make_adapter: Adapter, format: str) -> Path:
    options = ("prompts.targets=[q,k,v,o,fc,proj]", "prompts.alpha=0.2")
    return make_adapter(SOURCES[format], "lora-ot", *options)


@pytest.mark.parametrize("format", OUTSIDE)
def test_it_is_compared_as_its_library_reads_it(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path, format: str
) -> None:
    adapter, backbone = of_all_matrices(make_adapter, format), backbones(SOURCES[format])
    result = promptot.export(adapter, tmp_path / "out", format, backbone=backbone)
    assert result.difference.largest < FEATURES
    assert result.difference.text is not None
    assert not [name for name in result.files if name.endswith(".py") or "prompt" in name]
    assert set(result.files) <= {*EARLIER_FILES, ABOUT}  # what `overwrite` may remove


@pytest.mark.parametrize(
    "format", ["open_clip", *(pytest.param(f, marks=pytest.mark.slow) for f in [*OUTSIDE][1:])]
)
def test_other_libraries_give_the_features_of_the_run(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path, format: str
) -> None:
    """In a process that can't import promptot."""
    adapter, backbone = of_all_matrices(make_adapter, format), backbones(SOURCES[format])
    promptot.export(adapter, tmp_path / "out", format, backbone=backbone)
    images = random_images(backbone)
    torch.save(images, tmp_path / "images.pt")
    outside(f"TEXTS = {TEXTS}\n" + OUTSIDE[format] + SAVE, tmp_path)
    found = torch.load(tmp_path / "f")
    model = promptot.load(adapter, backbone).model
    with torch.no_grad():
        expected = {
            "image": model.encode_images(images),
            "text": model.for_classes(["cat", "zebra finch"]).encode_classes(),
        }
        frozen = model.encode_frozen(images)
    assert (expected["image"] - frozen).abs().max() > 0.01  # the changes are no trifle
    for name, features in expected.items():
        assert (found[name] - features).abs().max() < FEATURES


def test_graphs_of_what_merges_are_those_of_the_run(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    adapter, backbone = make_adapter("bundled", "clip-lora"), backbones("bundled")
    result = promptot.export(adapter, tmp_path / "out", "torchscript", backbone=backbone)
    assert result.difference.largest < 1e-4
    assert "model.pt" in result.files


def test_the_backbone_stays_as_it_was(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    adapter, backbone = make_adapter("openai", "clip-lora"), backbones("openai")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    promptot.export(adapter, tmp_path / "out", "openai", backbone=backbone)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    about = json.loads((tmp_path / "out" / "classifier.json").read_text(encoding="utf-8"))
    assert about["backbone"]["weight_hash"] != backbone.weight_hash()


def test_what_does_not_merge_is_refused_as_openai(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    adapter, backbone = make_adapter("openai", "ivlp"), backbones("openai")
    with pytest.raises(PromptotError, match="does not merge into the weights"):
        promptot.export(adapter, tmp_path / "out", "openai", backbone=backbone)
    assert not (tmp_path / "out").exists()


def test_what_openais_code_would_build_otherwise_is_refused(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    adapter, backbone = make_adapter("open_clip", "clip-lora"), backbones("open_clip")
    with pytest.raises(PromptotError, match="OpenAI's CLIP has no place"):
        promptot.export(adapter, tmp_path / "out", "openai", backbone=backbone)
