"""The drawings that ship with promptot: one concept, many artists; name = class, style = domain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from promptot.data.task import SPLITS, Example, ImageTask
from promptot.errors import PromptotError, nearest
from promptot.files.reading import read_csv, read_text, reading_errors

DRAWINGS = Path(__file__).parents[2] / "assets" / "drawings"
"""Where the drawings lie: `images.zip` and `index.csv`."""

UNSEEN = "unseen"
"""The group of concepts that were kept out of the bundled model's pretraining."""

_INSTALL = "Install promptot again."


class _Drawing(NamedTuple):
    style: str
    group: str
    subgroup: str
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
    _check_known(group, styles or (), drawings)
    own = [d for d in _index(drawings) if d.group == group]
    return _task(group, own, ("train", "test"), styles, drawings)


def load_bundled_others(
    group: str, styles: Sequence[str] | None = None, drawings: Path = DRAWINGS
) -> ImageTask:
    """The drawings of all groups but one: what a model that was tuned on it should still know.

    The classes are the concepts with at least one test drawing; those of the group `unseen` are
    left out, because the bundled model never saw them drawn. Arguments and errors are those of
    `load_bundled`.
    """
    _check_known(group, styles or (), drawings)
    others = [d for d in _index(drawings) if d.group not in {group, UNSEEN}]
    return _task(f"all but {group}", others, ("test",), styles, drawings)


def load_bundled_sample(
    exclude: Iterable[str], images: int, drawings: Path = DRAWINGS
) -> ImageTask:
    """Some test drawings of all that the bundled model has seen drawn, evenly spread.

    Args:
        exclude: class names to leave out, in any case, with their drawings.
        images: how many drawings at most; the class names are those of all, drawn or not.
        drawings: the folder of `images.zip` and `index.csv`.
    """
    left_out = {name.casefold() for name in exclude}
    tested = [d for d in _index(drawings) if d.split == "test" and d.group != UNSEEN]
    others = [drawing for drawing in tested if drawing.name.casefold() not in left_out]
    step = max(1, -(-len(others) // images))
    names = tuple(sorted({drawing.name for drawing in others}))
    test = _examples(others[::step], names, drawings)
    return ImageTask(name="other drawings", class_names=names, test=test)


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
    _check_known(group, (*sources, *targets), drawings)
    own = [d for style in sources for d in _index(drawings) if (d.group, d.style) == (group, style)]
    drawn = {drawing.name for drawing in own}
    names = tuple(name for name in known.class_names if name in drawn)
    if not names:
        raise PromptotError(
            f"No concept of '{group}' is drawn in the styles {', '.join(sources)}.",
            fix="Take more styles.",
        )
    source = known.select([known.class_names.index(name) for name in names])
    tasks = {}
    for style in targets:
        in_style = [d for d in _index(drawings) if (d.group, d.style) == (group, style)]
        test = _examples(in_style, names, drawings)
        present = sorted({example.label for example in test})
        if present:
            tasks[style] = replace(source.with_splits({"test": test}), name=style).select(present)
    return replace(source, train=_examples(own, names, drawings), test=()), tasks


def _check_known(group: str, styles: Iterable[str], folder: Path) -> None:
    if group not in list_groups(folder):
        fix = nearest(group, list_groups(folder))
        raise PromptotError(f"No group of drawings '{group}'.", fix=fix)
    known = list_styles(drawings=folder)
    for style in styles:
        if style not in known:
            raise PromptotError(f"No style '{style}'.", fix=nearest(style, known))


def _examples(
    drawings: Iterable[_Drawing], names: Sequence[str], folder: Path
) -> tuple[Example, ...]:
    """The drawings of these classes."""
    labels = {name: label for label, name in enumerate(names)}
    archive = folder / "images.zip"
    return tuple(
        Example(f"{archive}::{drawing.member}", labels[drawing.name])
        for drawing in drawings
        if drawing.name in labels
    )


def _task(
    name: str,
    drawings: Sequence[_Drawing],
    required: Sequence[str],
    styles: Sequence[str] | None,
    folder: Path,
) -> ImageTask:
    """Drawings as a task, over the concepts that every one of the required splits has."""
    own = [d for d in drawings if styles is None or d.style in styles]
    names = set.intersection(*({d.name for d in own if d.split == split} for split in required))
    if not names:
        raise PromptotError(
            f"No concept of '{name}' is drawn in every needed split in these styles.",
            fix="Take more styles.",
        )
    task = ImageTask(name=name, class_names=tuple(sorted(names)))
    return task.with_splits(
        {
            split: _examples([d for d in own if d.split == split], task.class_names, folder)
            for split in SPLITS
        }
    )


@lru_cache(maxsize=4)
def _index(folder: Path) -> tuple[_Drawing, ...]:
    """The drawings used by the tasks, sorted by style and member."""
    path, columns = folder / "index.csv", _Drawing._fields
    with reading_errors(f"The bundled drawings can't be read from '{folder}'", _INSTALL):
        rows = read_csv(read_text(path))
        header = next(rows, [])
        if not set(columns) <= set(header):
            raise PromptotError(
                f"'{path}' lacks columns; it needs {sorted(columns)}.", fix=_INSTALL
            )
        places = [header.index(column) for column in columns]
        drawings = [_Drawing(*(row[place] for place in places)) for row in rows]
    return tuple(
        sorted((d for d in drawings if d.split in SPLITS), key=lambda d: (d.style, d.member))
    )
