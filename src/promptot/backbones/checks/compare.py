"""Whether a backbone computes what its own library computes from the same weights.

Both sides read the same built-in pictures and sentences; what they make of them is compared step by
step, so that the first step that differs tells what is wrong.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.backbones.by_name import load_backbone
from promptot.backbones.checks.check_inputs import SENTENCES, pictures
from promptot.backbones.checks.library_side import library_side
from promptot.backbones.checks.our_side import our_side
from promptot.backbones.checks.side import Side
from promptot.data.images.read_image import load_image
from promptot.data.task import Progress, no_progress
from promptot.errors import PromptotError

PIXELS = 1e-4
"""Of normalised pixels; one of 256 grey levels is 0.015 under CLIP's deviations."""
FEATURES = 5e-5
"""Of unit vectors, by the norm of the difference. Rounding in fp32 makes 1e-6 in a ViT-B/16 and a
ViT-L/14; in the bundled model of 0.2.0 the other GELU made 5e-2, and half a grey level in every
pixel 1e-2."""
COSINES = 1e-4
SCALE = 1e-5

DIAGRAM_TEXTS = ("a diagram", "a dog", "a cat")
DIAGRAM_PROBABILITIES = (0.9927937, 0.00421068, 0.00299572)
"""For the picture CLIP.png of github.com/openai/CLIP, from its README; computed in fp16."""
DIAGRAM = 2e-3


@dataclass(frozen=True)
class Setting:
    """Something beside the weights that changes the function, as each side has it."""

    what: str
    ours: str
    library: str

    @property
    def equal(self) -> bool:
        return self.ours == self.library


@dataclass(frozen=True)
class Comparison:
    """One step that both sides computed.

    Attributes:
        what: the step.
        on: what it was computed on.
        measure: how the difference is measured.
        bound: largest difference that counts as equal.
        measured: the difference; None if the step can't be compared, which counts as different.
    """

    what: str
    on: str
    measure: str
    bound: float
    measured: float | None

    @property
    def equal(self) -> bool:
        return self.measured is not None and self.measured <= self.bound


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        name: of the backbone.
        ours, library: what was compared with what.
        settings, comparisons: in the order of the computation.
        seconds: it took.
    """

    name: str
    ours: str
    library: str
    settings: tuple[Setting, ...]
    comparisons: tuple[Comparison, ...]
    seconds: float

    @property
    def differences(self) -> list[str]:
        """What differs, in words; empty if nothing does."""
        both: tuple[Setting | Comparison, ...] = (*self.settings, *self.comparisons)
        return [item.what for item in both if not item.equal]

    @property
    def equal(self) -> bool:
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        return {
            "backbone": self.name,
            "ours": self.ours,
            "library": self.library,
            "equal": self.equal,
            "differences": self.differences,
            "settings": [asdict(item) | {"equal": item.equal} for item in self.settings],
            "comparisons": [
                asdict(item) | {"measured": _finite(item.measured), "equal": item.equal}
                for item in self.comparisons
            ],
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class _Outputs:
    """What one side makes of the inputs."""

    pixels: Tensor  # [B, 3, R, R]
    tokens: list[list[int]]
    images: Tensor | None  # [B, D], of its own pixels; None if they don't fit its tower
    texts: Tensor  # [S, D]


def check_backbone(
    name: str,
    diagram: Any = None,
    *,
    load: Callable[[str], Backbone] = load_backbone,
    library_of: Callable[[str], Side] = library_side,
    read: Callable[..., Image.Image] = load_image,
    progress: Progress = no_progress,
) -> CheckReport:
    """Compare a backbone with its own library's model, in fp32 on the CPU.

    Only one of the two is in memory at a time.

    Args:
        name: as for `load_backbone`.
        diagram: the picture CLIP.png of OpenAI's repository (an `ImageLike`), to compare with
            the probabilities in its README; for OpenAI's ViT-B/32 alone.
        load: loads our side.
        library_of: loads the library's.
        read: opens the pictures for our side.
        progress: called with (what, done, total).

    Raises:
        PromptotError: one of the sides can't be loaded, or the diagram is for another model.
    """
    began = time.perf_counter()
    progress("backbone", 0, 2)
    backbone = load(name)
    if diagram is not None:
        _check_diagram_model(backbone)
    comparisons: list[Comparison] = []
    with torch.no_grad():
        side = our_side(backbone)
        settings, logits, who = side.settings, (side.scale, side.bias), side.name
        context = backbone.text_tower.context_length
        sentences = [text for text in SENTENCES if len(side.tokens(text)) <= context]
        ours = _compute(
            side,
            [side.pixels(read(picture.data, picture.what)) for picture in pictures()],
            sentences,
        )
        seen = None if diagram is None else _diagram_probabilities(side, read(diagram))
        del side, backbone
        progress("backbone", 1, 2)
        library = library_of(name)
        theirs = _compute_library(name, library, sentences)
        comparisons += _compare(ours, theirs, _encode(library, ours.pixels), sentences)
        comparisons += _compare_scores(ours, theirs, logits, (library.scale, library.bias))
    if seen is not None:
        comparisons.append(compare_diagram(seen))
    progress("backbone", 2, 2)
    return CheckReport(
        name,
        who,
        library.name,
        tuple(
            Setting(what, value, library.settings[what])
            for what, value in settings.items()
            if what in library.settings  # what one of them can't tell is not compared
        ),
        tuple(comparisons),
        time.perf_counter() - began,
    )


def compare_diagram(probabilities: tuple[float, ...]) -> Comparison:
    """Probabilities of `DIAGRAM_TEXTS` beside those in OpenAI's README.

    Example:
        >>> compare_diagram((0.9925, 0.0045, 0.0030)).equal
        True
        >>> compare_diagram((0.0, 0.5, 0.5)).equal
        False
    """
    pairs = zip(probabilities, DIAGRAM_PROBABILITIES, strict=True)
    return Comparison(
        "OpenAI's diagram",
        f"{', '.join(DIAGRAM_TEXTS)}: {', '.join(f'{p:.4f}' for p in probabilities)}",
        "largest difference of probabilities",
        DIAGRAM,
        max(abs(ours - published) for ours, published in pairs),
    )


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None


def _compute(side: Side, pixels: list[Tensor], sentences: list[str]) -> _Outputs:
    stacked = torch.stack(pixels)
    return _Outputs(
        stacked,
        [side.tokens(sentence) for sentence in sentences],
        _encode(side, stacked),
        side.encode_texts(sentences),
    )


def _compute_library(name: str, library: Side, sentences: list[str]) -> _Outputs:
    try:
        pixels = [library.pixels(picture.upright) for picture in pictures()]
        return _compute(library, pixels, sentences)
    except (RuntimeError, ValueError) as error:  # such as pictures that stay of several sizes
        reason = " ".join(str(error).split())[:300]
        raise PromptotError(
            f"{library.name} can't compute the built-in inputs with '{name}': {reason}.",
            fix="Check its preprocessing and tokenizer.",
        ) from error


def _encode(side: Side, pixels: Tensor) -> Tensor | None:
    """Features of pictures; None if they don't fit the image tower."""
    try:
        return side.encode_images(pixels)
    except (RuntimeError, ValueError, AssertionError):
        return None


def _compare(
    ours: _Outputs, theirs: _Outputs, shared: Tensor | None, sentences: list[str]
) -> list[Comparison]:
    images, texts = f"{len(ours.pixels)} pictures", f"{len(sentences)} sentences"
    pairs = zip(sentences, ours.tokens, theirs.tokens, strict=True)
    unlike = [text for text, a, b in pairs if a != b]
    seen = _naming(images, _unlike_pictures(ours.pixels, theirs.pixels))
    pixels = _largest(ours.pixels, theirs.pixels)
    alike, own = f"{images}, pixels alike", f"{images}, each with its own pixels"
    features = {
        ("image features", alike): _relative(ours.images, shared),
        ("text features", texts): _relative(ours.texts, theirs.texts),
        ("image features from files", own): _relative(ours.images, theirs.images),
    }
    differ = float(len(unlike))
    return [
        Comparison("pixels", seen, "largest difference", PIXELS, pixels),
        Comparison("token ids", _naming(texts, unlike), "sentences that differ", 0, differ),
        *(
            Comparison(what, on, "largest relative difference", FEATURES, measured)
            for (what, on), measured in features.items()
        ),
    ]


def _unlike_pictures(a: Tensor, b: Tensor) -> list[str]:
    """Which pictures the two sides read differently."""
    if a.shape != b.shape:
        return []
    far = ((a - b).abs().amax(dim=(1, 2, 3)) > PIXELS).tolist()
    return [picture.what for picture, differs in zip(pictures(), far, strict=True) if differs]


def _naming(what: str, unlike: list[str]) -> str:
    """What was compared, and which of it differs unless all does."""
    all_of_it = what.startswith(f"{len(unlike)} ")
    return f"{what}; different: {'; '.join(unlike)}" if unlike and not all_of_it else what


def _compare_scores(
    ours: _Outputs, theirs: _Outputs, own: tuple[float, float | None],
    library: tuple[float, float | None],
) -> list[Comparison]:  # fmt: skip
    """Cosines and what logits make of them, s · cosine + b; `own` and `library` are (s, b)."""
    pairs = f"{len(ours.pixels)} × {len(ours.tokens)} pairs"
    (scale, bias), (library_scale, library_bias) = own, library
    a, b = _cosines(ours), _cosines(theirs)
    far = abs(scale - library_scale) / abs(library_scale)
    found = [
        Comparison("cosine similarities", pairs, "largest difference", COSINES, _largest(a, b)),
        Comparison(
            "logit scale", f"{scale:.4g}, {library_scale:.4g}", "relative difference", SCALE, far
        ),
    ]
    if bias is not None or library_bias is not None:
        both = bias is not None and library_bias is not None
        values = ", ".join("none" if b is None else f"{b:.4g}" for b in (bias, library_bias))
        apart = abs((bias or 0.0) - (library_bias or 0.0)) / max(abs(library_bias or 0.0), 1.0)
        found.append(
            Comparison("logit bias", values, "relative difference", SCALE, apart if both else None)
        )
    if a is not None:
        a = (scale * a + (bias or 0.0)) / library_scale
    if b is not None:
        b = b + (library_bias or 0.0) / library_scale
    logits = _largest(a, b)
    return [
        *found,
        Comparison("logits", pairs, "largest difference / scale", COSINES + SCALE, logits),
    ]


def _cosines(side: _Outputs) -> Tensor | None:
    """Cosine similarities [B, S]."""
    return None if side.images is None else side.images @ side.texts.T


def _largest(a: Tensor | None, b: Tensor | None) -> float | None:
    """Largest difference of two tensors; None if one is missing or of another shape."""
    if a is None or b is None or a.shape != b.shape:
        return None
    return float((a - b).abs().max())


def _relative(a: Tensor | None, b: Tensor | None) -> float | None:
    """Largest norm of the difference of two rows, over the norm of the second's; or None."""
    if a is None or b is None or a.shape != b.shape:
        return None
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1)).max())


def _check_diagram_model(backbone: Backbone) -> None:
    image = backbone.image_tower
    if (image.width, image.layers, image.patches, backbone.embed_dim) != (768, 12, 49, 512):
        raise PromptotError(
            f"The probabilities of OpenAI's diagram are those of its ViT-B/32, and "
            f"'{backbone.name}' is of another shape.",
            fix="Leave --diagram out, or check 'open_clip:ViT-B-32/openai'.",
        )


def _diagram_probabilities(side: Side, diagram: Image.Image) -> tuple[float, ...]:
    image = side.encode_images(side.pixels(diagram)[None])
    logits = side.scale * image @ side.encode_texts(list(DIAGRAM_TEXTS)).T
    return tuple(logits.softmax(dim=-1)[0].tolist())
