"""Which column of a table holds the images, which the labels."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from promptot.errors import PromptotError, listed

COLUMNS = {
    "image": ("path", "image", "file_name", "filename", "file", "filepath", "image_path", "img"),
    "label": ("label", "class", "class_name", "labels", "category", "target", "fine_label"),
    "split": ("split",),
    "domain": ("domain", "style"),
}
"""What each column may be called (case is ignored), the likeliest first."""


def choose_columns(
    header: Sequence[str],
    where: str,
    columns: Mapping[str, str] | None = None,
    needed: Sequence[str] = ("image", "label"),
) -> dict[str, str]:
    """The header's names of the columns "image" and "label", and "split" and "domain" if any.

    Raises:
        PromptotError: one that is needed, or was asked for, is missing.
    """
    by_name = {text.strip().casefold(): text for text in header}
    chosen: dict[str, str] = {}
    columns = columns or {}
    unknown = set(columns) - set(COLUMNS)
    if unknown:
        raise PromptotError(
            f"There is no kind of column '{min(unknown)}'.", fix=f"Valid: {', '.join(COLUMNS)}."
        )
    for kind, usual in COLUMNS.items():
        wanted = columns.get(kind)
        choices = usual if wanted is None else (wanted.casefold(),)
        match = next((by_name[text] for text in choices if text in by_name), None)
        if match is not None:
            chosen[kind] = match
        elif wanted is not None or kind in needed:
            known = [text if len(text) <= 40 else f"{text[:40]}…" for text in header]
            raise PromptotError(
                f"'{where}' has no column '{wanted or kind}'; it has "
                f"{listed(known, 20, quoted=False) or 'none'}.",
                fix=f"Call it one of {', '.join(choices)}, or say which it is with columns: "
                f"{{{kind}: NAME}}.",
            )
    return chosen


def label_column(header: Sequence[str], columns: Mapping[str, str] | None = None) -> str | None:
    """The column of labels, see `choose_columns`; None if there is none."""
    with contextlib.suppress(PromptotError):
        own = {kind: text for kind, text in (columns or {}).items() if kind == "label"}
        return choose_columns(header, "", own, needed=("label",))["label"]
    return None


def label_notes(
    header: Sequence[str], chosen: Mapping[str, str], columns: Mapping[str, str] | None
) -> list[str]:
    """A sentence where another column might hold the labels as well."""
    usual = [text for text in header if text.strip().casefold() in COLUMNS["label"]]
    others = [text for text in usual if text != chosen["label"]]
    if not others or "label" in (columns or {}):
        return []
    return [
        f"The column '{chosen['label']}' was taken for the labels, and not "
        f"{listed(others, len(others))}."
    ]
