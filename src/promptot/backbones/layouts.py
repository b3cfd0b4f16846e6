"""Names of a CLIP's weights: ours, OpenAI's (and open_clip's) and those of transformers.

Ours are those of the modules of a `Backbone`. Its logit scale is the factor itself; the other
layouts hold its logarithm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

SIZES = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's own files hold beside their weights."""
_NO_WEIGHTS = ("logit_scale", "logit_bias", *SIZES)

# The first of these that a name begins with is what is replaced.
_OPENAI = (
    ("visual.conv1.", "image_tower.stem.conv1."),
    ("visual.", "image_tower."),
    ("", "text_tower."),
)
# Each of these that stands in a name is replaced.
_TRANSFORMERS = (
    ("vision_model.", "image_tower."),
    ("text_model.", "text_tower."),
    ("embeddings.class_embedding", "class_embedding"),
    ("embeddings.patch_embedding.", "stem.conv1."),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("embeddings.token_embedding.", "token_embedding."),
    ("pre_layrnorm.", "ln_pre."),
    ("post_layernorm.", "ln_post."),
    ("final_layer_norm.", "ln_final."),
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("self_attn.", "attn."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
)
_PROJECTIONS = (
    ("visual_projection.weight", "image_tower.proj"),
    ("text_projection.weight", "text_tower.text_projection"),
)
_LINEAR = "text_tower.text_projection."  # where open_clip's is a layer, mostly with a bias


def from_openai(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the OpenAI layout, or in open_clip's, under our names."""
    ours = {"logit_scale": _factor(weights)}
    for key, value in weights.items():
        if key not in _NO_WEIGHTS and not key.endswith("attn_mask"):
            ours[_replace_start(key.removeprefix("text."), _OPENAI)] = value
    if f"{_LINEAR}weight" in ours:
        ours["text_tower.text_projection"] = ours.pop(f"{_LINEAR}weight").T
    if f"{_LINEAR}bias" in ours:
        ours["text_tower.projection_bias"] = ours.pop(f"{_LINEAR}bias")
    return ours


def to_openai(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names in open_clip's layout."""
    ours = dict(weights)
    theirs = {"logit_scale": ours.pop("logit_scale").log()}
    if "text_tower.projection_bias" in ours:
        ours[f"{_LINEAR}bias"] = ours.pop("text_tower.projection_bias")
        ours[f"{_LINEAR}weight"] = ours.pop("text_tower.text_projection").T
    return theirs | {_replace_start(key, _swapped(_OPENAI)): value for key, value in ours.items()}


def from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a CLIPModel under our names; queries, keys and values become one matrix."""
    ours = {"logit_scale": _factor(weights)}
    ours |= {name: weights[theirs].T for theirs, name in _PROJECTIONS}
    for key, value in weights.items():
        name = _replace_all(key, _TRANSFORMERS)
        if name == key or key.endswith("position_ids"):
            continue
        if ".attn.q_proj." in name:
            parts = [weights[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            ours[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
        elif ".attn.k_proj." not in name and ".attn.v_proj." not in name:
            ours[name] = value
    return ours


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names as those of a CLIPModel."""
    ours = dict(weights)
    theirs = {"logit_scale": ours.pop("logit_scale").log()}
    ours.pop("logit_bias", None)  # a CLIPModel has no place for it
    theirs |= {name: ours.pop(own).T for name, own in _PROJECTIONS}
    for key, value in ours.items():
        name = _replace_all(key, _swapped(_TRANSFORMERS))
        if "in_proj_" in name:
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                theirs[name.replace("in_proj_", f"{part}_proj.")] = rows
        else:
            theirs[name] = value
    return theirs


def _factor(weights: Mapping[str, Tensor]) -> Tensor:
    """The logit scale, 0-d; some save its logarithm as [1]."""
    return weights["logit_scale"].detach().float().exp().reshape(())


def _swapped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(new, old) for old, new in pairs]


def _replace_start(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _replace_all(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        key = key.replace(old, new)
    return key
