"""Tasks put together: one by split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from promptot.errors import PromptotError
from promptot.tasks.dataset import Example, ImageTask
from promptot.tasks.sources.found import SPLITS


def join_splits(parts: Mapping[str, ImageTask], name: str) -> ImageTask:
    """One task of several, each of which is a split, over all of their classes.

    Classes are told by their names, in whatever case. All images of a part belong to its split,
    whatever splits the part has itself.

    Raises:
        PromptotError: there is no part, or a split is unknown or comes twice.
    """
    if not parts:
        raise PromptotError(f"'{name}' has no split.", fix='Give {"train": …, "test": …}.')
    labels: dict[str, int] = {}
    names: list[str] = []
    splits: dict[str, tuple[Example, ...]] = {}
    for written, part in parts.items():
        split = SPLITS.get(written.strip().casefold())
        if split is None or split in splits:
            raise PromptotError(
                f"'{written}' is no split, or comes twice.",
                fix="Write each of train, validation and test once at most.",
            )
        for text in part.class_names:
            if text.casefold() not in labels:
                labels[text.casefold()] = len(names)
                names.append(text)
        splits[split] = tuple(
            replace(example, label=labels[part.class_names[example.label].casefold()])
            for example in part.examples
        )
    return ImageTask(
        name=name,
        class_names=tuple(names),
        train=splits.get("train", ()),
        validation=splits.get("validation", ()),
        test=splits.get("test", ()),
        template=next(iter(parts.values())).template,
        skipped=tuple(item for part in parts.values() for item in part.skipped),
        synonyms={k: v for part in parts.values() for k, v in part.synonyms.items()},
    )
