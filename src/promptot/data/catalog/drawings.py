"""The drawings that ship with promptot: one concept, many artists; name = class, style = domain."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from promptot.data.task import Example, ImageTask
from promptot.errors import PromptotError, nearest

DRAWINGS = Path(__file__).parents[2] / "assets" / "drawings"
"""Where the drawings lie: `images.zip` and `index.csv`."""

UNSEEN = "unseen"
"""The group of concepts that were kept out of the bundled model's pretraining."""

_SPLITS = ("train", "validation", "test")
_COLUMNS = {"style", "group", "subgroup", "name", "split", "member"}


@dataclass(frozen=True)
class _Drawing:
    style: str
    group: str
    name: str
    split: str
    member: str


def list_groups(drawings: Path = DRAWINGS) -> list[str]:
    """The groups of classes ("animals", …), each a task of its own."""
    return sorted({drawing.group for drawing in _index(drawings)})


def list_styles(split: str | None = None, drawings: Path = DRAWINGS) -> list[str]:
    """The styles (icon sets) of one split (train, validation, test), or of all."""
    return sorted({drawing.style for drawing in _index(drawings) if split in (None, drawing.split)})


def is_bundled(path: str) -> bool:
    """Whether an image, by its `Example.path`, is one of these drawings, here or where a run began.

    Example:
        >>> is_bundled(load_bundled("food").train[0].path), is_bundled("photos/cat/1.jpg")
        (True, False)
    """
    archive, inside, _ = path.replace("\\", "/").partition("::")
    return bool(inside) and archive.endswith("/".join((*DRAWINGS.parts[-3:], "images.zip")))


def has_own_images(paths: Iterable[str]) -> bool:
    """Whether any of these images, by their `Example.path`, came from outside the package."""
    return any(not is_bundled(path) for path in paths)


def load_bundled(
    group: str, styles: Sequence[str] | None = None, drawings: Path = DRAWINGS
) -> ImageTask:
    """The drawings of one group as a task; splits are by style.

    The classes, in alphabetical order, are the concepts with at least one training and one test
    drawing.

    Args:
        group: one of `list_groups()`.
        styles: keep only these styles; None keeps all.
        drawings: the folder of `images.zip` and `index.csv`.

    Raises:
        PromptotError: the group or a style is unknown, or nothing is left.
    """
    return _load(group, lambda drawing: drawing.group == group, ("train", "test"), styles, drawings)


def load_bundled_others(
    group: str, styles: Sequence[str] | None = None, drawings: Path = DRAWINGS
) -> ImageTask:
    """The drawings of all groups but one: what a model that was tuned on it should still know.

    The classes are the concepts with at least one test drawing; those of the group `unseen` are
    left out, because the bundled model never knew them. Arguments and errors are those of
    `load_bundled`.
    """
    return _load(
        group,
        lambda drawing: drawing.group not in {group, UNSEEN},
        ("test",),
        styles,
        drawings,
        "all but ",
    )


def load_bundled_sample(
    exclude: Iterable[str], images: int, drawings: Path = DRAWINGS
) -> ImageTask:
    """Some test drawings of everything that the bundled model knows, evenly spread.

    Args:
        exclude: class names to leave out, in any case, with their drawings.
        images: how many drawings at most; the class names are those of all, drawn or not.
        drawings: the folder of `images.zip` and `index.csv`.
    """
    left_out = {name.casefold() for name in exclude}
    found = [
        d
        for d in _index(drawings)
        if d.split == "test" and d.group != UNSEEN and d.name.casefold() not in left_out
    ]
    names = sorted({drawing.name for drawing in found})
    labels = {name: label for label, name in enumerate(names)}
    step = max(1, -(-len(found) // images))
    archive = drawings / "images.zip"
    return ImageTask(
        name="other drawings",
        class_names=tuple(names),
        test=tuple(Example(f"{archive}::{d.member}", labels[d.name]) for d in found[::step]),
    )


def load_bundled_domains(
    group: str,
    sources: Sequence[str],
    targets: Sequence[str],
    drawings: Path = DRAWINGS,
) -> tuple[ImageTask, dict[str, ImageTask]]:
    """One group of classes with styles as domains, whatever split a style belongs to otherwise.

    Args:
        group: one of `list_groups()`.
        sources: the styles whose drawings are the training split.
        targets: the styles to test on.
        drawings: the folder of `images.zip` and `index.csv`.

    Returns:
        the task to train on: the classes of `load_bundled(group)` that a source style draws, its
        validation split that of the index; and for each target style a task with the test images,
        over those of the classes that it draws (as published for ImageNet-A and -R), if any.

    Raises:
        PromptotError: the group or a style is unknown, a style is both source and target, or
            nothing is left.
    """
    both = sorted(set(sources) & set(targets))
    if both:
        raise PromptotError(
            f"The style '{both[0]}' is both a source and a target.", fix="Leave it out of one."
        )
    known = load_bundled(group, drawings=drawings)
    _check_styles((*sources, *targets), drawings)
    by_style = {
        style: [d for d in _index(drawings) if (d.group, d.style) == (group, style)]
        for style in (*sources, *targets)
    }
    drawn = {drawing.name for style in sources for drawing in by_style[style]}
    names = tuple(name for name in known.class_names if name in drawn)
    if not names:
        raise PromptotError(
            f"No concept of '{group}' is drawn in the styles {', '.join(sources)}.",
            fix="Take more styles.",
        )
    kept = known.select([known.class_names.index(name) for name in names])

    def examples(*styles: str) -> tuple[Example, ...]:
        return tuple(
            Example(f"{drawings / 'images.zip'}::{drawing.member}", names.index(drawing.name))
            for style in styles
            for drawing in by_style[style]
            if drawing.name in names
        )

    source = replace(kept, train=examples(*sources), test=())
    tasks = {}
    for style in targets:
        test = examples(style)
        present = sorted({example.label for example in test})
        if present:
            task = replace(kept, name=style, train=(), validation=(), test=test)
            tasks[style] = task.select(present)
    return source, tasks


def _check_styles(styles: Sequence[str], folder: Path) -> None:
    for style in styles:
        if style not in list_styles(drawings=folder):
            raise PromptotError(
                f"No style '{style}'.", fix=nearest(style, list_styles(drawings=folder))
            )


def _load(
    group: str,
    wanted: Callable[[_Drawing], bool],
    required: Sequence[str],
    styles: Sequence[str] | None,
    folder: Path,
    prefix: str = "",
) -> ImageTask:
    if group not in list_groups(folder):
        raise PromptotError(
            f"No group of drawings '{group}'.", fix=nearest(group, list_groups(folder))
        )
    _check_styles(styles or (), folder)
    drawings = [d for d in _index(folder) if wanted(d) and (styles is None or d.style in styles)]
    names = set.intersection(*({d.name for d in drawings if d.split == s} for s in required))
    if not names:
        raise PromptotError(
            f"No concept of '{prefix}{group}' is drawn in every needed split in these styles.",
            fix="Take more styles.",
        )
    labels = {name: label for label, name in enumerate(sorted(names))}
    archive = folder / "images.zip"
    splits: dict[str, list[Example]] = {split: [] for split in _SPLITS}
    for drawing in drawings:
        if drawing.name in labels:
            example = Example(f"{archive}::{drawing.member}", labels[drawing.name])
            splits[drawing.split].append(example)
    return ImageTask(
        name=prefix + group,
        class_names=tuple(labels),
        train=tuple(splits["train"]),
        validation=tuple(splits["validation"]),
        test=tuple(splits["test"]),
    )


@lru_cache(maxsize=4)
def _index(folder: Path) -> tuple[_Drawing, ...]:
    """The drawings used by the tasks, sorted by style and member."""
    try:
        with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not _COLUMNS.issubset(reader.fieldnames or ()):
                raise PromptotError(
                    f"'{folder / 'index.csv'}' lacks columns; it needs {sorted(_COLUMNS)}.",
                    fix="Install promptot again.",
                )
            drawings = [
                _Drawing(r["style"], r["group"], r["name"], r["split"], r["member"])
                for r in reader
                if r["split"] in _SPLITS
            ]
    except OSError as error:
        raise PromptotError(
            f"The bundled drawings can't be read from '{folder}': {error.strerror}.",
            fix="Install promptot again.",
        ) from None
    return tuple(sorted(drawings, key=lambda d: (d.style, d.member)))
