"""An interrupted run goes on with the sentence that it began with, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError
from promptot.training.listener import Listener

ANOTHER = "a drawing of a {}."


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


def fit(photos: Path, out: Path, backbone: Backbone, **options: Any) -> promptot.Run:
    return promptot.fit(
        photos, out, backbone=backbone, device="cpu", shots=2, report=False,
        overrides=["optim.epochs=2"], **options,
    )  # fmt: skip


def interrupt(photos: Path, out: Path, backbone: Backbone, **options: Any) -> None:
    def stop(record: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(photos, out, backbone, listener=Listener(on_epoch=stop), **options)


def test_another_template_is_refused(few_photos: Path, small: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupt(few_photos, out, small, template=ANOTHER)
    for options in ({}, {"template": "a sketch of a {}."}):
        with pytest.raises(PromptotError, match="started with something else: the template"):
            fit(few_photos, out, small, resume=True, **options)
    assert fit(few_photos, out, small, resume=True, template=ANOTHER).model.template == ANOTHER
    with pytest.raises(PromptotError, match="complete, and was made with something else: the temp"):
        fit(few_photos, out, small, resume=True)
    assert fit(few_photos, out, small, resume=True, template=ANOTHER).was_complete


def test_runs_that_do_not_note_it_go_on(few_photos: Path, small: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(few_photos, out, small)
    place = out / "manifest.json"
    manifest: Mapping[str, Any] = json.loads(place.read_text())
    assert manifest["made_with"].pop("template") == ["a photo of a {}."]
    place.write_text(json.dumps(manifest))
    assert fit(few_photos, out, small, resume=True).was_complete
