"""Every architecture of open_clip's pretrained weights, shrunk, with random weights.

The library builds each from its own configuration; only sizes differ. What a configuration takes
from a hub (tokenizers, text encoders) is made here, in the same formats.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

WIDTH, LAYERS, HEADS, EMBED = 32, 2, 2, 24
VOCABULARY = 512

# What timm's models are given beside their name. ViTamin's stem has its width, so its stays.
_TRUNKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("vitamin", {"depth": 2}),
    ("vit_base_mci", {"depth": 2}),
    ("fastvit", {"layers": (1, 1, 1, 1), "embed_dims": (32, 32, 64, 64)}),
    ("convnext", {"depths": (1, 1, 1, 1), "dims": (16, 16, 32, 32)}),
    ("eva", {"depth": 2, "embed_dim": WIDTH, "num_heads": HEADS}),
    ("vit_pe", {"depth": 2, "embed_dim": WIDTH, "num_heads": HEADS, "attn_pool_num_heads": HEADS}),
    ("vit_", {"depth": 2, "embed_dim": WIDTH, "num_heads": HEADS}),
)


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with small sizes."""
    small = deepcopy(config)
    vision, text = small["vision_cfg"], small["text_cfg"]
    small["embed_dim"] = EMBED
    if "timm_model_name" in vision:
        # a trunk without a projection gives features of its own width
        if vision["timm_proj"] == "none":
            small["embed_dim"] = WIDTH
        vision["image_size"] = side_of(vision["timm_model_name"])
    elif isinstance(vision["layers"], list):
        vision |= {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}
        vision["head_width"] = 64
    else:
        patch = vision["patch_size"]
        vision |= {"layers": LAYERS, "width": WIDTH, "head_width": WIDTH // HEADS}
        vision |= {"image_size": 3 * patch}
        if vision.get("attentional_pool"):
            vision["attn_pooler_heads"] = 4
            vision["attn_pooler_queries"] = 3
    text |= {"width": WIDTH, "heads": HEADS, "layers": LAYERS}
    if "hf_tokenizer_name" in text:
        text["vocab_size"] = VOCABULARY
    if "multimodal_cfg" in small:
        small["multimodal_cfg"] |= {"width": WIDTH, "heads": HEADS, "layers": 1, "vocab_size": 64}
    if text.get("proj_type") == "none":
        text["width"] = small["embed_dim"]
    return small


def side_of(trunk: str) -> int:
    """A small input side that a timm trunk takes."""
    if trunk.startswith(("vitamin", "vit_base_mci")):
        return 64
    if "patch14" in trunk:
        return 42
    return 96 if "patch32" in trunk else 64


@contextlib.contextmanager
def small_trunks() -> Iterator[None]:
    """timm's models are built small, whoever asks for them."""
    import timm

    create = timm.create_model

    def small(name: str, **options: Any) -> Any:
        own = next((own for start, own in _TRUNKS if name.startswith(start)), {})
        sized = {} if name.startswith(("fastvit", "convnext")) else {"img_size": side_of(name)}
        return create(name, **{**own, **sized, **options})

    timm.create_model = small
    try:
        yield
    finally:
        timm.create_model = create


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights of which each one counts: norms near one, biases, and matrices of a usual size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: Any) -> Tensor:
        return torch.randn(shape, generator=generator)

    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        if "running_var" in name:
            value.copy_(1 + 0.2 * draw(value.shape).abs())
        elif name.endswith("logit_scale"):
            value.fill_(2.5)
        elif name.endswith("logit_bias"):
            value.fill_(-10.0)
        elif value.dim() < 2:
            near = 1.0 if name.endswith("weight") or "gamma" in name else 0.0
            value.copy_(near + 0.1 * draw(value.shape))
        else:
            fan = value[0].numel()
            value.copy_(draw(value.shape) * (fan**-0.5 if "embed" not in name else 0.3))
