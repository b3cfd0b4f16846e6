"""What a survey says: its result, and advice on how many images to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from promptot.backbones.first_choice import real_clip
from promptot.data import Skipped
from promptot.errors import listed
from promptot.evaluation.retention import MOSTLY_WRONG
from promptot.evaluation.scoring import Scores
from promptot.inspection.survey_probe import ProbeSummary

SHOTS = (1, 2, 4, 8, 16)
ENOUGH = 0.9
"""The share of the classes that must have K training images for K to be advised."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ClassSummary:
    """One class: how many images it has, and how the frozen model does on it.

    Attributes:
        zero_shot: share of its test images that the frozen model gets right; None without any.
        mistaken_for: the class that it most often takes the others for.
    """

    name: str
    synonyms: tuple[str, ...]
    train: int
    validation: int
    test: int
    zero_shot: float | None = None
    mistaken_for: str | None = None


@dataclass(frozen=True)
class Duplicates:
    """Images that show the same picture.

    Attributes:
        paths, classes, splits: of each image.
        exact: whether their files are the same, byte for byte.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    exact: bool

    @property
    def leaks(self) -> bool:
        """Whether some are trained on and others tested."""
        return len(set(self.splits)) > 1

    @property
    def contradicts(self) -> bool:
        """Whether they belong to several classes."""
        return len(set(self.classes)) > 1


@dataclass(frozen=True)
class Survey:
    """What `survey` found.

    Attributes:
        held_out: whether the data came without a test split, so that one was held out as `fit`
            does.
        sizes: width and height in pixels of the smallest, the median and the largest image (by its
            shorter side); empty if none could be read.
        small: images whose shorter side is below the model's resolution.
        resolution: that resolution, in pixels.
        skipped: images that are left out, and why.
        duplicates: see `Duplicates`.
        domains: images in each.
        name_warnings: names that a text model can make little of.
        accuracy, interval, tested: of the frozen model on the test images, its 95 % Wilson
            interval, and the number of images; None if none could be tested.
        probe: what a linear probe gets on the same images; None if it can't be fitted or tested.
        own_images: whether any image came from outside the package.
        shots: how many training images per class to use.
        advice: what to know before training, a sentence each.
        notes: what was taken for what where the data do not say it: splits, classes, labels.
    """

    name: str
    template: str
    backbone: str
    classes: tuple[ClassSummary, ...]
    held_out: bool
    sizes: Mapping[str, tuple[int, int]]
    small: int
    resolution: int
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicates, ...]
    domains: Mapping[str, int]
    name_warnings: tuple[str, ...]
    accuracy: float | None
    interval: tuple[float, float] | None
    tested: int
    probe: ProbeSummary | None
    own_images: bool
    shots: int
    advice: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> dict[str, int]:
        """How many images each split has."""
        return {split: sum(getattr(c, split) for c in self.classes) for split in SPLITS}

    def as_json(self) -> dict[str, object]:
        """Everything, as JSON takes it."""
        note = real_clip(self.backbone, self.own_images)
        return {**asdict(self), "images": self.images, "real_clip": note}


def advise(
    classes: Sequence[ClassSummary], scores: Scores | None, probe: ProbeSummary | None = None
) -> tuple[int, list[str]]:
    """How many shots to use, and what else to know before training.

    K is the largest of `SHOTS` that nine classes in ten have training images for; a class with
    fewer gives all that it has.
    """
    counts = [c.train for c in classes]
    fits = [k for k in SHOTS if sum(count >= k for count in counts) >= ENOUGH * len(counts)]
    shots = max(fits, default=1)
    said = []
    empty = [c.name for c in classes if c.train == 0]
    few = [c for c in classes if 0 < c.train < shots]
    if empty:
        said.append(f"{_several(empty)} no image to train on: add some, or remove the class.")
    if few:
        least = min(few, key=lambda c: c.train)
        said.append(
            f"{len(few)} of {len(classes)} classes have fewer than {shots} images to train on "
            f"('{least.name}': {least.train}); they give all that they have."
        )
    if shots < 4:
        said.append("Few images to learn from: four or more of each class help most.")
    if scores is None:
        return shots, [
            *said, "No image is left to test on: how well it works will not be known."
        ]  # fmt: skip
    low, high = scores.teacher_interval
    if high - low > 0.1:
        said.append(
            f"{len(scores.labels)} test images tell an accuracy to within about "
            f"±{50 * (high - low):.0f} points: smaller gains will not show."
        )
    if scores.teacher_accuracy > 0.95:
        said.append("The frozen model is right almost always: there is little left to learn.")
    untested = [c.name for c in classes if c.test == 0]
    if untested:
        said.append(f"{_several(untested)} no image to test on.")
    return shots, [*said, *(_beside_the_probe(scores, probe) if probe else [])]


def _beside_the_probe(scores: Scores, probe: ProbeSummary) -> list[str]:
    """What the linear probe tells of a poor zero-shot accuracy."""
    if probe.interval[1] < MOSTLY_WRONG:
        return [
            "A linear probe is wrong mostly too: this backbone's image features hardly tell these "
            "classes apart. Another --backbone may."
        ]
    if probe.interval[0] <= scores.teacher_interval[1]:
        return []
    points = 100 * (probe.accuracy - scores.teacher_accuracy)
    return [
        f"The image features tell these classes apart better than the names find them: a linear "
        f"probe gets {points:.0f} points more than zero-shot. Look at the names and the template, "
        "or try another --backbone; `fit --recipe linear-probe` uses the features without names."
    ]


def _several(names: Sequence[str]) -> str:
    """ "'a' has", "'a' and 'b' have", "'a', 'b', 'c' and 4 more have"."""
    return f"{listed(names, 3)} {'has' if len(names) == 1 else 'have'}"
