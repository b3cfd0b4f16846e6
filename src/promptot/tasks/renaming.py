"""From folder names to the names that prompts use, with other names (synonyms) of a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptot.errors import PromptotError
from promptot.reading import (
    LARGEST_TEXT,
    LARGEST_YAML,
    Unreadable,
    brief,
    parse_json,
    parse_yaml,
    read_csv,
    read_text,
    text_lines,
)
from promptot.tasks.dataset import ImageTask
from promptot.tasks.names import check_class_names, clean_name

Names = Mapping[str, tuple[str, ...]]
"""By the cleaned, case-folded name of a class: what prompts call it, then its synonyms."""


def load_names(path: str | Path) -> Names:
    """Read a mapping from class folders (or labels) to names.

    - `.json`, `.yaml`: `{"n01440764": "tench", "n02123045": ["tabby", "tabby cat"]}`
    - `.csv`, `.tsv`: a line a class, its folder in the first column, names in the others; no header
    - anything else: a line a class, the folder, a blank, then names by commas:
      `n02123045 tabby, tabby cat`

    The first name is the class's own, the others are synonyms.

    Raises:
        PromptotError: the file can't be read, names a class twice, or leaves one without a name.
    """
    path = Path(path)
    try:
        kind = path.suffix.lower()
        in_yaml = kind in (".yaml", ".yml")
        text = read_text(path, LARGEST_YAML if in_yaml else LARGEST_TEXT)
        if kind == ".json" or in_yaml:
            read = parse_yaml(text) if in_yaml else parse_json(text)
            if not isinstance(read, dict):
                raise Unreadable("it is no mapping from folders to names")
            return check_names(read)
        if kind in (".csv", ".tsv"):
            rows = read_csv(text, "\t" if kind == ".tsv" else ",")
            pairs = [(cells[0].strip(), cells[1:]) for cells in rows if any(map(str.strip, cells))]
        else:
            pairs = [_line(line) for line in text_lines(text) if line.strip()]
        doubled = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
        if doubled:
            raise Unreadable(f"'{min(doubled):.80}' comes twice")
        return check_names(dict(pairs))
    except PromptotError as error:
        raise PromptotError(f"The names in '{path}': {error.problem}", fix=error.fix) from error
    except Unreadable as error:
        raise PromptotError(
            f"The names can't be read from '{path}': {error}.",
            fix='Write {"folder": "name", "other folder": ["name", "synonym"]} as JSON or YAML.',
        ) from error


def check_names(names: Mapping[Any, Any]) -> Names:
    """A mapping whose values are names, or lists of a name and its synonyms.

    Raises:
        PromptotError: one is empty, no text, or belongs to two classes.

    Example:
        >>> check_names({"n02123045": ["tabby", "tabby cat"], 7: "sea_lion"})
        {'n02123045': ('tabby', 'tabby cat'), '7': ('sea lion',)}
    """
    checked: dict[str, tuple[str, ...]] = {}
    for key, value in names.items():
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, Sequence) or not all(isinstance(text, str) for text in listed):
            raise PromptotError(
                f"The class {brief(key)} is given {brief(value)} as its name.",
                fix="Give text, or a list of.",
            )
        cleaned = tuple(dict.fromkeys(clean_name(text) for text in listed if text.strip()))
        if not cleaned:
            raise PromptotError(f"The class {brief(key)} is given no name.", fix="Give it one.")
        known = clean_name(str(key)).casefold()
        if known in checked:
            raise PromptotError(
                f"The class {brief(key)} comes twice (case and underscores are ignored).",
                fix="Name each class once.",
            )
        checked[known] = cleaned
    check_class_names(name for listed in checked.values() for name in listed)
    return checked


def rename(task: ImageTask, names: Names) -> ImageTask:
    """The task with its classes called as the mapping says; the others keep their names.

    The order of the classes, and so what is base and what is novel, stays as it was.

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
    check_class_names(name for listed in renamed for name in listed)
    others = {listed[0]: listed[1:] for listed in renamed if len(listed) > 1}
    return replace(
        task,
        class_names=tuple(listed[0] for listed in renamed),
        synonyms={**task.synonyms, **others},
    )


def _line(line: str) -> tuple[str, list[str]]:
    key, _, rest = line.strip().partition(" ")
    return key, rest.split(",")
