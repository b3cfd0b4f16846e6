"""Parity with open_clip's own forward pass, on random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from promptot.backbones import load_backbone
from promptot.backbones.loaders.open_clip_models import convert
from promptot.backbones.tokenizer import ClipTokenizer
from promptot.errors import PromptotError

NAMES = ["cat", "hot dog", "great white shark", "Boeing 737-800", "St. Bernard (dog)"]
SMALL: dict[str, Any] = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 36, "layers": 3, "width": 96, "head_width": 32, "patch_size": 12},
    "text_cfg": {
        "context_length": 40,
        "vocab_size": 49408,
        "width": 80,
        "heads": 5,
        "layers": 2,
    },
}


def variant(quick_gelu: bool = False, vision: dict | None = None, text: dict | None = None) -> dict:
    return {
        "embed_dim": SMALL["embed_dim"],
        "quick_gelu": quick_gelu,
        "vision_cfg": SMALL["vision_cfg"] | (vision or {}),
        "text_cfg": SMALL["text_cfg"] | (text or {}),
    }


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Norms and biases that are not the identity, so that a forgotten one shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "class_embedding" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def save_local_dir(folder: Path, config: dict, model: torch.nn.Module) -> None:
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def check_parity(model: Any, backbone: Any, images: torch.Tensor, tokenizer: Any) -> None:
    template = "a photo of a {}."
    texts = tokenizer([template.format(name) for name in NAMES])
    with torch.no_grad():
        expected_image = F.normalize(model.encode_image(images), dim=-1)
        expected_text = F.normalize(model.encode_text(texts), dim=-1)
        image = backbone.encode_image(images)
        text = backbone.encode_text(backbone.tokenize(NAMES, template))
    assert (image - expected_image).abs().max() < 1e-5
    assert (text - expected_text).abs().max() < 1e-5
    torch.testing.assert_close(backbone.logit_scale, model.logit_scale.exp().reshape(()))


@pytest.mark.parametrize("architecture", ["ViT-B-32-quickgelu", "ViT-B-16"])
def test_parity_with_real_sizes(architecture: str) -> None:
    torch.manual_seed(0)
    model = randomise(open_clip.create_model(architecture))
    tokenizer = open_clip.get_tokenizer(architecture)
    backbone = convert(model, ClipTokenizer(tokenizer), "test")
    check_parity(model, backbone, torch.randn(2, 3, 224, 224), tokenizer)


@pytest.mark.parametrize(
    "config",
    [
        variant(),
        variant(quick_gelu=True, vision={"mlp_ratio": 3.0, "head_width": 48}),
        variant(vision={"pool_type": "avg", "no_ln_pre": True, "norm_kwargs": {"eps": 1e-3}}),
        variant(text={"proj_bias": True, "proj_type": "linear", "mlp_ratio": 2.5}),
        variant(vision={"ls_init_value": 0.1}, text={"ls_init_value": 0.3}),
        variant(vision={"pool_type": "avg", "final_ln_after_pool": True}),
        variant(text={"no_causal_mask": True}),
        variant(text={"no_causal_mask": True, "pool_type": "last"}),
        variant(text={"no_causal_mask": True, "pool_type": "first"}),
        variant(vision={"attentional_pool": True, "attn_pooler_heads": 2}),
        variant(vision={"qk_norm": True}),
        variant(vision={"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "patch_size": None}),
    ],
    ids=[
        "gelu",
        "quickgelu-odd-mlp",
        "mean-pool-no-ln-pre",
        "projection-bias",
        "layer-scale",
        "norm-after-mean",
        "bidirectional",
        "read-at-the-last",
        "read-at-the-first",
        "attention-pool",
        "blocks-of-another-kind",
        "resnet",
    ],
)
def test_parity_of_small_odd_shapes_from_a_local_dir(config: dict, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = open_clip.CLIP(
        **{k: v for k, v in config.items() if k != "text_cfg"}, text_cfg=config["text_cfg"]
    )
    randomise(model)
    save_local_dir(tmp_path, config, model)
    backbone = load_backbone(f"open_clip:local-dir:{tmp_path}")
    side = config["vision_cfg"]["image_size"]
    assert backbone.preprocess.resolution == side
    assert backbone.preprocess.mean == (0.5, 0.4, 0.3)
    assert backbone.preprocess.interpolation == "bilinear"
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=40)
    check_parity(model, backbone, torch.randn(3, 3, side, side), tokenizer)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (variant(text={"qk_norm": True}), "custom attention block in its text tower"),
        (variant(text={"pool_type": "last"}), "causal text tower that is not read at its end"),
        (variant(text={"no_causal_mask": True, "pool_type": "none"}), "the pooling 'none'"),
        (variant(vision={"image_size": [36, 48]}), "images that are not square"),
    ],
)
def test_what_is_not_supported_is_refused(config: dict, what: str) -> None:
    model = open_clip.CLIP(**config)
    open_clip.set_model_preprocess_cfg(model, {"mean": [0.5] * 3, "std": [0.5] * 3})
    with pytest.raises(PromptotError, match=f"{what}.*not supported yet"):
        convert(model, ClipTokenizer(), "test")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-17/openai", "knows no architecture 'ViT-B-17'.*Close: .*ViT-B-16"),
        ("open_clip:ViT-B-16/opennai", "no weights 'opennai'.*Did you mean 'openai'"),
        ("open_clip:local-dir:/nowhere/at/all", "could not load"),
        ("openclip:ViT-B-16/openai", "Unknown backbone.*Did you mean 'open_clip'"),
        ("tiny", "Unknown backbone"),
        ("bundled:", "Unknown backbone"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(PromptotError, match=message):
        load_backbone(name)
