"""Weights from transformers' CLIPModel: a hub repository or a local folder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptot.backbones.architecture import Untold, infer_architecture
from promptot.backbones.backbone import Backbone
from promptot.backbones.layouts import from_transformers
from promptot.backbones.library_warnings import refuse_warnings
from promptot.backbones.preprocess import INTERPOLATIONS, Preprocess
from promptot.errors import PromptotError


class TransformersTokenizer:
    """A CLIP tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.pad = int(tokenizer.pad_token_id or 0)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return ids


def load_transformers(source: str) -> Backbone:
    """Load a CLIPModel with its tokenizer and preprocessing from a repository or folder.

    No code of a repository is run, and of a pickled file nothing but tensors is read.

    Raises:
        PromptotError: transformers is not installed, nothing can be loaded from `source`, weights
            are missing, transformers warns, the model is not a CLIP or needs code of its own, or
            its images are read in a way that is not known here.
    """
    try:
        import transformers
        from transformers.models.auto.tokenization_auto import get_tokenizer_config
    except ImportError as error:
        raise PromptotError(
            "Loading 'hf:' weights needs transformers.", fix="pip install 'promptot[hf]'"
        ) from error

    # What a library says while it is imported, which these names cause, is not about weights.
    # The processor that works with Pillow has this name in transformers 5, in 4 the plain one.
    processors = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    models, tokenizers = transformers.CLIPModel, transformers.CLIPTokenizerFast
    with refuse_warnings("transformers", f"hf:{source}"):
        try:
            described, _ = transformers.PretrainedConfig.get_config_dict(source)
            if not described:
                raise ValueError("there is no config.json")
            _check_model(described, source)
            images, _ = processors.get_image_processor_dict(source)
            _check_processor(images, source)
            config = transformers.CLIPConfig.from_pretrained(source)
            model, info = models.from_pretrained(
                source,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused by name below
                **_tensors_only(models),
            )
            _refuse_code(get_tokenizer_config(source), source)
            tokenizer = tokenizers.from_pretrained(source)
            processor = processors.from_pretrained(source)
        except PromptotError:
            raise
        except Exception as error:  # network, files, configuration, a pickle that is not tensors
            where = "folder" if Path(source).is_dir() else "repository"
            raise PromptotError(
                f"transformers could not load a CLIP from the {where} '{source}': {error}",
                fix="It needs the configuration, the weights (as safetensors, or as tensors that "
                "torch saved), the tokenizer and the preprocessor as `save_pretrained` writes "
                "them.",
            ) from error
        _check_complete(info, source)
    _check_tokenizer(tokenizer, config.text_config, source)
    preprocess = read_preprocess(processor, config.vision_config.image_size)
    return convert(model, TransformersTokenizer(tokenizer), preprocess, source)


def convert(
    model: Any, tokenizer: TransformersTokenizer, preprocess: Preprocess, source: str
) -> Backbone:
    """A transformers CLIPModel → a backbone."""
    config, weights = model.config, from_transformers(model.state_dict())
    untold = [_untold(tower) for tower in (config.vision_config, config.text_config)]
    architecture = infer_architecture(weights, untold)
    return Backbone.from_weights(f"hf:{source}", weights, architecture, tokenizer, preprocess)


def read_preprocess(processor: Any, image_size: int) -> Preprocess:
    """What a CLIPImageProcessor does, as our `Preprocess`.

    The reference is the processor that works with Pillow, as OpenAI's own code does; the one that
    works with torchvision's tensors resizes with other roundings.

    Args:
        image_size: side of the images that the model takes.

    Raises:
        PromptotError: it does something that is not known here, or gives images of another size.
    """
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor.do_normalize:
        mean, std = _three(processor.image_mean), _three(processor.image_std)
    scale = 255 * float(processor.rescale_factor) if processor.do_rescale else 255.0
    if abs(scale - 1) > 1e-9:  # (255 · factor · x - mean) / std, of pixels x in 0..1
        mean, std = (_three([value / scale for value in values]) for values in (mean, std))
    resize, mode = _resizing(processor)
    crop = _sides(processor.crop_size) if processor.do_center_crop else None
    if crop is not None and (set(crop) != {"height", "width"} or len(set(crop.values())) > 1):
        raise _unreadable(f"cuts images to {_shown(crop)}")
    if crop is None and mode != "squash":
        raise _unreadable("neither cuts images to a square nor resizes them to one")
    resolution = int(resize or 0) if crop is None else int(crop["height"])
    if resolution != image_size:
        raise _unreadable(
            f"gives images of {resolution} pixels, while the model takes {image_size}"
        )
    if getattr(processor, "do_pad", None):
        raise _unreadable("pads images")
    return Preprocess(
        resolution,
        mean,
        std,
        _interpolation(processor.resample) if mode != "none" else "bicubic",
        resize_mode=mode,
        resize=None if resize == resolution else resize,
        crop_rounding="down",
    )


def _resizing(processor: Any) -> tuple[int | None, str]:
    """Side and mode of a processor's resizing."""
    if not processor.do_resize:
        return None, "none"
    size = _sides(processor.size)
    if set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"]), "shortest"
    if set(size) == {"height", "width"} and size["height"] == size["width"]:
        return int(size["height"]), "squash"
    raise _unreadable(f"resizes images to {_shown(size)}")


def _sides(size: Any) -> dict[str, Any]:
    """A size of transformers, whose type differs by version, as what is said in it."""
    values = dict(size) if isinstance(size, Mapping) else dict(vars(size))
    return {key: value for key, value in values.items() if value is not None}


def _shown(size: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in size.items())


def _three(values: Any) -> tuple[float, float, float]:
    """One value for all channels, or three."""
    values = tuple(values) if isinstance(values, list | tuple) else (values,) * 3
    if len(values) != 3:
        raise _unreadable(f"normalises {len(values)} channels")
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _interpolation(resample: Any) -> str:
    known = {int(filter): name for name, filter in INTERPOLATIONS.items()}
    if isinstance(resample, bool) or not isinstance(resample, int) or resample not in known:
        raise _unreadable(f"resamples images with '{resample}'")
    return known[int(resample)]


def _unreadable(what: str) -> PromptotError:
    return PromptotError(
        f"The image processor of this model {what}, which is not supported.",
        fix="Correct its preprocessor_config.json, or use another CLIP.",
    )


def _tensors_only(models: Any) -> dict[str, bool]:
    """What keeps `from_pretrained` from unpickling more than tensors.

    transformers has an argument for it from 4.46 on; 4.45 always reads so, and hands an argument
    that it does not know to the model, which refuses it.
    """
    known = "weights_only" in inspect.signature(models.from_pretrained).parameters
    return {"weights_only": True} if known else {}


PROCESSORS = ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPFeatureExtractor")


def _check_model(config: Mapping[str, Any], source: str) -> None:
    """Refuse by its configuration what is no CLIPModel."""
    if "CLIPModel" not in (config.get("architectures") or ()):
        _refuse_code(config, source)
    kind = config.get("model_type")
    if kind != "clip":
        raise PromptotError(
            f"A transformers model of the type '{kind}' is not supported yet.",
            fix="Use a CLIPModel, such as 'hf:openai/clip-vit-base-patch16'.",
        )


def _check_processor(images: Mapping[str, Any], source: str) -> None:
    """Refuse by its configuration what is no CLIPImageProcessor."""
    _refuse_code(images, source)
    processor = images.get("image_processor_type") or images.get("feature_extractor_type")
    if processor is not None and processor not in PROCESSORS:
        raise PromptotError(
            f"The image processor '{processor}' of '{source}' is not supported.",
            fix="Use a CLIP with a CLIPImageProcessor.",
        )


def _refuse_code(config: Mapping[str, Any], source: str) -> None:
    named = (config.get("auto_map") or {}).values()
    code = sorted({str(one) for value in named for one in _listed(value) if one is not None})
    if code:
        raise PromptotError(
            f"'{source}' needs code of its own ({', '.join(code)}), and no code of a repository "
            "is run.",
            fix="Use a CLIPModel of transformers, such as 'hf:openai/clip-vit-base-patch16'.",
        )


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _check_complete(info: Mapping[str, Any], source: str) -> None:
    """Refuse a model of which the file holds less, or something else."""
    for what, keys in (
        ("are missing and would be random", info["missing_keys"]),
        ("are of another shape", info["mismatched_keys"]),
        ("have no place in a CLIPModel", info["unexpected_keys"]),
    ):
        names = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
        names = [name for name in names if not name.endswith("position_ids")]
        if names:
            more = " ..." if len(names) > 3 else ""
            raise PromptotError(
                f"Weights of '{source}' {what}: {', '.join(names[:3])}{more} ({len(names)}).",
                fix="Use a checkpoint of a whole CLIPModel.",
            )


def _check_tokenizer(tokenizer: Any, text: Any, source: str) -> None:
    """Refuse a tokenizer of another model, or one whose end token is not where the model reads."""
    if len(tokenizer) > text.vocab_size:
        raise PromptotError(
            f"The tokenizer in '{source}' has {len(tokenizer)} tokens and does not belong to the "
            f"model, which knows {text.vocab_size}.",
            fix="Save the model's own tokenizer beside it.",
        )
    # transformers reads at the largest id where the configuration says 2, as old ones wrongly do
    read_at = len(tokenizer) - 1 if text.eos_token_id == 2 else text.eos_token_id
    ends = tokenizer("a")["input_ids"][-1]
    if ends != read_at:
        raise PromptotError(
            f"The model in '{source}' reads a text at the token {read_at}, and its tokenizer ends "
            f"one with {ends}.",
            fix="Save the model's own tokenizer beside it, or correct eos_token_id in the text "
            "configuration.",
        )


def _untold(config: Any) -> Untold:
    if config.hidden_act not in ("quick_gelu", "gelu"):
        raise PromptotError(
            f"The activation '{config.hidden_act}' is not supported yet.",
            fix="Use a CLIP with 'quick_gelu' or 'gelu'.",
        )
    return Untold(config.num_attention_heads, config.hidden_act, config.layer_norm_eps)
