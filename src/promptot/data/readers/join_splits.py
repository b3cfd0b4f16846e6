"""Tasks put together: one by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from promptot.data.class_names import check_class_names, in_order
from promptot.data.readers.split_words import TAKEN, split_of
from promptot.data.task import Example, ImageTask
from promptot.errors import PromptotError


def join_splits(parts: Mapping[str, ImageTask], name: str) -> ImageTask:
    """One task of several, each of which is a split, over all of their classes.

    Classes are told by their names, in whatever case. All images of a part belong to its split,
    whatever splits the part has itself. Two classes of one name are told by their places, where all
    parts have the same classes.

    Raises:
        PromptotError: there is no part, or a split is unknown or comes twice.
    """
    if not parts:
        raise PromptotError(f"'{name}' has no split.", fix='Give {"train": …, "test": …}.')
    names = _names_of_all(list(parts.values()))
    labels = {text.casefold(): label for label, text in enumerate(names)}
    splits: dict[str, list[Example]] = {}
    for written, part in parts.items():
        split = split_of(written)
        if split is None or split in splits:
            raise PromptotError(
                f"'{written}' is no split, or comes twice.",
                fix="Write each of train, validation and test once at most.",
            )
        places = [labels[text.casefold()] for text in part.class_names]
        if names == part.class_names:  # of which two may be alike
            places = list(range(len(names)))
        splits[split] = [replace(image, label=places[image.label]) for image in part.examples]
    return ImageTask(
        name=name,
        class_names=names,
        template=next(iter(parts.values())).template,
        skipped=tuple(item for part in parts.values() for item in part.skipped),
        synonyms={k: v for part in parts.values() for k, v in part.synonyms.items()},
        notes=tuple(dict.fromkeys(note for part in parts.items() for note in _notes(*part))),
        same_names=any(part.same_names for part in parts.values()),
    ).with_splits(splits)


def _notes(written: str, part: ImageTask) -> list[str]:
    """The notes of a part, of which those on its own splits no longer hold."""
    notes = [note for note in part.notes if not note.startswith(TAKEN)]
    if sum(map(bool, part.splits.values())) > 1:
        notes.append(f"All images given as '{written}' are of that split, whatever folders say.")
    return notes


def _names_of_all(parts: Sequence[ImageTask]) -> tuple[str, ...]:
    """The classes of all parts, each once: in their usual order, or else as they appear.

    Raises:
        PromptotError: some are called alike in one part, and another part has other classes.
    """
    first = parts[0].class_names
    if all(part.class_names == first for part in parts):
        return first
    for part in parts:
        check_class_names(part.class_names)
    appeared: dict[str, str] = {}
    for text in (text for part in parts for text in part.class_names):
        appeared.setdefault(text.casefold(), text)
    usual = all(list(part.class_names) == in_order(part.class_names) for part in parts)
    return tuple(in_order(appeared.values()) if usual else appeared.values())
