"""`check_backbone`: equal where both sides are right, and the name of what isn't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from saved_clips import SMALL, save_open_clip, save_transformers

from promptot.backbones import Backbone, load_backbone
from promptot.backbones.checks import compare as check_module
from promptot.backbones.checks.check_inputs import pictures
from promptot.backbones.checks.compare import DIAGRAM_PROBABILITIES, check_backbone, compare_diagram
from promptot.backbones.checks.library_side import library_side
from promptot.data.images.read_image import load_image
from promptot.errors import PromptotError

STEPS = [
    "pixels",
    "token ids",
    "image features",
    "text features",
    "image features from files",
    "cosine similarities",
    "logit scale",
    "logits",
]
AFTER_IMAGE = ["image features", "image features from files", "cosine similarities", "logits"]
AFTER_PIXELS = ["pixels", "image features from files", "cosine similarities", "logits"]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory, clip_file: Path) -> dict[str, str]:
    """A backbone of each kind that can be made here."""
    root = tmp_path_factory.mktemp("clips")
    mean = {**SMALL["vision_cfg"], "pool_type": "avg", "no_ln_pre": True}
    return {
        "open_clip": f"open_clip:local-dir:{save_open_clip(root / 'open_clip', quick_gelu=True)}",
        "open_clip, mean": f"open_clip:local-dir:{save_open_clip(root / 'mean', vision_cfg=mean)}",
        "hf": f"hf:{save_transformers(root / 'hf')}",
        "openai": f"openai:{clip_file}",
        "bundled": "bundled:tiny",
    }


@pytest.mark.parametrize("kind", ["open_clip", "open_clip, mean", "hf", "openai", "bundled"])
def test_equal_for_every_kind_of_weights(names: dict[str, str], kind: str) -> None:
    report = check_backbone(names[kind])
    assert report.differences == []
    assert report.equal
    assert [item.what for item in report.comparisons] == STEPS
    measured = {item.what: item.measured for item in report.comparisons}
    assert measured["token ids"] == 0
    assert measured["image features"] < 2e-5
    assert measured["text features"] < 2e-5
    assert {item.what: item.ours for item in report.settings}["activation, image"] == {
        "open_clip": "quick_gelu", "hf": "quick_gelu", "openai": "quick_gelu",
    }.get(kind, "gelu")  # fmt: skip


def spoil(change: Callable[[Backbone], Any]) -> Callable[[str], Backbone]:
    """A loader whose backbones are changed."""

    def load(name: str) -> Backbone:
        backbone = load_backbone(name)
        with torch.no_grad():
            change(backbone)
        return backbone

    return load


def swap_activation(tower: str) -> Callable[[Backbone], None]:
    def change(backbone: Backbone) -> None:
        for block in getattr(backbone, tower).transformer.resblocks:
            block.mlp.activation = "gelu" if block.mlp.activation == "quick_gelu" else "quick_gelu"

    return change


def swap_two_heads(backbone: Backbone) -> None:
    """The queries of heads 0 and 1 change places; keys and values stay."""
    attention = backbone.image_tower.transformer.resblocks[0].attn
    width = attention.in_proj_weight.shape[1] // attention.heads
    order = torch.arange(len(attention.in_proj_weight))
    order[: 2 * width] = torch.cat([order[width : 2 * width], order[:width]])
    attention.in_proj_weight.copy_(attention.in_proj_weight[order].clone())
    attention.in_proj_bias.copy_(attention.in_proj_bias[order].clone())


def set_preprocess(**values: Any) -> Callable[[Backbone], None]:
    def change(backbone: Backbone) -> None:
        backbone.preprocess = replace(backbone.preprocess, **values)

    return change


def forget_a_token(backbone: Backbone) -> None:
    encode = backbone.tokenizer.encode
    backbone.tokenizer.encode = lambda text: [*encode(text)[:1], *encode(text)[2:]]


def change_eps(backbone: Backbone) -> None:
    for norm in backbone.text_tower.modules():
        if isinstance(norm, torch.nn.LayerNorm):
            norm.eps = 1e-2


@pytest.mark.parametrize("kind", ["open_clip", "hf", "openai", "bundled"])
def test_a_wrong_activation_is_named(names: dict[str, str], kind: str) -> None:
    report = check_backbone(names[kind], load=spoil(swap_activation("image_tower")))
    assert not report.equal
    assert report.differences == ["activation, image", *AFTER_IMAGE]


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (
            swap_activation("text_tower"),
            ["activation, text", "text features", "cosine similarities", "logits"],
        ),
        (swap_two_heads, AFTER_IMAGE),
        (set_preprocess(mean=(0.48, 0.46, 0.41)), ["mean", *AFTER_PIXELS]),
        (set_preprocess(std=(0.27, 0.26, 0.28)), ["std", *AFTER_PIXELS]),
        (set_preprocess(interpolation="bilinear"), ["interpolation", *AFTER_PIXELS]),
        (set_preprocess(resolution=40), ["resolution", "resize", *STEPS[:1], *STEPS[2:3],
         *STEPS[4:6], *STEPS[7:]]),
        (forget_a_token, ["token ids", "text features", "cosine similarities", "logits"]),
        (change_eps, ["norm epsilon, text", "text features", "cosine similarities", "logits"]),
        (lambda b: b.logit_scale.mul_(1.01), ["logit scale", "logits"]),
    ],
    ids=["text activation", "heads", "mean", "std", "interpolation", "resolution", "tokens", "eps",
         "scale"],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_else(
    names: dict[str, str], change: Callable[[Backbone], Any], differs: list[str]
) -> None:
    report = check_backbone(names["openai"], load=spoil(change))
    assert report.differences == differs
    assert not report.equal


@pytest.mark.parametrize("spoiled", ["EXIF", "alpha"])
def test_a_picture_that_is_read_wrongly_is_named(names: dict[str, str], spoiled: str) -> None:
    def load(data: Any, name: str | None = None) -> Image.Image:
        image = load_image(data, name)
        if spoiled == "EXIF" and str(name).startswith("turned"):
            return image.rotate(90, expand=True)
        if spoiled == "alpha" and str(name).startswith("transparent"):
            black = np.where(np.asarray(image).min(axis=2, keepdims=True) == 255, 0, image)
            return Image.fromarray(black.astype(np.uint8))
        return image

    report = check_backbone(names["openai"], read=load)
    assert report.differences == AFTER_PIXELS
    kind = {"EXIF": "turned JPEG", "alpha": "transparent PNG"}[spoiled]
    assert report.comparisons[0].on.startswith(f"7 pictures; different: {kind}")
    assert report.comparisons[0].on.count(" × ") == 1


def test_a_sentence_that_is_read_wrongly_is_named(names: dict[str, str]) -> None:
    def lose_case(backbone: Backbone) -> None:
        encode = backbone.tokenizer.encode
        backbone.tokenizer.encode = lambda text: encode(text.replace("é", "e"))

    report = check_backbone(names["openai"], load=spoil(lose_case))
    tokens = report.comparisons[1]
    assert tokens.measured == 1
    assert tokens.on.startswith("9 sentences; different: a  jalapeño")


def test_a_library_that_cannot_compute_gives_one_sentence(names: dict[str, str]) -> None:
    def uneven(name: str) -> Any:
        return replace(library_side(name), pixels=lambda image: torch.zeros(3, *image.size))

    with pytest.raises(PromptotError, match="can't compute the built-in inputs"):
        check_backbone(names["openai"], library_of=uneven)


def test_nan_is_a_difference_and_json_has_none(names: dict[str, str]) -> None:
    def spoil_weights(backbone: Backbone) -> None:
        backbone.image_tower.proj.fill_(float("nan"))

    report = check_backbone(names["openai"], load=spoil(spoil_weights))
    assert report.differences == AFTER_IMAGE
    found = {item["what"]: item for item in report.as_json()["comparisons"]}
    assert found["image features"]["measured"] is None


def test_the_pictures_are_of_many_shapes_and_kinds() -> None:
    found = pictures()
    aspects = sorted(picture.upright.width / picture.upright.height for picture in found)
    assert aspects[0] < 0.5
    assert aspects[-1] > 2
    assert all(picture.upright.mode == "RGB" for picture in found)
    turned = next(picture for picture in found if picture.what.startswith("turned"))
    assert turned.upright.width > turned.upright.height


# A tag of open_clip: its weights stubbed, its architecture small, all else its own.


@pytest.fixture
def stub_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    def stub(architecture: str, tag: str) -> None:
        described = open_clip.pretrained._PRETRAINED[architecture][tag]
        quick = bool(described.get("quick_gelu", False))
        config = {**SMALL, "quick_gelu": architecture.endswith("-quickgelu")}
        folder = save_open_clip(tmp_path / architecture, quick_gelu=quick)
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, config)
        monkeypatch.setitem(described, "file", str(folder / "open_clip_model.safetensors"))

    return stub


@pytest.mark.parametrize(
    ("architecture", "tag"),
    [("ViT-B-32", "datacomp_xl_s13b_b90k"), ("ViT-B-32-quickgelu", "openai")],
)
def test_a_tag_of_open_clip(stub_tag: Callable, architecture: str, tag: str) -> None:
    stub_tag(architecture, tag)
    assert check_backbone(f"open_clip:{architecture}/{tag}").differences == []


def test_the_librarys_side_has_the_activation_of_the_tag(stub_tag: Callable) -> None:
    """Whatever the name of the architecture says."""
    stub_tag("ViT-B-16", "openai")
    side = library_side("open_clip:ViT-B-16/openai")
    assert side.settings["activation, image"] == side.settings["activation, text"] == "quick_gelu"
    pixels = torch.randn(2, 3, 36, 36, generator=torch.Generator().manual_seed(0))
    model = open_clip.CLIP(**{**SMALL, "quick_gelu": True}).eval()
    from safetensors.torch import load_file

    described = open_clip.get_pretrained_cfg("ViT-B-16", "openai")
    model.load_state_dict(load_file(described["file"]))
    with torch.no_grad():
        expected = F.normalize(model.encode_image(pixels), dim=-1)
        assert (side.encode_images(pixels) - expected).abs().max() < 1e-6

    gelu = spoil(lambda b: [setattr(m.mlp, "activation", "gelu") for m in b.modules()
                            if hasattr(m, "mlp")])  # fmt: skip
    report = check_backbone("open_clip:ViT-B-16/openai", load=gelu)
    assert {"activation, image", "activation, text", "image features"} <= {*report.differences}


def test_the_diagram_of_openai(
    names: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert compare_diagram(DIAGRAM_PROBABILITIES).equal
    assert not compare_diagram((0.9862, 0.0080, 0.0058)).equal
    picture = tmp_path / "CLIP.png"
    pictures()[0].upright.save(picture)
    with pytest.raises(PromptotError, match="of another shape"):
        check_backbone(names["openai"], picture)
    monkeypatch.setattr(check_module, "_check_diagram_model", lambda backbone: None)
    report = check_backbone(names["openai"], picture)
    assert report.differences == ["OpenAI's diagram"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-17/openai", "knows no architecture"),
        ("hf:/nowhere", "could not load a CLIP"),
        ("openai:/nowhere.pt", "There is no file"),
        ("bundled:tinny", "No model 'tinny' is bundled"),
        ("tiny", "Unknown backbone"),
    ],
)
def test_names_that_are_wrong(name: str, message: str) -> None:
    with pytest.raises(PromptotError, match=message):
        check_backbone(name)


def test_a_library_that_cannot_load_its_model_gives_one_sentence(
    names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError("no network\n  after 5 tries.")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", fail)
    with pytest.raises(PromptotError) as raised:
        check_backbone(names["open_clip"])
    assert "could not be loaded: no network after 5 tries." in raised.value.problem


def test_what_a_file_cannot_tell_is_read_from_its_name_and_the_json_beside_it(
    tmp_path: Path, clip_file: Path
) -> None:
    file = tmp_path / "clip.safetensors"
    file.write_bytes(clip_file.read_bytes())
    plain = library_side(f"openai:{file}").settings
    assert plain["activation, image"] == "quick_gelu"
    assert (plain["heads, image"], plain["heads, text"]) == ("2", "1")
    (tmp_path / "clip.safetensors.json").write_text('{"heads": 4, "interpolation": "bilinear"}')
    said = library_side(f"openai:{file}?activation=gelu&heads=8,2&mean=0.5").settings
    assert said["activation, text"] == "gelu"
    assert (said["heads, image"], said["heads, text"]) == (
        "8",
        "2",
    )  # the name goes before the JSON
    assert said["interpolation"] == "bilinear"
    assert said["mean"] == "0.5 0.5 0.5"
    assert library_side(f"openai:{file}").settings["heads, text"] == "4"
