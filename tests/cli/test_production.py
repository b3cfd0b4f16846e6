"""The commands for using a run elsewhere, as a user types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Fails = Callable[..., str]


def test_export_says_what_it_wrote_and_how_close_it_is(run: Callable, trained: Path) -> None:
    result = run(
        "export", "run", "--out", "out", "--format", "torchscript", "--classes", "cat, dog",
        "--json", "result.json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "2 classes for torchscript in out" in result.out
    assert "classifier.json, model.pt" in result.out
    assert "Compared with the run on 12 images" in result.out
    assert (trained / "out" / "model.pt").is_file()
    written = json.loads((trained / "result.json").read_text())
    assert written["class_names"] == ["cat", "dog"]
    assert written["difference"]["probabilities"] < 1e-4


def test_export_refuses_in_one_sentence(fails: Fails, run: Callable, trained: Path) -> None:
    assert "There is no adapter" in fails("export", "nowhere", "--out", "out")
    assert "empty name" in fails("export", "run", "--out", "out", "--classes", "cat,,dog")
    assert "holds other files" in fails("export", "run", "--out", "photos")
    assert run("export", "run", "--out", "out", "--format", "caffe").code == 2


def test_merge_and_use_the_mean(run: Callable, fails: Fails, trained: Path, quick: list) -> None:
    assert run("fit", "photos", "--out", "second", "--seed", "2", *quick).code == 0
    result = run("merge", "run", "second", "--weights", "3,1", "--out", "both")
    assert result.code == 0, result.err
    assert "run × 0.75, second × 0.25" in result.out
    assert run("predict", "both", "photos/red/0.png").code == 0
    assert "already holds a run" in fails("merge", "run", "second", "--out", "both")
    assert "are not numbers" in fails("merge", "run", "second", "--out", "c", "--weights", "a,b")
    assert "2 runs and 1 weights" in fails("merge", "run", "second", "--out", "c", "--weights", "1")


def test_push_and_pull_name_the_place(
    run: Callable, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub = tmp_path / "hub"
    told: list[tuple[object, ...]] = []

    class Api:
        def __init__(self, token: str | None = None) -> None: ...

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            told.append((repo_id, private))

        def upload_folder(self, *, repo_id: str, folder_path: str, **more: object) -> None:
            shutil.copytree(folder_path, hub / repo_id)

    def snapshot_download(repo_id: str, *, revision: str | None = None, **more: object) -> str:
        told.append((repo_id, revision))
        return str(hub / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert "https://huggingface.co/me/it" in run("push", "run", "me/it", "--private").out
    assert "Fetched into out" in run("pull", "me/it", "--out", "out", "--revision", "v1").out
    assert told == [("me/it", True), ("me/it", "v1")]
    assert run("predict", "out", "photos/red/0.png").code == 0
    assert "is not empty" in run("pull", "me/it", "--out", "out").err
    assert run("pull", "me/it", "--out", "out", "--overwrite").code == 0


def test_fit_tells_trackers(run: Callable, fails: Fails, trained: Path, quick: list) -> None:
    pytest.importorskip("tensorboard")
    assert run("fit", "photos", "--out", "told", "--log", "tensorboard", *quick).code == 0
    assert list((trained / "told" / "tensorboard").glob("events.out.tfevents.*"))
    message = fails("fit", "photos", "--out", "x", "--log", "tensorbord", *quick)
    assert "Unknown tracker 'tensorbord'. Did you mean 'tensorboard'?" in message
    assert not (trained / "x").exists()


def test_serve_without_a_run(fails: Fails, trained: Path) -> None:
    pytest.importorskip("uvicorn")
    assert "There is no adapter" in fails("serve", "nowhere", "--port", "0")
