"""Vision Transformers of timm as image towers: SigLIP's, EVA's, PE's, ViTamin's and others."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import ImageShape, PoolShape, TransformerShape
from promptot.backbones.loaders.parts import (
    ImagePart,
    Norms,
    Weights,
    activation_of,
    linear_of,
    merged,
)
from promptot.backbones.towers.fixed_stem import FixedStem
from promptot.backbones.towers.pooling import projected_query

TRUNKS = ("VisionTransformer", "Eva")


@torch.no_grad()
def read_timm(visual: Any) -> ImagePart | None:
    """An open_clip `TimmModel` whose trunk is a Vision Transformer; None of any other.

    None too where a part of it is of a kind that our tower does not compute, such as registers, a
    norm on queries and keys, or gates on what was attended.
    """
    trunk = visual.trunk
    if type(trunk).__name__ not in TRUNKS or not _is_usual(trunk):
        return None
    norms = Norms()
    blocks = [_read_block(block, number, norms) for number, block in enumerate(trunk.blocks)]
    known = [found for found in blocks if found is not None]
    kinds = {kind for kind, _ in known}
    final = [norm for norm in (trunk.norm, trunk.fc_norm) if not isinstance(norm, nn.Identity)]
    read = _read_pool(trunk)
    head = _read_head(trunk.head, visual.head)
    pre = norms.read(trunk.norm_pre, "ln_pre")
    post = merged(norms.read(norm, "ln_post") for norm in final)
    if len(known) < len(blocks) or len(kinds) != 1 or len(final) > 1 or norms.one is None:
        return None
    if read is None or head is None or pre is None or post is None:
        return None
    pool, pool_shape, pooling = read
    stem, patch = _read_stem(trunk.patch_embed)
    weights = _read_places(trunk) | pre | post | pooling | head | stem
    for _, own in known:
        weights |= own
    shape = ImageShape(
        replace(kinds.pop(), layers=len(blocks), eps=norms.one),
        patches=trunk.patch_embed.num_patches,
        patch=patch,
        patch_bias="stem.conv1.bias" in stem,
        pool=pool,
        pre_norm=bool(pre),
        class_token=trunk.cls_token is not None,
        rotary="rotation" in weights,
        final_norm=bool(post),
        projection="proj" in head,
        projection_bias="proj_bias" in head,
        attention_pool=pool_shape,
    )
    return ImagePart(shape, weights, None if patch is not None else FixedStem(trunk.patch_embed))


def _is_usual(trunk: Any) -> bool:
    """Whether nothing happens around the blocks that our tower does not do."""
    rope = getattr(trunk, "rope", None)
    rotary = rope is None or (
        type(rope).__name__ == "RotaryEmbeddingCat"
        and rope.feat_shape is not None
        and not getattr(trunk, "rope_mixed", False)
        and not getattr(rope, "rotate_half", False)
    )
    pooled = getattr(trunk, "attn_pool", None) is None or _is_latent_pool(trunk)
    dropped = isinstance(getattr(trunk, "patch_drop", None) or nn.Identity(), nn.Identity)
    fixed = trunk.reg_token is None and not trunk.dynamic_img_size
    return rotary and pooled and dropped and fixed


def _read_block(block: Any, number: int, norms: Norms) -> tuple[TransformerShape, Weights] | None:
    """What kind of block it is (of 0 layers and no ε yet), and its weights."""
    places = {"Block": "before", "EvaBlock": "before", "EvaBlockPostNorm": "branch"}
    if type(block).__name__ not in places:
        return None
    norm_place = places[type(block).__name__]
    prefix = f"transformer.resblocks.{number}"
    gains = [_layer_scale(block, part) for part in "12"]
    if norm_place == "branch" and any(gain is not None for gain in gains):
        return None
    mlp = _read_mlp(block.mlp, f"{prefix}.mlp", norms, gains[1])
    attention = _read_attention(block.attn, f"{prefix}.attn", norms, gains[0])
    weights = merged(
        [
            norms.read(block.norm1, f"{prefix}.ln_1"),
            norms.read(block.norm2, f"{prefix}.ln_2"),
            attention,
            None if mlp is None else mlp[1],
        ]
    )
    if weights is None or mlp is None or f"{prefix}.ln_1.weight" not in weights:
        return None
    kind = replace(
        mlp[0],
        width=len(weights[f"{prefix}.ln_1.weight"]),
        heads=block.attn.num_heads,
        norms=norm_place,
        attention_norm=f"{prefix}.attn.norm.weight" in weights,
    )
    return kind, weights


def _layer_scale(block: Any, part: str) -> Tensor | None:
    """The factor on a branch: timm has it as a module or as a parameter."""
    scale = getattr(block, f"ls{part}", None)
    gain = getattr(scale, "gamma", None)
    own: Tensor | None = getattr(block, f"gamma_{part}", None) if gain is None else gain
    return own


def _read_attention(attn: Any, name: str, norms: Norms, gain: Tensor | None) -> Weights | None:
    if type(attn).__name__ not in ("Attention", "EvaAttention", "AttentionRope"):
        return None
    normed = [getattr(attn, part, None) for part in ("q_norm", "k_norm")]
    odd = (
        any(not isinstance(norm or nn.Identity(), nn.Identity) for norm in normed)
        or getattr(attn, "gate", None) is not None
        or getattr(attn, "num_kv_groups", 1) != 1
        or getattr(attn, "rotate_half", False)
        or attn.proj.in_features != attn.proj.out_features
    )
    if odd:
        return None
    if getattr(attn, "qkv", None) is not None:
        weight, bias = attn.qkv.weight, attn.qkv.bias
        if getattr(attn, "q_bias", None) is not None:
            bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
    else:
        layers = [attn.q_proj, attn.k_proj, attn.v_proj]
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat(
            [layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
             for layer in layers]
        )  # fmt: skip
    if bias is None:
        bias = weight.new_zeros(len(weight))
    return merged(
        [
            {f"{name}.in_proj_weight": weight, f"{name}.in_proj_bias": bias},
            norms.read(getattr(attn, "norm", nn.Identity()), f"{name}.norm"),
            linear_of(attn.proj, f"{name}.out_proj", gain),
        ]
    )


def _read_mlp(
    mlp: Any, name: str, norms: Norms, gain: Tensor | None
) -> tuple[TransformerShape, Weights] | None:
    """Its part of the block's kind, and its weights."""
    kind, activation = type(mlp).__name__, activation_of(mlp.act)
    mlp_norm: str | None = "hidden"
    if kind == "Mlp":
        first, gate, last = mlp.fc1, None, mlp.fc2
    elif kind == "SwiGLU":
        first, gate, last = mlp.fc1_x, mlp.fc1_g, mlp.fc2
    elif kind == "GeGluMlp":
        first, gate, last, mlp_norm = mlp.w1, mlp.w0, mlp.w2, "input"
    else:
        return None
    if activation is None:
        return None
    normed = norms.read(mlp.norm, f"{name}.{mlp_norm}_norm")
    weights = merged(
        [
            linear_of(first, f"{name}.c_fc"),
            {} if gate is None else linear_of(gate, f"{name}.gate"),
            normed,
            linear_of(last, f"{name}.c_proj", gain),
        ]
    )
    if weights is None:
        return None
    shape = TransformerShape(
        0, 0, 0, first.out_features, activation,
        gated=gate is not None, mlp_norm=mlp_norm if normed else None,
    )  # fmt: skip
    return shape, weights


def _read_places(trunk: Any) -> Weights:
    """The class token, position embeddings of all tokens, and rotations."""
    classes = int(trunk.cls_token is not None)
    count = trunk.patch_embed.num_patches
    example = next(trunk.parameters())
    places = example.new_zeros(classes + count, trunk.embed_dim)
    if trunk.pos_embed is not None:
        own = trunk.pos_embed[0]
        missing = classes + count - len(own)  # where the class token has no place
        places = torch.cat([own.new_zeros(missing, own.shape[1]), own])
    found = {"positional_embedding": places}
    if classes:
        found["class_embedding"] = trunk.cls_token.reshape(-1)
    if getattr(trunk, "rope", None) is not None:
        found["rotation"] = _rotation(trunk.rope, classes)
    return found


def _rotation(rope: Any, classes: int) -> Tensor:
    """Cosines and sines [2, 1 + N, d]; a class token is not rotated.

    They are no weights but worked out when the module is made, so it is made again where the rest
    of the model has no memory yet.
    """
    names = inspect.signature(type(rope)).parameters
    known = {name: getattr(rope, name) for name in names if hasattr(rope, name)}
    with torch.device("cpu"):
        sines, cosines = type(rope)(**known).get_embed().float().chunk(2, dim=-1)
        still = torch.ones(classes, cosines.shape[1])
        return torch.stack([torch.cat([still, cosines]), torch.cat([0 * still, sines])])


def _is_latent_pool(trunk: Any) -> bool:
    pool: Any = trunk.attn_pool
    return (
        type(pool).__name__ == "AttentionPoolLatent"
        and pool.latent_len == 1
        and pool.pos_embed is None
        and pool.pool == "token"
        and isinstance(pool.q_norm, nn.Identity)
        and isinstance(pool.k_norm, nn.Identity)
        and isinstance(pool.proj, nn.Linear)
    )


def _read_pool(trunk: Any) -> tuple[str, PoolShape | None, Weights] | None:
    """Where the feature is read; sizes and weights of attention that pools."""
    if trunk.global_pool == "token":
        return "class", None, {}
    if trunk.global_pool == "avg":
        late = not isinstance(trunk.fc_norm, nn.Identity)
        return ("mean_before_norm" if late else "mean"), None, {}
    if trunk.global_pool != "map":
        return None
    pool, norms = trunk.attn_pool, Norms()
    name = "attention_pool"
    asked = linear_of(pool.q, "q")
    if asked is None:
        return None
    query = projected_query(pool.latent.reshape(-1), asked["q.weight"], asked["q.bias"])
    keys = linear_of(pool.kv, f"{name}.kv", joined="_")
    parts = [keys, linear_of(pool.proj, f"{name}.out_proj")]
    activation: str | None = "gelu"
    if pool.mlp is not None:
        if type(pool.mlp).__name__ != "Mlp" or not isinstance(pool.mlp.norm, nn.Identity):
            return None
        activation = activation_of(pool.mlp.act)
        parts += [
            norms.read(pool.norm, f"{name}.norm"),
            linear_of(pool.mlp.fc1, f"{name}.mlp.c_fc"),
            linear_of(pool.mlp.fc2, f"{name}.mlp.c_proj"),
        ]
    weights = merged(parts)
    if weights is None or activation is None or (pool.mlp is not None and norms.one is None):
        return None
    shape = PoolShape(
        width=len(query),
        heads=pool.num_heads,
        output=pool.proj.out_features,
        mlp_width=None if pool.mlp is None else pool.mlp.fc1.out_features,
        activation=activation,
        eps=norms.one or 1e-5,
        class_token=type(trunk).__name__ == "Eva" or trunk.pool_include_prefix,
    )
    return "attention", shape, weights | {f"{name}.query": query}


def _read_head(own: nn.Module, after: nn.Module) -> Weights | None:
    """The one matrix that maps to the features, of timm's head or of open_clip's behind it."""
    layers = [layer for layer in _layers(own, after) if not isinstance(layer, nn.Dropout)]
    if not layers:
        return {}
    if len(layers) > 1 or type(layers[0]) is not nn.Linear:
        return None
    found = {"proj": layers[0].weight.T}
    return found if layers[0].bias is None else found | {"proj_bias": layers[0].bias}


def _layers(*modules: nn.Module) -> Iterator[nn.Module]:
    for module in modules:
        if isinstance(module, nn.Sequential):
            yield from _layers(*module)
        elif not isinstance(module, nn.Identity):
            yield module


def _read_stem(embed: Any) -> tuple[Weights, int | None]:
    """Weights and side of CLIP's convolution; nothing of another stem, which is used as it is."""
    plain = type(embed).__name__ == "PatchEmbed" and isinstance(embed.norm, nn.Identity)
    if not plain or not embed.flatten or embed.patch_size[0] != embed.patch_size[1]:
        return {}, None
    found = {"stem.conv1.weight": embed.proj.weight}
    if embed.proj.bias is not None:
        found["stem.conv1.bias"] = embed.proj.bias
    return found, int(embed.patch_size[0])
