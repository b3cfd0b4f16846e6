"""`check_backbone` of every kind of tower: equal as it is, and the name of what was spoiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import small_trunks
from saved_clips import randomise
from saved_open_clips import KINDS, save_kind

from promptot.backbones import Backbone, load_backbone
from promptot.backbones.checks.compare import check_backbone
from promptot.backbones.checks.library_side import library_side
from promptot.backbones.checks.library_towers import name_of_curve
from promptot.backbones.towers.transformer import ACTIVATIONS

WITH_BIAS = {"SigLIP", "SigLIP 2", "NLLB"}
NETWORKS = {"ResNet", "ConvNeXt", "FastViT"}
AFTER_IMAGE = ["image features", "image features from files", "cosine similarities", "logits"]
AFTER_TEXT = ["text features", "cosine similarities", "logits"]
POOLING = {
    "SigLIP": ("attention", "last position"),
    "SigLIP 2": ("attention", "last position"),
    "EVA": ("class token", "end of the text"),
    "EVA, norms behind": ("class token", "end of the text"),
    "PE": ("attention", "end of the text"),
    "CoCa": ("attention, then norm", "class token"),
    "ResNet": (None, "end of the text"),
    "ConvNeXt": (None, "end of the text"),
    "FastViT": (None, "end of the text"),
    "ViTamin": ("mean of the patches, then norm", "end of the text"),
    "hybrid": ("class token", "end of the text"),
    "CLIPA": ("mean of the patches, then norm", "last position"),
    "MetaCLIP 2": ("class token", "end of the text"),
    "RoBERTa": ("class token", "mean of the text"),
    "XLM-R": ("class token", "mean of the text"),
    "NLLB": ("attention", "first position"),
    "BiomedCLIP": ("class token", "first position"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A backbone's name by its kind; each is made once."""
    root = tmp_path_factory.mktemp("families")
    names: dict[str, str] = {}

    def name(kind: str) -> str:
        if kind not in names:
            names[kind] = save_kind(root / str(len(names)), kind)
        return names[kind]

    return name


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_trunks():
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_equal_to_its_library(saved: Callable[[str], str], kind: str) -> None:
    report = check_backbone(saved(kind))
    assert report.differences == []
    steps = {item.what: item.measured for item in report.comparisons}
    assert ("logit bias" in steps) == (kind in WITH_BIAS)
    assert steps["token ids"] == 0
    assert steps["image features"] < 5e-6
    assert steps["text features"] < 5e-6
    settings = {item.what: item.ours for item in report.settings}
    assert (settings.get("pooling, image"), settings["pooling, text"]) == POOLING[kind]
    assert ("heads, image" in settings) == (kind not in NETWORKS)  # of a network nothing is told
    assert settings.get("rotation, image", "none") == (
        "by place" if kind in ("EVA", "PE") else "none"
    )
    packed = kind in {"EVA", "EVA, norms behind", "PE", "ResNet", "ConvNeXt", "ViTamin", "hybrid",
                      "MetaCLIP 2"}  # fmt: skip
    assert ("padding token" in settings) == (not packed)


def set_activation(tower: str, activation: str) -> Callable[[Backbone], None]:
    def change(backbone: Backbone) -> None:
        for block in getattr(backbone, tower).transformer.resblocks:
            block.mlp.activation = activation

    return change


def put(place: str, value: object) -> Callable[[Backbone], None]:
    """Set an attribute of an attribute."""

    def change(backbone: Backbone) -> None:
        owner: Any = backbone
        *path, name = place.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, name, value)

    return change


def spoil_a_norm(backbone: Backbone) -> None:
    norms = (m for m in backbone.image_tower.modules() if isinstance(m, torch.nn.BatchNorm2d))
    next(norms).eps = 0.5


def change_bias(backbone: Backbone) -> None:
    assert backbone.logit_bias is not None
    backbone.logit_bias.add_(0.5)


@pytest.mark.parametrize(
    ("kind", "change", "differs"),
    [
        ("EVA", set_activation("image_tower", "gelu"), ["activation, image", *AFTER_IMAGE]),
        ("SigLIP 2", set_activation("text_tower", "quick_gelu"), ["activation, text", *AFTER_TEXT]),
        ("NLLB", set_activation("text_tower", "gelu"), ["activation, text", *AFTER_TEXT]),
        ("SigLIP", put("image_tower.pool", "mean"), ["pooling, image", *AFTER_IMAGE]),
        ("SigLIP", put("text_tower.pool", "end"), ["pooling, text", *AFTER_TEXT]),
        ("XLM-R", put("text_tower.pool", "first"), ["pooling, text", *AFTER_TEXT]),
        ("SigLIP", put("text_tower.pad", 0), ["padding token", "token ids", *AFTER_TEXT]),
        ("XLM-R", put("text_tower.hidden_padding", False), AFTER_TEXT),
        ("EVA", put("image_tower.rotation", None), ["rotation, image", *AFTER_IMAGE]),
        ("PE", lambda b: b.image_tower.rotation.copy_(b.image_tower.rotation.flip(1)), AFTER_IMAGE),
        ("PE", put("image_tower.attention_pool.class_token", False), AFTER_IMAGE),
        ("CLIPA", put("tokenizer._stripped", None), ["token ids", *AFTER_TEXT]),
        ("ResNet", spoil_a_norm, AFTER_IMAGE),
        ("SigLIP", change_bias, ["logit bias", "logits"]),
        ("SigLIP", put("logit_bias", None), ["logit bias", "logits"]),
    ],
    ids=["activation", "text activation", "text activation, NLLB", "pooling", "text pooling",
         "text pooling, XLM-R", "pad", "hidden padding", "no rotation", "another rotation",
         "what is pooled", "end token", "a norm of a network", "bias", "no bias"],
)  # fmt: skip
def test_what_was_spoiled_is_named_and_nothing_else(
    saved: Callable[[str], str], kind: str, change: Callable[[Backbone], Any], differs: list[str]
) -> None:
    def load(name: str) -> Backbone:
        backbone = load_backbone(name)
        with torch.no_grad():
            change(backbone)
        return backbone

    assert check_backbone(saved(kind), load=load).differences == differs


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_known_by_what_it_computes(name: str) -> None:
    assert name_of_curve(ACTIVATIONS[name]) == name


def test_the_side_of_transformers_reads_siglip_as_it_was_trained(tmp_path: Path) -> None:
    """Texts filled up to all places, nothing hidden; what is told is what the modules are."""
    from transformers import AutoTokenizer, SiglipConfig, SiglipImageProcessor, SiglipModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 48}  # fmt: skip
    config = SiglipConfig(
        text_config={**sizes, "vocab_size": 512, "max_position_embeddings": 40},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
    )
    model = randomise(SiglipModel(config))
    save_kind(tmp_path, "SigLIP")
    model.save_pretrained(tmp_path)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    side = library_side(f"hf:{tmp_path}")
    assert side.settings["activation, text"] == "gelu_tanh"
    assert (side.settings["pooling, image"], side.settings["pooling, text"]) == (
        "attention", "last position",
    )  # fmt: skip
    assert (side.settings["heads, image"], side.settings["norm epsilon, image"]) == ("4", "1e-06")
    assert side.settings["resize"] == "squash, 32 px"
    assert side.bias == pytest.approx(float(model.logit_bias.detach()))
    ids = side.tokens("a cat")
    assert len(ids) == int(side.settings["context length"]) == 40
    assert ids[-1] == int(side.settings["padding token"])
    assert side.tokens("A CAT") == ids  # it was trained on lower case
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert ids[: len(tokenizer("a cat")["input_ids"])] == tokenizer("a cat")["input_ids"]
    with torch.no_grad():
        pooled = model.text_model(input_ids=torch.tensor([ids])).pooler_output
        expected = torch.nn.functional.normalize(pooled, dim=-1)
        assert (side.encode_texts(["a cat"]) - expected).abs().max() < 1e-6
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        pooled = model.vision_model(pixel_values=images).pooler_output
        expected = torch.nn.functional.normalize(pooled, dim=-1)
        assert (side.encode_images(images) - expected).abs().max() < 1e-6
