"""From folder names to the names that prompts use, with other names (synonyms) of a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptot.data.class_names import check_class_names, check_task_names, clean_name
from promptot.data.task import ImageTask
from promptot.errors import PromptotError, listed
from promptot.files.reading import (
    Unreadable,
    brief,
    read_csv,
    read_json,
    read_text,
    reading_errors,
    text_lines,
)
from promptot.files.yaml_text import read_yaml

Names = Mapping[str, tuple[str, ...]]
"""By the cleaned, case-folded name of a class: what prompts call it, then its synonyms."""


def load_names(path: str | Path) -> Names:
    """Read a mapping from class folders (or labels) to names.

    - `.json`, `.yaml`: `{"n01440764": "tench", "n02123045": ["tabby", "tabby cat"]}`
    - `.csv`, `.tsv`: a line a class, its folder in the first column, names in the others; no header
    - anything else: a line a class, the folder, a blank, then names by commas:
      `n02123045 tabby, tabby cat`

    The first name is the class's own, the others are synonyms. In YAML everything is text: `no` and
    `007` are the names of folders, and not false and 7.

    Raises:
        PromptotError: the file can't be read, names a class twice, or leaves one without a name.
    """
    path = Path(path)
    fix = 'Write {"folder": "name", "other folder": ["name", "synonym"]} as JSON or YAML.'
    with reading_errors(f"The names can't be read from '{path}'", fix):
        read = _read_names(path)
    try:
        return check_names(read)
    except PromptotError as error:
        raise PromptotError(f"The names in '{path}': {error.problem}", fix=error.fix) from error


def _read_names(path: Path) -> dict[Any, Any]:
    kind = path.suffix.lower()
    if kind in (".json", ".yaml", ".yml"):
        read = read_json(path) if kind == ".json" else read_yaml(path, as_text=True)
        if not isinstance(read, dict):
            raise Unreadable("it is no mapping from folders to names")
        return read
    text = read_text(path)
    if kind in (".csv", ".tsv"):
        rows = read_csv(text, "\t" if kind == ".tsv" else ",")
        pairs = [(cells[0].strip(), cells[1:]) for cells in rows if any(map(str.strip, cells))]
    else:
        pairs = [_line(line) for line in text_lines(text) if line.strip()]
    doubled = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
    if doubled:
        raise Unreadable(f"'{min(doubled):.80}' comes twice")
    return dict(pairs)


def check_names(names: Mapping[Any, Any]) -> Names:
    """A mapping whose values are names, or lists of a name and its synonyms.

    Raises:
        PromptotError: one is empty or no text, or a class comes twice. Whether two classes have one
            name is not looked at: `rename` knows which of them a task has.

    Example:
        >>> check_names({"n02123045": ["tabby", "tabby cat"], 7: "sea_lion"})
        {'n02123045': ('tabby', 'tabby cat'), '7': ('sea lion',)}
    """
    checked: dict[str, tuple[str, ...]] = {}
    for key, value in names.items():
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise PromptotError(
                f"The class {brief(key)} is given {brief(value)} as its name.",
                fix="Give text, or a list of.",
            )
        cleaned = tuple(dict.fromkeys(clean_name(text) for text in texts if text.strip()))
        if not cleaned:
            raise PromptotError(f"The class {brief(key)} is given no name.", fix="Give it one.")
        known = clean_name(str(key)).casefold()
        if known in checked:
            raise PromptotError(
                f"The class {brief(key)} comes twice (case and underscores are ignored).",
                fix="Name each class once.",
            )
        checked[known] = cleaned
    check_class_names((name for own in checked.values() for name in own), same=True)
    return checked


def rename(task: ImageTask, names: Names, *, keep_same_names: bool = False) -> ImageTask:
    """The task with its classes called as the mapping says; the others keep their names.

    The order of the classes, and so what is base and what is novel, stays as it was. Which names
    fit no class, and which classes got none, is said in the task's `notes`.

    Args:
        keep_same_names: whether two classes may come to have one name.

    Raises:
        PromptotError: no class is in the mapping, or two classes come to have one name.
    """
    keys = [name.casefold() for name in task.class_names]
    if not any(key in names for key in keys):
        raise PromptotError(
            f"None of the classes of '{task.name}' is in the names given, such as "
            f"'{next(iter(names), '')}'.",
            fix=f"Its classes are called '{task.class_names[0]}' and so on.",
        )
    renamed = [names.get(k, (own,)) for k, own in zip(keys, task.class_names, strict=True)]
    check_task_names((name for own in renamed for name in own), keep=keep_same_names)
    others: dict[str, tuple[str, ...]] = {}
    for first, *synonyms in renamed:
        if others.setdefault(first, tuple(synonyms)) != tuple(synonyms):
            raise PromptotError(
                f"Two classes are called '{first:.60}', and have other synonyms.",
                fix="Give both the same, or none.",
            )
    return replace(
        task,
        class_names=tuple(own[0] for own in renamed),
        synonyms={**task.synonyms, **{name: own for name, own in others.items() if own}},
        notes=(*task.notes, *_of_the_others(keys, task.class_names, names)),
        same_names=task.same_names or keep_same_names,
    )


def _of_the_others(keys: Sequence[str], class_names: Sequence[str], names: Names) -> list[str]:
    """Sentences on the names that fit no class, and on the classes that keep their names."""
    notes = []
    unused = [key for key in names if key not in set(keys)]
    if unused:
        fit = "fits" if len(unused) == 1 else "fit"
        notes.append(f"Of the names given, {listed(unused, 5, width=60)} {fit} no class.")
    unnamed = [name for key, name in zip(keys, class_names, strict=True) if key not in names]
    if unnamed:
        notes.append(
            f"No name was given for {listed(unnamed, 5, width=60)}: the folder's or the label's "
            "stays."
        )
    return notes


def _line(line: str) -> tuple[str, list[str]]:
    key, _, rest = line.strip().partition(" ")
    return key, rest.split(",")
