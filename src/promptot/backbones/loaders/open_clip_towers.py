"""open_clip's own towers: its Vision Transformer and its text transformer, CoCa's included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptot.backbones.architecture import (
    ImageShape,
    PaddedTextShape,
    PoolShape,
    TextShape,
    TransformerShape,
)
from promptot.backbones.loaders.open_clip_sources import unsupported
from promptot.backbones.loaders.parts import (
    ImagePart,
    Norms,
    TextPart,
    Weights,
    activation_of,
    linear_of,
    merged,
)
from promptot.backbones.loaders.timm_towers import read_timm
from promptot.backbones.tokenizer import Tokenizer, leading_tokens
from promptot.backbones.towers.pooling import projected_query


@torch.no_grad()
def read_image(visual: Any) -> ImagePart | None:
    """An image tower of open_clip; None of one that is no Vision Transformer known here."""
    kind = type(visual).__name__
    if kind == "TimmModel":
        return read_timm(visual)
    if kind != "VisionTransformer" or visual.pool_type not in ("tok", "avg"):
        return None
    norms = Norms()
    read = _read_transformer(visual.transformer, norms)
    pre = norms.read(visual.ln_pre, "ln_pre")
    post = norms.read(visual.ln_post, "ln_post")
    pooling = _read_pooler(visual.attn_pool) if visual.attn_pool is not None else None
    square = len(set(visual.patch_size)) == 1 and len(set(visual.grid_size)) == 1
    contrastive = getattr(visual, "attn_pool_contrastive", None) is not None
    odd = (visual.attn_pool is not None and pooling is None) or contrastive or not square
    if read is None or pre is None or post is None or norms.one is None or odd:
        return None
    transformer, weights = read
    pool = "class" if visual.pool_type == "tok" else "mean"
    if pooling is not None:
        if pool != "class":  # the mean of what 256 queries see
            return None
        pool = "attention_before_norm"
    elif pool == "mean" and visual.final_ln_after_pool:
        pool = "mean_before_norm"
    weights |= (
        pre
        | post
        | {
            "class_embedding": visual.class_embedding,
            "positional_embedding": visual.positional_embedding,
            "stem.conv1.weight": visual.conv1.weight,
            "proj": visual.proj,
        }
    )
    shape = ImageShape(
        replace(transformer, eps=norms.one),
        patches=len(visual.positional_embedding) - 1,
        patch=visual.patch_size[0],
        pool=pool,
        pre_norm=bool(pre),
        attention_pool=None if pooling is None else pooling[0],
    )
    return ImagePart(shape, weights | ({} if pooling is None else pooling[1]))


@torch.no_grad()
def read_text(text: Any, tokenizer: Tokenizer) -> TextPart:
    """A text tower of open_clip: a `TextTransformer`, or a `CLIP` that holds its parts itself.

    Raises:
        PromptotError: a kind that can't be prompted yet.
    """
    norms = Norms()
    read = _read_transformer(text.transformer, norms)
    final = norms.read(text.ln_final, "ln_final")
    if read is None or final is None or norms.one is None:
        raise unsupported("a custom attention block in its text tower")
    transformer, weights = replace(read[0], eps=norms.one), read[1] | final
    weights |= {
        "token_embedding.weight": text.token_embedding.weight,
        "positional_embedding": text.positional_embedding,
    }
    head = _read_projection(text.text_projection)
    sizes = {
        "transformer": transformer,
        "vocabulary": len(text.token_embedding.weight),
        "context_length": text.context_length,
    }
    own = getattr(text, "cls_emb", None)
    pool = getattr(text, "pool_type", None) or getattr(text, "text_pool_type", None)
    _check_end(text, pool, tokenizer)
    if own is None and text.attn_mask is not None and pool in ("argmax", "eos"):
        shape = TextShape(
            **sizes, projection="text_projection" in head, projection_bias="projection_bias" in head
        )
        return TextPart(shape, weights | head)
    where = _padded_pool(text, pool, own)
    padded = PaddedTextShape(
        **sizes,
        pad=tokenizer.pad,
        starts=leading_tokens(tokenizer),
        pool=where,
        hidden_padding=bool(getattr(text, "use_pad_mask", False)),
        head="linear" if "text_projection" in head else "none",
        head_bias="projection_bias" in head,
    )
    return TextPart(padded, weights | head | ({} if own is None else {"class_embedding": own}))


def _padded_pool(text: Any, pool: str | None, own: Tensor | None) -> str:
    """Where a text that is not packed is read."""
    if own is not None:
        wrong = getattr(text, "correct_cls_mask", False) or text.attn_mask is None
        if wrong or text.pad_id != 0:
            raise unsupported("a class token in its text tower that is not CoCa's")
        return "class"
    if text.attn_mask is not None:
        raise unsupported("a causal text tower that is not read at its end token")
    if getattr(text, "use_pad_mask", False) and pool == "last":
        raise unsupported("a text tower that is read at padding which it hides")
    places = {"argmax": "end", "eos": "end", "last": "last", "first": "first"}
    if pool not in places:
        raise unsupported(f"a text tower with the pooling '{pool}'")
    return places[pool]


def _check_end(text: Any, pool: str | None, tokenizer: Tokenizer) -> None:
    """Refuse a tower that is read at another token than the last one of its tokenizer."""
    if pool == "eos":
        read_at = getattr(text, "eos_id", getattr(text, "text_eos_id", None))
        if read_at != tokenizer.encode("a")[-1]:
            raise unsupported(f"a text tower that is read at the token {read_at}")


def _read_projection(projection: Any) -> Weights:
    if projection is None:
        return {}
    if isinstance(projection, nn.Linear):
        found = {"text_projection": projection.weight.T}
        bias = projection.bias
        return found if bias is None else found | {"projection_bias": bias}
    return {"text_projection": projection}


def _read_transformer(transformer: Any, norms: Norms) -> tuple[TransformerShape, Weights] | None:
    """Sizes (without ε) and weights of open_clip's blocks."""
    weights: Weights = {}
    kinds = set()
    for number, block in enumerate(transformer.resblocks):
        name = f"transformer.resblocks.{number}"
        attn, mlp = block.attn, block.mlp
        known = type(block).__name__ == "ResidualAttentionBlock"
        if not known or type(attn) is not nn.MultiheadAttention or attn.in_proj_weight is None:
            return None
        activation = activation_of(mlp.gelu)
        parts: list[Weights | None] = [
            norms.read(block.ln_1, f"{name}.ln_1"),
            norms.read(block.ln_2, f"{name}.ln_2"),
            {
                f"{name}.attn.in_proj_weight": attn.in_proj_weight,
                f"{name}.attn.in_proj_bias": attn.in_proj_bias,
            },
            linear_of(attn.out_proj, f"{name}.attn.out_proj", _gain(block.ls_1)),
            linear_of(mlp.c_fc, f"{name}.mlp.c_fc"),
            linear_of(mlp.c_proj, f"{name}.mlp.c_proj", _gain(block.ls_2)),
        ]
        own = merged(parts)
        if activation is None or own is None:
            return None
        weights |= own
        width, hidden = mlp.c_fc.in_features, mlp.c_fc.out_features
        kinds.add((width, attn.num_heads, hidden, activation))
    if len(kinds) != 1:
        return None
    width, heads, hidden, activation = kinds.pop()
    return TransformerShape(width, len(transformer.resblocks), heads, hidden, activation), weights


def _gain(scale: Any) -> Tensor | None:
    """The factor of a layer scale; None of an identity."""
    gain: Tensor | None = getattr(scale, "gamma", None)
    return gain


def _normed(pooler: Any) -> Tensor:
    """The first query [E], normalised in double precision: the same on every machine."""
    norm = pooler.ln_q
    return F.layer_norm(
        pooler.query[0].double(), norm.normalized_shape, norm.weight.double(), norm.bias.double(),
        norm.eps,
    )  # fmt: skip


def _read_pooler(pooler: Any) -> tuple[PoolShape, Weights] | None:
    """CoCa's pooler; of its many queries only the first is read for the contrastive feature."""
    attn, norms, name = pooler.attn, Norms(), "attention_pool"
    normed = norms.read(pooler.ln_k, f"{name}.input_norm")
    if normed is None or norms.one is None or attn.embed_dim != attn.out_proj.out_features:
        return None
    if attn.in_proj_weight is None:
        query, key, value = attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight
    else:
        query, key, value = attn.in_proj_weight.chunk(3)
    biases = attn.in_proj_bias
    width = attn.embed_dim
    weights: Mapping[str, Tensor] = {
        f"{name}.query": projected_query(_normed(pooler), query, biases[:width]),
        f"{name}.kv_weight": torch.cat([key, value]),
        f"{name}.kv_bias": biases[width:],
        f"{name}.out_proj.weight": attn.out_proj.weight,
        f"{name}.out_proj.bias": attn.out_proj.bias,
    }
    shape = PoolShape(width, attn.num_heads, width, eps=norms.one, input_norm=True)
    return shape, dict(weights) | normed
