"""The sides of models that have no library: files in the OpenAI layout, and the bundled model.

They are computed the plain way (`plain_forward`), their pictures read by open_clip's transform.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import torch.nn.functional as F
from torch import Tensor

from promptot.backbones.checks.plain_forward import PlainClip
from promptot.backbones.checks.side import (
    IMAGE_POOLING,
    OPENAI_MEAN,
    OPENAI_STD,
    TEXT_POOLING,
    Reading,
    Side,
    TowerSettings,
    settings_of,
)
from promptot.backbones.loaders.bundled_clip import ASSETS
from promptot.files.reading import read_json
from promptot.files.weights_file import read_state_dict


def openai_side(rest: str) -> Side:
    """A state dict in the OpenAI layout, with what its name and the JSON beside it say.

    What they don't say is as in OpenAI's own models: QuickGELU, heads of 64, CLIP's preprocessing.
    """
    name, _, query = rest.rpartition("?")
    path = Path(name) if name and not Path(rest).is_file() else Path(rest)
    said: dict[str, Any] = {}
    beside = path.with_name(f"{path.name}.json")
    if beside.is_file():
        said |= read_json(beside)
    if str(path) != rest:
        said |= {key: values[0] for key, values in parse_qs(query).items()}
    weights = _plain_weights(path)
    kernel = weights["visual.conv1.weight"]
    widths = len(kernel), len(weights["ln_final.weight"])
    heads = [int(value) for value in _several(said.get("heads", [w // 64 for w in widths]), 2)]
    activation = str(said.get("activation", "quick_gelu"))
    patches = len(weights["visual.positional_embedding"]) - 1
    side = kernel.shape[-1] * round(patches**0.5)
    reading = Reading(
        side,
        [float(value) for value in _several(said.get("mean", OPENAI_MEAN), 3)],
        [float(value) for value in _several(said.get("std", OPENAI_STD), 3)],
        str(said.get("interpolation", "bicubic")),
        str(said.get("resize_mode", "shortest")),
        fill=int(said.get("fill", 0)),
    )
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = partial(
        _up_to_end, SimpleTokenizer(context_length=len(weights["positional_embedding"]))
    )
    clip = PlainClip(weights, heads[0], heads[1], activation, activation)
    return _plain_side(clip, reading, tokenizer)


def _plain_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in fp32, without the prefix that a wrapper leaves."""
    state = read_state_dict(path)
    return {key: value.float() for key, value in state.items() if value.is_floating_point()}


def _several(value: Any, count: int) -> list[Any]:
    """A list, "a,b", or one value for all."""
    parts = value.split(",") if isinstance(value, str) else value
    parts = list(parts) if isinstance(parts, list | tuple) else [parts]
    return parts * count if len(parts) == 1 else parts


def bundled_side(name: str) -> Side:
    """The bundled model from its files: the trunk as timm has it, its norms not folded in."""
    from timm import create_model
    from tokenizers import Tokenizer

    folder = ASSETS / name
    config = read_json(folder / "config.json")
    stored = read_state_dict(folder / "model.safetensors")
    state = {key: value.float() for key, value in stored.items()}
    for key in [key for key in stored if f"{key}.scale" in stored]:  # integers, a factor a row
        state[key] = state[key] * state.pop(f"{key}.scale")
    prefix = "image_tower.stem."
    trunk = create_model(config["architecture"]["image"]["trunk"], num_classes=0, global_pool="")
    own = f"{prefix}trunk."
    trunk.load_state_dict(
        {key.removeprefix(own): value for key, value in state.items() if key.startswith(own)},
        strict=False,  # the counters of its batch norms are no weights
    )
    trunk.eval()
    weight, bias = state[f"{prefix}proj.weight"], state[f"{prefix}proj.bias"]

    def stem(images: Tensor) -> Tensor:
        tokens: Tensor = trunk.forward_features(images).flatten(2).mT
        return F.linear(tokens, weight, bias)

    weights = {
        key.replace("image_tower.", "visual.").removeprefix("text_tower."): value
        for key, value in state.items()
        if not key.startswith(prefix)
    }
    weights["logit_scale"] = weights["logit_scale"].log()  # the OpenAI layout holds the logarithm
    image, text = (config["architecture"][tower]["transformer"] for tower in ("image", "text"))
    clip = PlainClip(
        weights,
        image["heads"],
        text["heads"],
        image["activation"],
        text["activation"],
        image["eps"],
        stem,
        config["architecture"]["image"]["pool"] == "class_with_mean",
    )
    said = config["preprocess"]
    reading = Reading(
        said["resolution"],
        said["mean"],
        said["std"],
        said["interpolation"],
        said.get("resize_mode", "shortest"),
        fill=said.get("fill", 0),
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return _plain_side(clip, reading, lambda text: list(tokenizer.encode(text).ids))


def _up_to_end(tokenizer: Any, text: str) -> list[int]:
    """Token ids without padding, by a tokenizer of open_clip."""
    ids: list[int] = tokenizer([text])[0].tolist()
    return ids[: ids.index(tokenizer.eot_token_id) + 1]


def _plain_side(clip: PlainClip, reading: Reading, tokens: Callable[[str], list[int]]) -> Side:
    eps = f"{clip.eps:.0e}"
    image = TowerSettings(
        clip.image_activation,
        str(clip.image_heads),
        eps,
        IMAGE_POOLING["class_with_mean" if clip.class_with_mean else "class"],
        rotation="none",
    )
    text = TowerSettings(
        clip.text_activation,
        str(clip.text_heads),
        eps,
        TEXT_POOLING["end"],
        context=len(clip.weights["positional_embedding"]),
    )
    return Side(
        "the plain computation",
        settings_of(image, text, reading),
        float(clip.weights["logit_scale"].exp()),
        reading.transform(),
        tokens,
        clip.encode_images,
        lambda texts: clip.encode_texts([tokens(text) for text in texts]),
    )
