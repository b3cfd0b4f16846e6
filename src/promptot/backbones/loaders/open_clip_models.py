"""Weights from open_clip: pretrained tags, the Hub and local folders."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import Architecture
from promptot.backbones.backbone import Backbone
from promptot.backbones.build import build_text_tower
from promptot.backbones.layouts import SIZES
from promptot.backbones.library_warnings import refuse_warnings
from promptot.backbones.loaders.hub_tokenizers import load_tokenizer
from promptot.backbones.loaders.hugging_face_text import read_hub_config, read_hugging_face_text
from promptot.backbones.loaders.open_clip_sources import find_open_clip, unsupported
from promptot.backbones.loaders.open_clip_towers import read_image, read_text
from promptot.backbones.loaders.parts import ImagePart, TextPart
from promptot.backbones.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from promptot.backbones.tokenizer import Tokenizer
from promptot.backbones.towers.image_extractor import ImageExtractor
from promptot.errors import PromptotError
from promptot.files.weights_file import read_state_dict


def load_open_clip(spec: str) -> Backbone:
    """Load `<arch>/<tag>`, `hf-hub:<owner>/<name>` or `local-dir:<dir>`.

    The first two are downloaded or taken from the cache, as open_clip does it. Activation and
    preprocessing are those of the weights, see `promptot.backbones.loaders.open_clip_sources`.

    Raises:
        PromptotError: unknown architecture or tag, weights or a tokenizer that can't be had or
            would need code to be run, a warning of open_clip, or a kind of model that can't be
            computed here.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    name = f"open_clip:{spec}"
    with refuse_warnings("open_clip", name):
        try:
            source = find_open_clip(spec)
            tokenizer = load_tokenizer(source.config["text_cfg"], source.folder)
            outside = read_outside_text(source.config)
            model = build_model(source.config)
            state = load_weights(model, read_state_dict(source.weights()))
        except PromptotError:
            raise
        except Exception as error:  # open_clip raises many kinds: network, files, configuration
            reason = " ".join(str(error).split()).rstrip(".")
            reason = reason if len(reason) <= 400 else f"{reason[:400]} …"
            raise PromptotError(
                f"open_clip could not load '{spec}': {reason}.",
                fix="Check the name, the network, or that the folder holds open_clip_config.json "
                "and the weights.",
            ) from error
        preprocess = merge_preprocess_dict(PreprocessCfg(), source.preprocess)
        open_clip.set_model_preprocess_cfg(model, preprocess)
        text = None
        if outside is not None:
            text = read_hugging_face_text(
                state, outside, source.config["text_cfg"], source.config["embed_dim"], tokenizer
            )
        return convert(model, tokenizer, name, text)


def read_outside_text(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config.json of a text encoder of transformers; None where open_clip has its own."""
    source = config["text_cfg"].get("hf_model_name")
    return None if not source else read_hub_config(str(source))


def build_model(config: Mapping[str, Any]) -> Any:
    """open_clip's CLIP of a configuration, its parameters without memory until weights come.

    In place of a text encoder of transformers it has a small one: that is read from the weights.
    """
    import open_clip
    from open_clip.coca_model import CoCa

    arguments = deepcopy(dict(config))
    custom = arguments.pop("custom_text", False)
    if arguments["text_cfg"].get("hf_model_name"):
        arguments["text_cfg"] = {"vocab_size": 8, "width": 64, "heads": 1, "layers": 1}
        custom = True
    arguments["vision_cfg"] = _without_chance(arguments["vision_cfg"])
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    if "multimodal_cfg" in arguments:
        kind = CoCa
    with torch.device("meta"):
        return kind(**arguments).eval()


def _without_chance(vision: Mapping[str, Any]) -> dict[str, Any]:
    """Without what only happens in training, and without weights of another model."""
    changed = dict(vision) | {"patch_dropout": 0.0}
    if "timm_model_name" in vision:
        changed |= {"timm_model_pretrained": False, "timm_drop_path": None, "timm_drop": 0.0}
    return changed


def load_weights(model: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give an open_clip model its weights, with the conversions of open_clip's own loader.

    Returns:
        weights of a text encoder of transformers, which the model has no place for.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import (
        convert_to_custom_text_state_dict,
        resize_pos_embed,
        resize_text_pos_embed,
    )

    # In fp32, whatever the file holds: a network that is used as it is computes in it too.
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in weights.items()
        if key not in SIZES
    }
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for scalar in ("logit_scale", "logit_bias"):
        own = getattr(model, scalar, None)
        if scalar in state and own is not None:
            state[scalar] = state[scalar].reshape(own.shape)
        elif scalar in state:  # some were saved with one that their architecture has not
            del state[scalar]
    if "logit_bias" not in state and getattr(model, "logit_bias", None) is not None:
        state["logit_bias"] = torch.zeros_like(model.logit_bias, device="cpu")
    outside: dict[str, Tensor] = {}
    if any(key.startswith("text.transformer.") and ".resblocks." not in key for key in state):
        outside = {k.removeprefix("text."): state.pop(k) for k in [*state] if k.startswith("text.")}
        state |= {f"text.{key}": value for key, value in model.text.state_dict().items()}
    _drop_decoder(model, state)
    resize_pos_embed(state, model)
    if not outside:
        resize_text_pos_embed(state, model)
    model.load_state_dict(state, strict=True, assign=True)
    return outside


def _drop_decoder(model: Any, state: dict[str, Tensor]) -> None:
    """Leave out CoCa's decoder, which writes captions: no feature depends on it."""
    if hasattr(model, "text_decoder"):
        del model.text_decoder
        for key in [key for key in state if key.startswith("text_decoder.")]:
            del state[key]


def convert(model: Any, tokenizer: Tokenizer, name: str, text: TextPart | None = None) -> Backbone:
    """An open_clip model (its weights are shared, not copied) → a backbone.

    Args:
        text: its text tower, where it is none of open_clip's.

    Raises:
        PromptotError: a kind of model that can't be computed here.
    """
    from open_clip import get_model_preprocess_cfg

    visual = model.visual
    size = visual.image_size  # of a ResNet one number
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise unsupported("images that are not square")
    image = read_image(visual)
    if text is None:
        text = read_text(getattr(model, "text", model), tokenizer)
    weights = {f"text_tower.{key}": value for key, value in text.weights.items()}
    scale = model.logit_scale.detach().float().exp().reshape(())
    bias = None if model.logit_bias is None else model.logit_bias.detach().float().reshape(())
    preprocess = read_preprocess(get_model_preprocess_cfg(model), height)
    if image is None:
        embed_dim = _features(visual)
        tower = build_text_tower(text.shape, embed_dim, weights)
        extractor = ImageExtractor(_in_memory(visual), embed_dim)
        return Backbone(name, extractor, tower, scale, tokenizer, preprocess, bias)
    embed_dim = _width_of(image)
    weights |= {f"image_tower.{key}": value for key, value in image.weights.items()}
    if image.stem is not None:
        weights |= {f"image_tower.stem.{k}": v for k, v in image.stem.state_dict().items()}
    weights |= (
        {"logit_scale": scale} if bias is None else {"logit_scale": scale, "logit_bias": bias}
    )
    return Backbone.from_weights(
        name,
        weights,
        Architecture(embed_dim, image.shape, text.shape),
        tokenizer,
        preprocess,
        image.stem,
    )


def _width_of(image: ImagePart) -> int:
    """Size of the features."""
    if "proj" in image.weights:
        return image.weights["proj"].shape[1]
    pool = image.shape.attention_pool
    return image.shape.transformer.width if pool is None else pool.output


def _features(visual: Any) -> int:
    """Size of the features of a network that is used as it is."""
    known = getattr(visual, "output_dim", None)
    if known is not None:
        return int(known)
    for layer in reversed([*visual.modules()]):
        if isinstance(layer, nn.Linear):
            return layer.out_features
    return int(visual.trunk.num_features)


def _in_memory(network: nn.Module) -> nn.Module:
    """The network; what it works out by itself must not have been left without memory."""
    lost = [name for name, buffer in network.named_buffers() if buffer.is_meta]
    weights_too = any(parameter.is_meta for parameter in network.parameters())
    if lost and not weights_too:  # (with all on "meta" it is only looked at)
        raise unsupported(f"an image tower with the buffer {lost[0]}")
    return network


def read_preprocess(config: Mapping[str, Any], size: int) -> Preprocess:
    """open_clip's description of its preprocessing as our `Preprocess`.

    Args:
        config: "mean", "std", "interpolation", "resize_mode" and "fill_color"; open_clip's own
            defaults stand for what is absent. Its size is not read: open_clip takes the tower's.
        size: side of the image tower's input.
    """
    known = {key: value for key, value in config.items() if value is not None}
    interpolation = known.get("interpolation", "bicubic")
    fill = known.get("fill_color", 0)
    if interpolation not in ("bicubic", "bilinear", "random") or not isinstance(fill, int):
        raise PromptotError(
            f"open_clip knows no interpolation '{interpolation}' with the fill '{fill}'.",
            fix="Correct the preprocess_cfg of its configuration.",
        )
    return Preprocess(
        size,
        _three(known.get("mean", CLIP_MEAN)),
        _three(known.get("std", CLIP_STD)),
        "bilinear" if interpolation == "bilinear" else "bicubic",
        resize_mode=known.get("resize_mode", "shortest"),
        fill=fill,
    )


def _three(values: Any) -> Any:
    """One value for all channels, or three."""
    return tuple(values) if isinstance(values, list | tuple) else (values,) * 3
