"""A run as a file or folder for another runtime, compared with the original before it is left."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptot.adaptation.student import Student
from promptot.backbones.library_versions import versions
from promptot.backbones.preprocess import Preprocess
from promptot.data.catalog.drawings import list_groups, load_bundled
from promptot.data.images.read_image import UnreadableImage, load_image
from promptot.errors import PromptotError, nearest
from promptot.exporting import graphs, plain
from promptot.exporting import library_formats as libraries
from promptot.exporting.formats import ABOUT, Content, Read, describe
from promptot.files.owned import head_of, kind_of, replace_folder, temporary_name, unknown_in
from promptot.files.reading import Unreadable, parse_json
from promptot.files.writing import check_replaceable, output_folder, system_errors, write_json
from promptot.objectives.fit import NONE_BELOW, Fit, probabilities

TOLERANCE = 1e-4
LARGEST_ABOUT = 2**28  # bytes
EARLIER_FILES = (
    graphs.ONNX_FILE, graphs.TORCHSCRIPT_FILE, "open_clip_config.json",
    "open_clip_model.safetensors", "prompts.safetensors", libraries.OPEN_CLIP_MODULE,
    "config.json", "model.safetensors", "modeling_prompted_clip.py", "preprocessor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "processor_config.json",
    "chat_template.jinja", "modules.json", plain.OPENAI_FILE,
)  # fmt: skip
"""What exports of any version may consist of; no other name is removed, whatever one lists."""
IMAGES = 12
PROBABILITIES: dict[Fit, dict[str, Any]] = {
    "softmax": {"probabilities": "softmax over the last axis"},
    "sigmoid": {"probabilities": "sigmoid of each logit", "none_of_these_below": NONE_BELOW},
}
"""How logits become probabilities, in `classifier.json`; what lies below in all is none of them."""


@dataclass(frozen=True)
class Format:
    """How a format is written and read back; `summary` is for a list of formats."""

    write: Callable[[Path, Content], None]
    read: Callable[[Path], Read]
    summary: str


FORMATS: dict[str, Format] = {
    "onnx": Format(graphs.write_onnx, graphs.read_onnx, "one graph for onnxruntime"),
    "torchscript": Format(
        graphs.write_torchscript, graphs.read_torchscript, "one graph for torch.jit.load, C++ too"
    ),
    "open_clip": Format(
        libraries.write_open_clip, libraries.read_open_clip, "open_clip's CLIP with the prompts"
    ),
    "transformers": Format(
        libraries.write_transformers,
        libraries.read_transformers,
        "for AutoModelForImageClassification and pipelines",
    ),
}
PLAIN: dict[str, Format] = {
    "open_clip": Format(plain.write_open_clip, plain.read_open_clip, "open_clip's CLIP"),
    "transformers": Format(plain.write_transformers, plain.read_transformers, "a CLIPModel"),
    "openai": Format(plain.write_openai, plain.read_openai, "OpenAI's state dict"),
}
"""Of a run that merges into the weights, instead of those above or beside them."""


@dataclass(frozen=True)
class Difference:
    """The largest differences between an export and the original on real images.

    Attributes:
        images: how many were compared, one by one and all together.
        probabilities: of any class of any image.
        cosines: of logits, as a share of the logit scale.
        text: of any element of a text feature; None where the export has no text tower.
    """

    images: int
    probabilities: float
    cosines: float
    text: float | None

    @property
    def largest(self) -> float:
        values = [self.probabilities, self.cosines, self.text or 0.0]
        return max(value if value == value else float("inf") for value in values)


@dataclass(frozen=True)
class Export:
    """What was written: the folder, its files, and how far it is from the original."""

    folder: Path
    format: str
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    difference: Difference

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def export_model(
    model: Student,
    out: str | os.PathLike[str],
    format: str = "onnx",
    *,
    name: str | None = None,
    images: Sequence[str] = (),
    overwrite: bool = False,
) -> Export:
    """Write a model as a classifier of its class names for another runtime; see `promptot.export`.

    Args:
        model: over the names to classify among.
        out: the folder to write.
        format: one of `FORMATS`, or of `PLAIN` for a model that merges.
        name: of the backbone, for the description; by default its own.
        images: paths of images to compare both on, beside drawings that ship with promptot.
        overwrite: replace an earlier export in `out`.

    Raises:
        PromptotError: as `promptot.export`.
    """
    target = check_export(out, format, overwrite)
    original = model
    if plain.merges(model):
        model, kind = plain.merged(model), PLAIN.get(format) or FORMATS[format]
    elif format in FORMATS:
        kind = FORMATS[format]
    else:
        raise PromptotError(
            "What this run learned does not merge into the weights, and OpenAI's code has no place "
            "for it.",
            fix="Export it with --format open_clip, or train a recipe that merges (clip-lora).",
        )
    content = describe(model)
    if kind is PLAIN.get(format) and content.template is None:
        raise PromptotError(
            "The text features of this run are means before they are normalised, which readers of "
            "a plain CLIP do not know.",
            fix="Export it with --format onnx or torchscript.",
        )
    about = _about(format, content, name or model.backbone.name)

    staging = Path(os.path.realpath(target)).with_name(temporary_name())
    try:
        with system_errors(target):
            staging.mkdir(parents=True)
            write_json(staging / ABOUT, about)
            kind.write(staging, content)
        if kind is PLAIN.get(format):  # it has the text tower, and no list of synonyms
            original = original.for_classes(
                model.class_names, synonyms=dict.fromkeys(model.class_names, ())
            )
        difference = compare(kind.read(staging), original, real_images(model, images))
        if not difference.largest <= TOLERANCE:
            raise PromptotError(
                f"The {format} export differs from the original by {difference.largest:.1e} "
                f"(allowed: {TOLERANCE:.0e}), so it was not kept.",
                fix="Update the export's libraries, or export to another format.",
            )
        files = tuple(sorted(p.name for p in staging.iterdir()))
        about |= {"differences": asdict(difference), "files": list(files)}
        with system_errors(target):
            write_json(staging / ABOUT, about)
            _check_free(target, overwrite)  # as it is by now
            replace_folder(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Export(target, format, model.class_names, files, difference)


@torch.no_grad()
def compare(read: Read, model: Student, images: Tensor) -> Difference:
    """How far an export is from the model that it was made of.

    Args:
        read: the export, read back.
        model: the original.
        images: preprocessed, [B, 3, R, R].
    """
    device = model.backbone.device
    expected = model.logits(model.encode_images(images.to(device))).cpu()
    singly = torch.cat([read.logits(image) for image in images.split(1)])
    together = read.logits(images)
    scale = max(1.0, float(model.backbone.logit_scale)) if model.reads_text else 1.0
    sure = max(
        _largest(probabilities(found, model.fit), probabilities(expected, model.fit))
        for found in (singly, together)
    )
    cosines = max(_largest(found / scale, expected / scale) for found in (singly, together))
    text = None
    if read.text is not None:
        single = model.for_classes(model.class_names, synonyms=dict.fromkeys(model.class_names, ()))
        text = _largest(read.text(model.class_names), single.encode_classes().cpu())
    return Difference(len(images), sure, cosines, text)


def check_export(
    out: str | os.PathLike[str], format: str, overwrite: bool, *inputs: str | os.PathLike[str]
) -> Path:
    """The folder to export into.

    Args:
        inputs: files or folders that are read, which the export must not replace.

    Raises:
        PromptotError: the format is unknown, or the folder holds something.
    """
    if format not in (known := FORMATS | PLAIN):
        raise PromptotError(f"Unknown export format '{format}'.", fix=nearest(format, known))
    target = output_folder(out)
    check_replaceable(target, *inputs)
    _check_free(target, overwrite)
    return target


def real_images(model: Student, paths: Sequence[str], count: int = IMAGES) -> Tensor:
    """Images as the backbone wants them, [count, 3, R, R].

    Half of them are those of `paths`, as far as they can be read; the others are bundled drawings,
    one of each group in turn.
    """
    preprocess = model.backbone.preprocess.test()
    groups = [load_bundled(name).test for name in list_groups()]
    drawings = [group[turn].path for turn in range(count) for group in groups if turn < len(group)]
    found: list[Tensor] = []
    for path in [*paths[: count // 2], *drawings]:
        with contextlib.suppress(UnreadableImage):
            found.append(preprocess(load_image(path)))
        if len(found) == count:
            break
    return torch.stack(found)


def _largest(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max())


def _about(format: str, content: Content, name: str) -> dict[str, Any]:
    """`classifier.json`: everything that a program needs to feed the model and read its answer."""
    model = content.model
    identity = model.backbone.identity()
    return {
        "format": format,
        "class_names": list(model.class_names),
        "template": content.template,
        "prompted_blocks": {"vision": len(content.vision), "text": len(content.text)},
        "input": _input(model.backbone.preprocess),
        "output": {
            "name": "logits",
            "shape": ["batch", len(model.class_names)],
            **PROBABILITIES[model.fit],
        },
        "backbone": {
            "name": name,
            "weight_hash": identity.weights,
            "function": dict(identity.function),
        },
        "versions": versions(),
    }


def _input(preprocess: Preprocess) -> dict[str, Any]:
    """How an RGB image becomes the model's input, in `classifier.json`."""
    side = preprocess.resolution
    return {
        "name": "images",
        "shape": ["batch", 3, side, side],
        "dtype": "float32",
        "channels": "RGB",
        "resize": _resizing(preprocess),
        "centre_crop": [side, side],
        "crop_rounding": preprocess.crop_rounding,
        "fill": preprocess.fill,
        "scale": 1 / 255,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }


def _resizing(preprocess: Preprocess) -> dict[str, Any] | None:
    """How images are resized before the centre is cut out (or filled up) in `classifier.json`."""
    side = preprocess.resized_to
    if preprocess.resize_mode == "none":
        return None
    modes: dict[str, dict[str, Any]] = {
        "shortest": {"short_side": side},
        "longest": {"long_side": side},
        "squash": {"size": [side, side]},
    }
    return {
        **modes[preprocess.resize_mode],
        "interpolation": preprocess.interpolation,
        "antialias": True,
    }


def _check_free(target: Path, overwrite: bool) -> None:
    """Refuse a folder that holds anything but an export, or an export that is to stay."""
    if not target.is_dir() or not any(target.iterdir()):
        return
    ours = _files_of(target / ABOUT)
    if ours is None:
        raise PromptotError(
            f"'{target}' holds other files than an export.", fix="Choose another folder."
        )
    unknown = unknown_in(target, ours, _is_bytecode)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise PromptotError(
            f"Beside an export, '{target}' holds {', '.join(map(repr, unknown[:3]))}{more}.",
            fix="Move that away, or choose another folder.",
        )
    if not overwrite:
        raise PromptotError(
            f"'{target}' already holds an export.",
            fix="Replace it (--overwrite), or choose another folder.",
        )


def _files_of(about: Path) -> Collection[str] | None:
    """The files of an export that its description lists; None if it is not one of ours."""
    try:
        found = parse_json(head_of(about, LARGEST_ABOUT))
        if not {"class_names", "input", "output", "backbone", "versions"} <= found.keys():
            return None
        listed = found.get("files", EARLIER_FILES)
        if not all(isinstance(name, str) for name in listed):
            return None
        return {ABOUT, *set(listed).intersection(EARLIER_FILES)}
    except (Unreadable, AttributeError, TypeError):
        return None


def _is_bytecode(path: Path) -> bool:
    """Whether it is what Python leaves beside a module that was imported."""
    if path.name != "__pycache__" or kind_of(path) != "folder":
        return False
    modules = {module.stem for module in path.parent.glob("*.py")}
    return not unknown_in(
        path,
        (),
        lambda inner: (
            kind_of(inner) == "file"
            and inner.suffix == ".pyc"
            and inner.name.split(".")[0] in modules
        ),
    )
