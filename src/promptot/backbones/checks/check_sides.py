"""The two sides of a check: a backbone of ours, and its own library's model of the same weights.

Each library's side is built through that library's public functions alone and shares no code with
our loaders and towers. Two kinds have no library: a file in the OpenAI layout and the bundled
model are computed the plain way (`plain_forward`), their pictures read by open_clip's transform.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.backbones.checks.plain_forward import PlainClip
from promptot.backbones.library_warnings import quiet
from promptot.backbones.loaders.bundled_clip import ASSETS
from promptot.errors import PromptotError
from promptot.files.reading import read_json
from promptot.files.weights_file import read_state_dict

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Side:
    """One way to compute a CLIP.

    Attributes:
        name: whose it is, for people: "open_clip 3.3.0".
        settings: what changes the function beside the weights: name → value, for people.
        scale: s, the factor on cosine similarities.
        pixels: an upright RGB image → [3, R, R].
        tokens: a text → token ids, [SOS] first and [EOS] last.
        encode_images: [B, 3, R, R] → L2-normalised features [B, D].
        encode_texts: S texts → L2-normalised features [S, D].
    """

    name: str
    settings: Mapping[str, str]
    scale: float
    pixels: Callable[[Image.Image], Tensor]
    tokens: Callable[[str], list[int]]
    encode_images: Callable[[Tensor], Tensor]
    encode_texts: Callable[[Sequence[str]], Tensor]


def our_side(backbone: Backbone) -> Side:
    """A backbone as everything in this package uses it."""
    from importlib.metadata import version

    shape, read = backbone.architecture(), backbone.preprocess
    towers = [
        (own.activation, own.heads, own.eps)
        for own in (shape.image.transformer, shape.text.transformer)
    ]
    reading = Reading(
        read.resolution, read.mean, read.std, read.interpolation, read.resize_mode, read.resized_to
    )
    pooling = "mean of the patches" if shape.image.pool == "mean" else "class token"
    return Side(
        f"promptot {version('promptot')}",
        _settings(towers, pooling, shape.text.context_length, reading),
        float(backbone.logit_scale),
        read.test(),
        backbone.tokenizer.encode,
        backbone.encode_image,
        lambda texts: backbone.encode_text(backbone.tokenize(texts, "{}")),
    )


def library_side(name: str) -> Side:
    """The library's own model of a backbone's name.

    Raises:
        PromptotError: it can't be loaded.
    """
    source, _, rest = name.partition(":")
    sides = {
        "open_clip": _open_clip_side,
        "hf": _transformers_side,
        "openai": _openai_side,
        "bundled": _bundled_side,
    }
    try:
        with quiet(), torch.no_grad():
            return sides[source](rest)
    except PromptotError:
        raise
    except Exception as error:  # libraries raise many kinds: network, files, configuration
        reason = " ".join(str(error).split())[:300]
        raise PromptotError(
            f"The library's own model of '{name}' could not be loaded: {reason.rstrip('.')}.",
            fix="Check the name, the network and that its library is installed.",
        ) from error


@dataclass(frozen=True)
class Reading:
    """How a picture becomes a square of `resolution` pixels, as open_clip's transform has it.

    Attributes:
        mode, resized: how it is resized first, and to which side.
    """

    resolution: int
    mean: Sequence[float] = OPENAI_MEAN
    std: Sequence[float] = OPENAI_STD
    interpolation: str = "bicubic"
    mode: str = "shortest"
    resized: int | None = None
    fill: int = 0

    def transform(self) -> Callable[[Image.Image], Tensor]:
        from open_clip.transform import image_transform

        transform: Callable[[Image.Image], Tensor] = image_transform(
            self.resolution,
            is_train=False,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            resize_mode=self.mode,
            fill_color=self.fill,
        )
        return transform


def _settings(
    towers: Sequence[tuple[str, int, float]], pooling: str, context: int, reading: Reading
) -> dict[str, str]:
    """Settings in words that are the same for every library.

    Args:
        towers: activation, heads and the norms' epsilon of the image tower and of the text tower.
    """
    (image_activation, image_heads, image_eps), (text_activation, text_heads, text_eps) = towers
    side = reading.resized or reading.resolution
    return {
        "activation, image": image_activation,
        "activation, text": text_activation,
        "heads": f"{image_heads}, {text_heads}",
        "norm epsilon": f"{image_eps:.0e}, {text_eps:.0e}",
        "pooling": pooling,
        "context length": str(context),
        "resolution": f"{reading.resolution} px",
        "resize": "none" if reading.mode == "none" else f"{reading.mode}, {side} px",
        "interpolation": reading.interpolation,
        "mean": " ".join(f"{value:.5g}" for value in reading.mean),
        "std": " ".join(f"{value:.5g}" for value in reading.std),
    }


def _open_clip_side(spec: str) -> Side:
    import open_clip

    if spec.startswith(("local-dir:", "hf-hub:")):
        model_name, tag, chosen = spec, None, {}
    else:
        model_name, _, tag = spec.rpartition("/")
        described = open_clip.pretrained.get_pretrained_cfg(model_name, tag)
        chosen = {"quick_gelu": bool(described.get("quick_gelu", False))}
    model, _, transform = open_clip.create_model_and_transforms(
        model_name, pretrained=tag, precision="fp32", **chosen
    )
    model = model.eval()
    tokenizer = open_clip.get_tokenizer(model_name)
    visual, text = model.visual, getattr(model, "text", model)
    config = visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    kinds = {"QuickGELU": "quick_gelu", "GELU": "gelu"}
    towers = []
    for tower, norm in ((visual, visual.ln_post), (text, text.ln_final)):
        block = tower.transformer.resblocks[0]
        kind = type(block.mlp.gelu).__name__
        towers.append((kinds.get(kind, kind), block.attn.num_heads, norm.eps))
    pool = visual.pool_type
    pooling = {"tok": "class token", "avg": "mean of the patches"}.get(pool, pool)
    names = ("mean", "std", "interpolation", "resize_mode")
    reading = Reading(size, *(config[name] for name in names))

    def encode_texts(texts: Sequence[str]) -> Tensor:
        features: Tensor = model.encode_text(tokenizer(list(texts)), normalize=True)
        return features

    return Side(
        f"open_clip {open_clip.__version__}",
        _settings(towers, pooling, text.context_length, reading),
        float(model.logit_scale.detach().exp()),
        transform,
        partial(_up_to_end, tokenizer),
        partial(model.encode_image, normalize=True),
        encode_texts,
    )


def _up_to_end(tokenizer: Any, text: str) -> list[int]:
    """Token ids without padding, by a tokenizer of open_clip."""
    ids: list[int] = tokenizer([text])[0].tolist()
    return ids[: ids.index(tokenizer.eot_token_id) + 1]


def _transformers_side(source: str) -> Side:
    import transformers

    model = transformers.CLIPModel.from_pretrained(source).float().eval()
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(source)
    # With Pillow, as the model's makers did; the torchvision one differs by some grey levels.
    kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    processor = kind.from_pretrained(source)
    vision, text = model.config.vision_config, model.config.text_config
    crop, size = _sides(processor.crop_size), _sides(processor.size)
    if not processor.do_resize:
        mode, side = "none", 0
    elif "shortest_edge" in size:
        mode, side = "shortest", size["shortest_edge"]
    else:
        mode, side = "squash", size["height"]
    reading = Reading(
        crop["height"] if processor.do_center_crop else vision.image_size,
        processor.image_mean,
        processor.image_std,
        Image.Resampling(int(processor.resample)).name.lower(),
        mode,
        side,
    )
    towers = [
        (own.hidden_act, own.num_attention_heads, own.layer_norm_eps) for own in (vision, text)
    ]
    blank = torch.zeros(1, 3, vision.image_size, vision.image_size)
    any_text = tokenizer(["x"], return_tensors="pt")

    def encode_images(pixels: Tensor) -> Tensor:
        features: Tensor = model(**any_text, pixel_values=pixels).image_embeds
        return features

    def encode_texts(texts: Sequence[str]) -> Tensor:
        ids = tokenizer(list(texts), padding=True, return_tensors="pt")
        features: Tensor = model(**ids, pixel_values=blank).text_embeds
        return features

    def pixels(image: Image.Image) -> Tensor:
        return torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0])

    return Side(
        f"transformers {transformers.__version__}",
        _settings(towers, "class token", text.max_position_embeddings, reading),
        float(model.logit_scale.detach().exp()),
        pixels,
        lambda text: list(tokenizer(text)["input_ids"]),
        encode_images,
        encode_texts,
    )


def _sides(size: Any) -> dict[str, int]:
    """The named sides of a size that transformers' processors hold as one of several kinds."""
    names = ("shortest_edge", "longest_edge", "height", "width")
    known = dict(size) if isinstance(size, Mapping) else {n: getattr(size, n, None) for n in names}
    return {name: int(value) for name, value in known.items() if value is not None}


def _openai_side(rest: str) -> Side:
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


def _bundled_side(name: str) -> Side:
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


def _plain_side(clip: PlainClip, reading: Reading, tokens: Callable[[str], list[int]]) -> Side:
    towers = [
        (clip.image_activation, clip.image_heads, clip.eps),
        (clip.text_activation, clip.text_heads, clip.eps),
    ]
    context = len(clip.weights["positional_embedding"])
    return Side(
        "the plain computation",
        _settings(towers, "class token", context, reading),
        float(clip.weights["logit_scale"].exp()),
        reading.transform(),
        tokens,
        clip.encode_images,
        lambda texts: clip.encode_texts([tokens(text) for text in texts]),
    )
