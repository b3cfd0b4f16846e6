"""Image processors of transformers as our `Preprocess`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptot.backbones.preprocess import INTERPOLATIONS, Preprocess
from promptot.errors import PromptotError


def processor_class(kind: str) -> Any:
    """The class of transformers for a kind of image processor, such as "CLIPImageProcessor".

    The reference is the processor that works with Pillow, as the models' makers do; the one that
    works with torchvision's tensors resizes with other roundings. In transformers 5 the former has
    a name of its own, in 4 the plain one.
    """
    import transformers

    found = getattr(transformers, f"{kind}Pil", None)
    return getattr(transformers, kind) if found is None else found


def check_processor(config: Mapping[str, Any], kind: str, source: str) -> None:
    """Refuse by its configuration an image processor of another kind.

    Raises:
        PromptotError: it is another one.
    """
    named = config.get("image_processor_type") or config.get("feature_extractor_type")
    known = (kind, f"{kind}Fast", f"{kind}Pil", kind.replace("ImageProcessor", "FeatureExtractor"))
    if named is not None and named not in known:
        raise PromptotError(
            f"The image processor '{named}' of '{source}' is not supported.",
            fix=f"Use a model with a {kind}.",
        )


def read_preprocess(processor: Any, image_size: int) -> Preprocess:
    """What a CLIPImageProcessor or a SiglipImageProcessor does, as our `Preprocess`.

    Args:
        processor: one that works with Pillow, see `processor_class`.
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
    cuts = getattr(processor, "do_center_crop", None)  # SigLIP's does not know of it
    crop = _sides(processor.crop_size) if cuts else None
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
