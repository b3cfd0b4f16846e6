"""Every tag of open_clip that is a plain ViT is the model and the transform of the library.

Each tag's own configuration is shrunk to two narrow blocks a tower; activation, pooling, head
width, context length and everything about images stay. The weights are random and stand in for the
download. The reference is what open_clip makes of the tag when the tag's activation is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from promptot.backbones import load_backbone

NAMES = ["cat", "great white shark", "St. Bernard (dog)"]
TEMPLATE = "a photo of a {}."


def is_supported(config: dict[str, Any]) -> bool:
    """Plain ViT and plain text tower; others are in test_every_open_clip.py."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    plain = not isinstance(vision["layers"], list) if "layers" in vision else False
    other = {"hf_model_name", "hf_tokenizer_name"} & text.keys() or "multimodal_cfg" in config
    return (
        plain and "timm_model_name" not in vision and not other and "init_logit_bias" not in config
    )


TAGS = open_clip.list_pretrained()
LOADED = [(a, t) for a, t in TAGS if is_supported(open_clip.get_model_config(a))]


def one_of_each() -> Iterator[Any]:
    """All tags; of those that differ in nothing but weights and width, all but one are slow."""
    seen = []
    for architecture, tag in LOADED:
        described = open_clip.get_pretrained_cfg(architecture, tag)
        described = {k: v for k, v in described.items() if k not in ("url", "hf_hub")}
        kind = shrink(open_clip.get_model_config(architecture)), described
        marks = [pytest.mark.slow] if kind in seen else []
        seen.append(kind)
        yield pytest.param(architecture, tag, marks=marks, id=f"{architecture}-{tag}")


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """Two blocks of two heads a tower, and what else there is as it is."""
    small = deepcopy(config)
    vision, text = small["vision_cfg"], small["text_cfg"]
    vision |= {"layers": 2, "width": 2 * vision.get("head_width", 64)}
    text |= {"layers": 2, "width": 2 * text["width"] // text["heads"], "heads": 2}
    return small | {"embed_dim": 32}


def seeded_weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of a shrunk model whose norms and biases are not the identity."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Architectures shrunk in open_clip's own registry, and random weights for its downloads."""
    folder = tmp_path_factory.mktemp("weights")
    files: dict[str, Path] = {}
    asked: list[Path] = []

    def weights_of(architecture: str) -> Path:
        shape = architecture.removesuffix("-quickgelu")  # the same weights with another activation
        if shape not in files:
            files[shape] = folder / f"{shape}.safetensors"
            save_file(seeded_weights(open_clip.get_model_config(shape)), files[shape])
        return files[shape]

    def download(config: dict[str, Any], **_: Any) -> str:
        return str(asked[-1])

    with pytest.MonkeyPatch.context() as patch:
        for architecture in {architecture for architecture, _ in LOADED}:
            small = shrink(open_clip.get_model_config(architecture))
            patch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, small)
        for module in (open_clip, open_clip.factory, open_clip.pretrained):
            patch.setattr(module, "download_pretrained", download)
        yield lambda architecture: asked.append(weights_of(architecture))


def pictures() -> list[Image.Image]:
    """A wide and a tall picture, of odd sizes, one of them smaller than any model's."""
    draw = np.random.default_rng(0).integers
    sizes = (173, 401), (231, 140)
    return [Image.fromarray(draw(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.mark.parametrize(("architecture", "tag"), list(one_of_each()))
def test_a_tag_is_the_library_s_own(shrunk: Any, architecture: str, tag: str) -> None:
    shrunk(architecture)
    described = open_clip.get_pretrained_cfg(architecture, tag)
    model, _, transform = open_clip.create_model_and_transforms(
        architecture, pretrained=tag, force_quick_gelu=described.get("quick_gelu", False)
    )
    model.eval()
    backbone = load_backbone(f"open_clip:{architecture}/{tag}")

    expected = torch.stack([transform(picture) for picture in pictures()])
    images = torch.stack([backbone.preprocess.test()(picture) for picture in pictures()])
    assert images.shape == expected.shape
    assert (images - expected).abs().max() < 1e-6
    assert backbone.text_tower.context_length == len(model.positional_embedding)
    texts = open_clip.get_tokenizer(architecture)([TEMPLATE.format(name) for name in NAMES])
    with torch.no_grad():
        expected_image = F.normalize(model.encode_image(expected), dim=-1)
        expected_text = F.normalize(model.encode_text(texts), dim=-1)
        image = backbone.encode_image(images)
        text = backbone.encode_text(backbone.tokenize(NAMES, TEMPLATE))
    assert (image - expected_image).abs().max() < 1e-5
    assert (text - expected_text).abs().max() < 1e-5
    torch.testing.assert_close(backbone.logit_scale, model.logit_scale.detach().exp())


def test_both_activations_are_among_the_tags_and_differ(shrunk: Any) -> None:
    shrunk("ViT-H-14")
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    features = {}
    for tag in ("metaclip_fullcc", "metaclip_altogether"):  # names tell nothing
        backbone = load_backbone(f"open_clip:ViT-H-14/{tag}")
        features[backbone.image_tower.transformer.blocks[0].mlp.activation] = backbone.encode_image(
            pixels
        )
    assert (features["quick_gelu"] - features["gelu"]).abs().max() > 1e-3


def test_a_tag_without_quick_gelu_overrules_the_architecture(
    shrunk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk("ViT-B-32")
    tags = open_clip.pretrained._PRETRAINED["ViT-B-32-quickgelu"]
    plain = {**tags["openai"], "quick_gelu": False, "resize_mode": "longest", "fill_color": 9}
    monkeypatch.setitem(tags, "plain", plain)
    backbone = load_backbone("open_clip:ViT-B-32-quickgelu/plain")
    assert backbone.text_tower.transformer.blocks[0].mlp.activation == "gelu"
    assert backbone.image_tower.transformer.blocks[0].mlp.activation == "gelu"
    assert (backbone.preprocess.resize_mode, backbone.preprocess.fill) == ("longest", 9)


def test_most_tags_that_people_use_are_among_these() -> None:
    assert len(LOADED) >= 80
