"""What the modules of other libraries tell of their towers. No code of our loaders is used for it.

A module that is not known here tells nothing, which leaves a setting out and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptot.backbones.checks.side import (
    IMAGE_POOLING,
    TEXT_POOLING,
    TowerSettings,
    each,
    norms_of,
    turned,
)

_ACTIVATION_NAMES = ("gelu", "act", "activation_fn", "intermediate_act_fn")
_HEADS_NAMES = ("num_heads", "num_attention_heads")
_CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "relu": F.relu,
}


def name_of_curve(activation: Callable[[Tensor], Tensor]) -> str:
    """An activation's name by what it computes, whatever its class is called.

    Example:
        >>> name_of_curve(nn.GELU()), name_of_curve(nn.SiLU()), name_of_curve(nn.Tanh())
        ('gelu', 'silu', 'Tanh')
    """
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    for name, curve in _CURVES.items():
        if torch.allclose(activation(x.clone()), curve(x), rtol=0, atol=1e-7):
            return name
    return type(activation).__name__


def told_by_blocks(blocks: Sequence[nn.Module]) -> tuple[str | None, str | None]:
    """Activation and heads of a tower's blocks."""
    activations = [_find(block, _ACTIVATION_NAMES, callable) for block in blocks]
    heads = [_find(block, _HEADS_NAMES, lambda value: isinstance(value, int)) for block in blocks]
    return (
        None if None in activations or not blocks else each(map(name_of_curve, activations)),
        None if None in heads or not blocks else each(heads),
    )


def _find(block: nn.Module, names: Sequence[str], fits: Callable[[Any], bool]) -> Any:
    """The first attribute of a block, or of a module in it, that has one of these names."""
    for module in block.modules():
        for name in names:
            found = getattr(module, name, None)
            if found is not None and fits(found):
                return found
    return None


def told_by_open_clip_image(visual: Any) -> TowerSettings:
    """Of open_clip's Vision Transformer, or of one of timm; of any other network nothing."""
    kind = type(visual).__name__
    if kind == "VisionTransformer":
        blocks = visual.transformer.resblocks
        pooling, rotation = _open_clip_pooling(visual), "none"
    elif kind == "TimmModel" and type(visual.trunk).__name__ in ("VisionTransformer", "Eva"):
        blocks = visual.trunk.blocks
        pooling = _timm_pooling(visual.trunk)
        rotation = turned(getattr(visual.trunk, "rope", None))
    else:
        return TowerSettings()
    return TowerSettings(
        *told_by_blocks(blocks), eps=norms_of(visual), pooling=pooling, rotation=rotation
    )


def _open_clip_pooling(visual: Any) -> str | None:
    if visual.attn_pool is not None:
        return IMAGE_POOLING["attention_before_norm"]
    late = "mean_before_norm" if visual.final_ln_after_pool else "mean"
    names = {"tok": "class", "avg": late}
    return IMAGE_POOLING.get(names.get(visual.pool_type, ""))


def _timm_pooling(trunk: Any) -> str | None:
    late = "mean" if isinstance(trunk.fc_norm, nn.Identity) else "mean_before_norm"
    names = {"token": "class", "avg": late, "map": "attention"}
    return IMAGE_POOLING.get(names.get(trunk.global_pool, ""))


def told_by_open_clip_text(text: Any, ids: Sequence[int]) -> TowerSettings:
    """Of open_clip's text tower, of a CLIP that holds its parts itself, or of one of transformers.

    Args:
        ids: of a short text, as long as the tokenizer makes one.
    """
    padding = None if reads_at_end(text) else ids[-1]
    if type(text).__name__ == "HFTextEncoder":
        encoder = text.transformer
        blocks = getattr(encoder, "layers", None) or encoder.encoder.layer
        poolers = {
            "MeanPooler": "mean",
            "ClsPooler": "first",
            "ClsLastHiddenStatePooler": "first",
        }
        pooling, norms = poolers.get(type(text.pooler).__name__), norms_of(encoder)
    else:
        blocks = text.transformer.resblocks
        pooling, norms = _open_clip_text_pooling(text), norms_of(text.transformer, text.ln_final)
    return TowerSettings(
        *told_by_blocks(blocks),
        eps=norms,
        pooling=TEXT_POOLING.get(pooling or ""),
        context=len(ids),
        padding=padding,
    )


def _open_clip_text_pooling(text: Any) -> str | None:
    if getattr(text, "cls_emb", None) is not None:
        return "class"
    return {"argmax": "end", "eos": "end", "last": "last", "first": "first"}.get(_pool_type(text))


def _pool_type(text: Any) -> str:
    return str(getattr(text, "pool_type", None) or getattr(text, "text_pool_type", ""))


def reads_at_end(text: Any) -> bool:
    """Whether nothing behind a text's end changes its feature."""
    causal = getattr(text, "attn_mask", None) is not None
    return (
        causal and getattr(text, "cls_emb", None) is None and _pool_type(text) in ("argmax", "eos")
    )


def up_to_end(text: Any, ids: Sequence[int]) -> list[int]:
    """Token ids up to the one that open_clip's causal tower reads at."""
    eos = getattr(text, "eos_id", getattr(text, "text_eos_id", None))
    end = max(ids) if _pool_type(text) == "argmax" else eos
    return list(ids[: ids.index(end) + 1])
