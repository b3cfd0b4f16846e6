"""A run that is read and saved again keeps what this version does not know, or can't read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import promptot
from promptot import PromptClassifier, Run
from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


@pytest.fixture
def saved(few_photos: Path, small: Backbone, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    promptot.fit(few_photos, out, backbone=small, shots=2, epochs=1, report=False)
    return out


def again(how: str, folder: Path, backbone: Backbone) -> Path:
    """The folder that it was saved to by someone who read it."""
    place = folder.with_name(f"{how}-again")
    if how == "run":
        Run.from_pretrained(folder, backbone).save(place)
    else:
        PromptClassifier.load(folder, backbone).save(place)
    return place


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    place = folder / "manifest.json"
    manifest: dict[str, Any] = json.loads(place.read_text())
    edit(manifest)
    place.write_text(json.dumps(manifest))
    return manifest


@pytest.mark.parametrize("how", ["run", "classifier"])
def test_what_a_newer_version_noted_stays(how: str, saved: Path, small: Backbone) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        later = {"later": [{"a": None}]}
        task, results = manifest["task"], manifest["results"]
        for part in (manifest, task, task["shots"][0], results, manifest["backbone"]):
            part |= later
        manifest["made_with"] |= {"scheme": 99, **later}
        manifest["backbone"]["function"] = ["told otherwise"]

    manifest = change(saved, edit)
    assert json.loads((again(how, saved, small) / "manifest.json").read_text()) == manifest


@pytest.mark.parametrize("how", ["run", "classifier"])
@pytest.mark.parametrize("kind", ["a column more", "no log at all"])
def test_a_log_that_is_not_understood_stays(
    how: str, kind: str, saved: Path, small: Backbone
) -> None:
    for name in ("steps.csv", "epochs.csv"):
        lines = (saved / name).read_text().splitlines()
        text = "".join(f"{line},{'7' if n else 'later'}\n" for n, line in enumerate(lines))
        (saved / name).write_text(text if kind == "a column more" else "\n\0")
    place = again(how, saved, small)
    for name in ("steps.csv", "epochs.csv"):
        assert (place / name).read_bytes() == (saved / name).read_bytes()
    with pytest.raises(PromptotError, match="epochs.csv' is damaged"):
        Run.from_pretrained(place, small).report()


def test_labels_that_can_be_none_are_refused(saved: Path, small: Backbone) -> None:
    count = len(json.loads((saved / "manifest.json").read_text())["task"]["class_names"])
    change(saved, lambda manifest: manifest["task"].update(labels=[{"a": 1}] * count))
    with pytest.raises(PromptotError, match="manifest is damaged"):
        PromptClassifier.load(saved, small)
