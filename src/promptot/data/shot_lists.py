"""Which images a few-shot run learns from, as a file: to keep, to publish and to replay."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from promptot.data.catalog.public.listing import Row, read_json
from promptot.data.catalog.public.load_public import examples_in, read_rows
from promptot.data.class_names import clean_name
from promptot.data.shots import find_unreadable
from promptot.data.task import Example, ImageTask
from promptot.errors import PromptotError
from promptot.files.writing import write_text


@dataclass(frozen=True)
class ShotList:
    """The images that were drawn from a task.

    Attributes:
        task: name of the task.
        shots, seed: of the draw; None where a list does not say.
        train, validation: the images; paths start from the task's image folder.
    """

    task: str
    shots: int | None
    seed: int | None
    train: tuple[Row, ...]
    validation: tuple[Row, ...]

    @property
    def digest(self) -> str:
        """Hash of the images and labels, in their order."""
        lines = [f"{row.label} {row.path}" for row in (*self.train, *self.validation)]
        return hashlib.sha256("\n".join(lines).encode("utf8", "surrogateescape")).hexdigest()


def shot_list(drawn: ImageTask, place: Path, shots: int, seed: int) -> ShotList:
    """The list of a task whose shots were drawn.

    Args:
        drawn: its training and validation images are the shots.
        place: the folder that the paths in the list start from.
        shots, seed: of the draw.
    """

    def rows(examples: tuple[Example, ...]) -> tuple[Row, ...]:
        return tuple(
            Row(_relative(example.path, place), example.label, drawn.class_names[example.label])
            for example in examples
        )

    return ShotList(drawn.name, shots, seed, rows(drawn.train), rows(drawn.validation))


def shot_list_name(task: str, shots: int, seed: int) -> str:
    """What the file of a list is called; what a file's name may not hold becomes a dash.

    Example:
        >>> shot_list_name("OxfordPets", 16, 1)
        'OxfordPets-16-shots-seed-1.json'
    """
    name = re.sub(r"[^\w .()+&-]", "-", task)
    return f"{name}-{shots}-shots-seed-{seed}.json"


def write_shot_list(listed: ShotList, path: Path) -> None:
    """Write a list as JSON, an image a line; train and val are as in the community's split files.

    Raises:
        PromptotError: the disk is full, or the folder can't be written to.
    """
    head = {"task": listed.task, "shots": listed.shots, "seed": listed.seed}
    parts = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for key, rows in (("train", listed.train), ("val", listed.validation)):
        lines = ",\n".join(f"    {json.dumps(list(row))}" for row in rows)
        parts.append(f'  "{key}": [\n{lines}\n  ]' if rows else f'  "{key}": []')
    write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def read_shot_list(path: Path) -> ShotList:
    """Read a list: {"train": [[path, label, name], …]}, perhaps with val, task, shots and seed.

    Raises:
        PromptotError: it can't be read, or is something else.
    """
    content = read_json(path)
    if not isinstance(content, dict) or "train" not in content:
        raise PromptotError(f"'{path}' is not a shot list.", fix="It needs the key 'train'.")

    shots, seed = (
        value if isinstance(value := content.get(key), int) else None for key in ("shots", "seed")
    )
    return ShotList(
        str(content.get("task", "")),
        shots,
        seed,
        tuple(read_rows(content["train"], path)),
        tuple(read_rows(content.get("val", []), path)),
    )


def replay(listed: ShotList, task: ImageTask, place: Path) -> ImageTask:
    """The task with the listed images as its shots.

    Args:
        listed: of this task.
        task: the whole task.
        place: the folder that the paths in the list start from.

    Raises:
        PromptotError: a label or a name is not one of the task's, a class has no image, or an image
            can't be read: then it would not be the same list.
    """
    for row in (*listed.train, *listed.validation):
        known = task.class_names[row.label] if row.label < len(task.class_names) else None
        if known is None or clean_name(row.name) != known:
            raise PromptotError(
                f"The shot list of '{task.name}' calls label {row.label} '{row.name}'; here it is "
                f"'{known}'.",
                fix="Use the class names and the split that the list was made with.",
            )
    without = set(range(len(task.class_names))) - {row.label for row in listed.train}
    if without:
        raise PromptotError(
            f"The shot list of '{task.name}' has no image of '{task.class_names[min(without)]}'.",
            fix="A list holds all classes, before they are divided into base and novel.",
        )

    drawn = replace(
        task,
        train=examples_in(place, listed.train),
        validation=examples_in(place, listed.validation),
    )
    unreadable = find_unreadable((*drawn.train, *drawn.validation))
    if unreadable:
        raise PromptotError(
            f"The shot list of '{task.name}' holds '{unreadable[0].path}': {unreadable[0].reason}.",
            fix="Get the image: without it this would be another list.",
        )
    return drawn


def _relative(path: str, place: Path) -> str:
    start = f"{place}/".replace("\\", "/")
    return path.replace("\\", "/").removeprefix(start)
