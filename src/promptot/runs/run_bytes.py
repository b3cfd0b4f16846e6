"""A run folder in memory, as bytes: what an estimator keeps, pickles and writes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.files.reading import Unreadable, parse_json, read_bytes
from promptot.files.writing import write_bytes
from promptot.runs.adapter import CARD, LARGEST_TENSORS, TENSORS
from promptot.runs.classifier import Classifier, load
from promptot.runs.run_folder import ADAPTER, MANIFEST, writing

_FILES = (MANIFEST, f"{ADAPTER}/{TENSORS}", f"{ADAPTER}/{CARD}", "steps.csv", "epochs.csv")
"""In the order in which they are written."""

Files = dict[str, bytes]


def read_files(folder: Path) -> Files:
    """The files of a run folder, or of an adapter folder alone.

    Raises:
        PromptotError: one can't be read.
    """
    bare = (folder / CARD).is_file()
    places = {name: folder / (Path(name).name if bare else name) for name in _FILES}
    try:
        return {n: read_bytes(p, LARGEST_TENSORS) for n, p in places.items() if p.is_file()}
    except Unreadable as error:
        raise PromptotError(
            f"The run in '{folder}' can't be read: {error}.", fix="Copy it again."
        ) from error


def write_files(files: Files, folder: Path, overwrite: bool = False) -> None:
    """Write them as a run folder.

    Raises:
        PromptotError: the folder holds a run already, or can't be written.
    """
    with writing(folder, overwrite) as work:
        for name in _FILES:
            if name in files:
                write_bytes(work / name, files[name])


def open_files(files: Files, backbone: Backbone) -> Classifier:
    """The classifier of a run that is in memory."""
    with tempfile.TemporaryDirectory(prefix="promptot-") as place:
        write_files(files, Path(place))
        return load(place, backbone)


def manifest_of(files: Files) -> dict[str, Any]:
    """The manifest; empty if there is none, as beside an adapter alone.

    Raises:
        PromptotError: it is damaged.
    """
    try:
        manifest = parse_json(files.get(MANIFEST, b"{}"))
        if isinstance(manifest, dict) and isinstance(manifest.get("task", {}), dict):
            return manifest
    except Unreadable:
        pass
    raise PromptotError("The run's manifest is damaged.", fix="Load its adapter folder instead.")


def with_labels(files: Files, labels: list[Any]) -> Files:
    """The same run, with the labels of its classes in the manifest."""
    manifest = manifest_of(files)
    task: Mapping[str, Any] = manifest.get("task", {})
    manifest["task"] = {**task, "labels": labels}
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    return {**files, MANIFEST: f"{text}\n".encode()}
