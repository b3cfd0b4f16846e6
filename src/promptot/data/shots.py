"""Working around images that can't be read: find them, name them, replace them where possible."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from promptot.data.images.read_image import UnreadableImage
from promptot.data.task import Example, ImageTask, Skipped, by_label
from promptot.errors import PromptotError, listed


def find_unreadable(
    examples: Iterable[Example], progress: Callable[[], None] | None = None
) -> list[Skipped]:
    """Read every image once, in threads, and list those that can't be read.

    Args:
        examples: the images to try, in full: a damaged end is found too.
        progress: called once per image, for a progress bar.
    """
    unreadable = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for skipped in pool.map(_try_to_read, examples):
            if skipped is not None:
                unreadable.append(skipped)
            if progress is not None:
                progress()
    return unreadable


def choose_shots(
    task: ImageTask, shots: int | None, seed: int, progress: Callable[[], None] | None = None
) -> ImageTask:
    """`task.few_shot(shots, seed)` with an eye on what can be read.

    Only the images that were drawn are read. Where one can't be, the next image of its class takes
    its place, in an order that depends on `seed` and the class alone; all the other shots stay what
    they were. With `shots=None` every training and validation image is read, and those that can't
    be are left out. What was left out is listed in the result's `skipped`.

    Raises:
        PromptotError: a class has no readable training image.
    """
    drawn = task.few_shot(shots, seed)
    unreadable = find_unreadable((*drawn.train, *drawn.validation), progress)
    train, more_train = _mend(drawn.train, task.train, unreadable, seed)
    validation, more_validation = _mend(drawn.validation, task.validation, unreadable, seed)
    skipped = (*unreadable, *more_train, *more_validation)
    have = {example.label for example in train}
    missing = [name for label, name in enumerate(task.class_names) if label not in have]
    if missing:
        raise _no_training_images(missing, skipped)
    every = {item.path: item for item in (*task.skipped, *skipped)}
    return replace(drawn, train=train, validation=validation, skipped=tuple(every.values()))


def _mend(
    drawn: Sequence[Example], pool: Sequence[Example], unreadable: Sequence[Skipped], seed: int
) -> tuple[tuple[Example, ...], list[Skipped]]:
    """`drawn` with every unreadable example replaced, or dropped where nothing is left."""
    bad = {skipped.path for skipped in unreadable}
    taken = {example.path for example in drawn}
    groups = by_label([example for example in pool if example.path not in taken])
    also_unreadable: list[Skipped] = []
    spares = {
        label: iter(random.Random(f"{seed}:{label}").sample(rest, len(rest)))
        for label, rest in groups.items()
    }
    mended = []
    for example in drawn:
        if example.path not in bad:
            mended.append(example)
            continue
        for spare in spares.get(example.label, ()):
            skipped = _try_to_read(spare)
            if skipped is None:
                mended.append(spare)
                break
            also_unreadable.append(skipped)
    return tuple(mended), also_unreadable


def _try_to_read(example: Example) -> Skipped | None:
    try:
        example.load()
    except UnreadableImage as error:
        return Skipped(error.path, error.reason)
    return None


def _no_training_images(missing: list[str], skipped: Sequence[Skipped]) -> PromptotError:
    example = f" For example '{skipped[0].path}': {skipped[0].reason}." if skipped else ""
    classes, verb = ("The class", "has") if len(missing) == 1 else ("The classes", "have")
    return PromptotError(
        f"{classes} {listed(missing, 5)} {verb} no readable training image.{example}",
        fix="Add images, repair them, or remove the class.",
    )
