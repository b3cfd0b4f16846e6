"""Text encoders of transformers inside open_clip models: BERT, (XLM-)RoBERTa and NLLB's encoder.

They are computed by our own tower; of a repository nothing but its config.json is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptot.backbones.architecture import PaddedTextShape, TransformerShape
from promptot.backbones.loaders.open_clip_sources import unsupported, where_pooled
from promptot.backbones.loaders.parts import TextPart, Weights
from promptot.backbones.tokenizer import Tokenizer, leading_tokens
from promptot.errors import PromptotError

FAMILIES = {"bert": "bert", "roberta": "bert", "xlm-roberta": "bert", "m2m_100": "m2m"}
"""Kinds of models in `config.json` → how their weights are laid out."""
_DEFAULT_POOLERS = {"bert": "cls_pooler", "m2m_100": "cls_pooler"}
_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu_tanh", "quick_gelu": "quick_gelu"}
_BERT = (
    ("attention.output.dense.", "attn.out_proj."),
    ("attention.output.LayerNorm.", "ln_1."),
    ("intermediate.dense.", "mlp.c_fc."),
    ("attention.self.", "attn."),
    ("output.dense.", "mlp.c_proj."),
    ("output.LayerNorm.", "ln_2."),
)
_M2M = (
    ("self_attn_layer_norm.", "ln_1."),
    ("self_attn.out_proj.", "attn.out_proj."),
    ("self_attn.", "attn."),
    ("final_layer_norm.", "ln_2."),
    ("fc1.", "mlp.c_fc."),
    ("fc2.", "mlp.c_proj."),
)


def read_hugging_face_text(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    text: Mapping[str, Any],
    embed_dim: int,
    tokenizer: Tokenizer,
) -> TextPart:
    """The text tower of an open_clip model's weights.

    Args:
        state: weights of open_clip's `HFTextEncoder`, "transformer.…" and "proj.…".
        config: of the encoder, as in its repository's config.json.
        text: open_clip's `text_cfg`.
        embed_dim: size of the features.

    Raises:
        PromptotError: a kind of encoder, or of a part of it, that can't be computed here.
    """
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise unsupported(f"a text tower of the kind '{kind}'")
    bert = FAMILIES[kind] == "bert"
    pooler = text.get("hf_pooler_type", "mean_pooler")  # as in open_clip; null is the family's own
    pooler = pooler or _DEFAULT_POOLERS.get(kind, "mean_pooler")
    own = _Read({key.removeprefix("transformer."): value for key, value in state.items()})
    weights = _blocks(own, "encoder.layer." if bert else "layers.", _BERT if bert else _M2M)
    weights |= _bert_places(own, kind, config) if bert else _m2m_places(own, config)
    context = min(int(text.get("context_length", 77)), len(weights["positional_embedding"]))
    weights["positional_embedding"] = weights["positional_embedding"][:context]
    if not bert:
        weights |= {f"ln_final.{part}": own[f"layer_norm.{part}"] for part in ("weight", "bias")}
    with_pooler = bert and pooler == "cls_pooler"
    if with_pooler:
        weights |= {f"pooler.{part}": own[f"pooler.dense.{part}"] for part in ("weight", "bias")}
    head, projections = _head(own, text, weights["token_embedding.weight"].shape[1], embed_dim)
    _check_all_read(own, with_pooler)
    shape = PaddedTextShape(
        _transformer(config, weights, bert),
        vocabulary=len(weights["token_embedding.weight"]),
        context_length=context,
        pad=tokenizer.pad,
        starts=leading_tokens(tokenizer),
        pool=where_pooled(pooler),
        hidden_padding=True,
        token_norm=bert,
        final_norm=not bert,
        head=head,
        head_width=len(projections["text_projection"]) if head == "mlp" else None,
        pooler=with_pooler,
    )
    if tokenizer.pad != config.get("pad_token_id", tokenizer.pad):
        raise unsupported("a tokenizer that pads with another token than its text tower hides")
    if shape.pool == "first" and not shape.starts:
        raise unsupported("a text tower that is read where its tokenizer puts no token of its own")
    return TextPart(shape, weights | projections)


def read_hub_config(source: str) -> dict[str, Any]:
    """The config.json of a model: of a folder, of the cache, or else downloaded.

    Raises:
        PromptotError: it can't be had.
    """
    from huggingface_hub import hf_hub_download

    from promptot.files.reading import read_json

    path = Path(source)
    if path.is_absolute() and not path.is_dir():
        raise PromptotError(
            f"The folder of the text tower, '{source}', is not there.",
            fix="Correct hf_model_name in open_clip_config.json: a repository, or a folder with "
            "the text tower's config.json.",
        )
    try:
        if path.is_dir():
            return dict(read_json(path / "config.json"))
        try:
            file = hf_hub_download(source, "config.json", local_files_only=True)
        except Exception:  # of many kinds, by version; then it is not in the cache
            file = hf_hub_download(source, "config.json")
        return dict(read_json(Path(file)))
    except Exception as error:
        raise PromptotError(
            f"The configuration of the text tower '{source}' could not be had: {error}",
            fix=f"Once with network access, run: hf download {source} config.json",
        ) from error


def _transformer(config: Mapping[str, Any], weights: Weights, bert: bool) -> TransformerShape:
    names = (
        ("num_attention_heads", "hidden_act", "layer_norm_eps")
        if bert
        else ("encoder_attention_heads", "activation_function", "layer_norm_eps")
    )
    heads, activation, eps = (config.get(name) for name in names)
    if activation not in _ACTIVATIONS or heads is None:
        raise unsupported(f"a text tower with the activation '{activation}'")
    hidden, width = weights["transformer.resblocks.0.mlp.c_fc.weight"].shape
    layers = sum(key.endswith(".ln_1.weight") for key in weights)
    default = 1e-12 if bert else 1e-5
    return TransformerShape(
        width, layers, int(heads), hidden, _ACTIVATIONS[activation],
        default if eps is None else float(eps), norms="after" if bert else "before",
    )  # fmt: skip


class _Read(dict[str, Tensor]):
    """Weights in fp32 that remember which of them were read."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        names = {key: _modern(key) for key in weights}
        super().__init__({names[key]: value.float() for key, value in weights.items()})
        self.left = {*self}

    def __getitem__(self, key: str) -> Tensor:
        if key not in self:
            raise PromptotError(
                f"The text tower's weights lack '{key}'.",
                fix="Check that the file is complete and that its configuration is its own.",
            )
        self.left.discard(key)
        return super().__getitem__(key)


def _modern(key: str) -> str:
    """Names of a norm's weights as they are called since 2019."""
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _check_all_read(own: _Read, with_pooler: bool) -> None:
    """Refuse weights of which a part was not read: it would be missing from the features."""
    passed = ("embeddings.position_ids", "embeddings.token_type_ids", "embed_positions.weights")
    left = [
        key
        for key in sorted(own.left)
        if key not in passed and (with_pooler or not key.startswith("pooler."))
    ]
    if left:
        raise unsupported(f"a text tower with the weights {left[0]}")


def _blocks(own: Mapping[str, Tensor], prefix: str, names: tuple[tuple[str, str], ...]) -> Weights:
    """Weights of the blocks; queries, keys and values become one matrix."""
    short = {"query": "q", "key": "k", "value": "v", "q_proj": "q", "k_proj": "k", "v_proj": "v"}
    found: Weights = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for key in [key for key in own if key.startswith(prefix)]:
        value = own[key]
        number, _, rest = key.removeprefix(prefix).partition(".")
        for theirs, ours in names:
            if rest.startswith(theirs):
                rest = ours + rest.removeprefix(theirs)
                break
        name = f"transformer.resblocks.{number}.{rest}"
        place, _, kind = name.rpartition(".")
        place, _, part = place.rpartition(".")
        if part in short:
            joined.setdefault(f"{place}.in_proj_{kind}", {})[short[part]] = value
        else:
            found[name] = value
    return found | {
        name: torch.cat([parts[part] for part in "qkv"]) for name, parts in joined.items()
    }


def _bert_places(own: Mapping[str, Tensor], kind: str, config: Mapping[str, Any]) -> Weights:
    """Embeddings; RoBERTa counts positions from behind the one of its padding."""
    embeddings = "embeddings."
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise unsupported("a text tower with relative positions")
    first = 0 if kind == "bert" else int(config.get("pad_token_id", 1)) + 1
    places = own[f"{embeddings}position_embeddings.weight"][first:]
    return {
        "token_embedding.weight": own[f"{embeddings}word_embeddings.weight"],
        "positional_embedding": places + own[f"{embeddings}token_type_embeddings.weight"][0],
        "ln_tokens.weight": own[f"{embeddings}LayerNorm.weight"],
        "ln_tokens.bias": own[f"{embeddings}LayerNorm.bias"],
    }


def _m2m_places(own: Mapping[str, Tensor], config: Mapping[str, Any]) -> Weights:
    """Embeddings, multiplied by √W where the model does that; positions are sines and cosines."""
    tokens = own["embed_tokens.weight"]
    width, pad = tokens.shape[1], int(config.get("pad_token_id", 1))
    scale = math.sqrt(width) if config.get("scale_embedding") else 1.0
    half = width // 2
    rates = torch.exp(torch.arange(half).float() * -(math.log(10000) / (half - 1)))
    count = int(config.get("max_position_embeddings", 1024))
    angles = torch.arange(pad + 1, pad + 1 + count).float()[:, None] * rates[None]
    places = torch.cat([angles.sin(), angles.cos()], dim=1)
    if width % 2:
        places = torch.cat([places, torch.zeros(count, 1)], dim=1)
    return {"token_embedding.weight": tokens * scale, "positional_embedding": places}


def _head(
    own: Mapping[str, Tensor], text: Mapping[str, Any], width: int, embed_dim: int
) -> tuple[str, Weights]:
    kind = text.get("hf_proj_type", "mlp")  # open_clip's own default
    if width == embed_dim and kind is None:
        return "none", {}
    if kind == "linear":
        return "linear", {"text_projection": own["proj.weight"].T}
    if kind == "mlp":
        return "mlp", {
            "hidden_projection": own["proj.0.weight"].T,
            "text_projection": own["proj.2.weight"].T,
        }
    raise unsupported(f"a text tower with the projection '{kind}'")
