"""What promptot did not write is neither moved, nor changed, nor removed by a run."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tree import snapshot

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.cli import main
from promptot.errors import PromptotError
from promptot.files.locks import TEXT, LockFile
from promptot.files.owned import MARKER, is_marked, is_temporary, temporary_name
from promptot.runs.run_folder import FINISHED, NEXT, locked
from promptot.training.listener import Listener
from promptot.training.training_log import EpochRecord

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
NAME = "adapter/prompts.safetensors"
Fit = Callable[..., object]


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


@pytest.fixture
def fit(small: Backbone, few_photos: Path, tmp_path: Path) -> Fit:
    """Fit a run into `tmp_path / "run"`."""

    def call(*overrides: str, out: str | Path = "run", **options) -> object:
        chosen = ["optim.epochs=2", "optim.batch_size=4", *overrides]
        options = {"backbone": small, "device": "cpu", "shots": 3, "recipe": "ivlp"} | options
        return promptot.fit(few_photos, tmp_path / out, overrides=chosen, report=False, **options)

    return call


@pytest.fixture(scope="module")
def finished(small: Backbone, few_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a page; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    promptot.fit(
        few_photos, out, backbone=small, device="cpu", shots=3, recipe="ivlp",
        overrides=["optim.epochs=1", "optim.batch_size=4"],
    )  # fmt: skip
    return out


def stop_after(epoch: int) -> Listener:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise KeyboardInterrupt

    return Listener(on_epoch=on_epoch)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# Names that a run needs, taken by something else


def _web_build(run: Path, away: Path) -> None:
    write(run / NEXT / "build-manifest.json", "{}")
    write(run / NEXT / "server" / "app.js", "start()")


def _linked(name: str) -> Callable[[Path, Path], None]:
    def make(run: Path, away: Path) -> None:
        write(away / "thesis.txt", "years of work")
        (run / name).symlink_to(away)

    return make


def _linked_run(name: str) -> Callable[[Path, Path], None]:
    """A link to a folder that looks like an interrupted or finished run."""

    def make(run: Path, away: Path) -> None:
        write(away / "manifest.json", json.dumps({"recipe": {}, "task": {"shots": []}}))
        (run / name).symlink_to(away)

    return make


def _file(name: str, text: str) -> Callable[[Path, Path], None]:
    return lambda run, away: write(run / name, text)


def _weights(run: Path, away: Path) -> None:
    save_file({"weight": torch.ones(3)}, run / "checkpoint.safetensors", {"format": "pt"})


def _linked_file(run: Path, away: Path) -> None:
    away.mkdir(exist_ok=True)
    write(away / "manifest.json", json.dumps({"recipe": {}, "task": {"shots": []}}))
    (run / "manifest.json").symlink_to(away / "manifest.json")


def _pipe(run: Path, away: Path) -> None:
    os.mkfifo(run / ".lock")


def _marked_with_more(run: Path, away: Path) -> None:
    from promptot.files.owned import make_folder

    make_folder(run / NEXT)
    write(run / NEXT / "notes.txt", "mine")


FOREIGN: dict[str, Callable[[Path, Path], None]] = {
    "a web build": _web_build,
    "a linked next": _linked(NEXT),
    "a linked next that holds a run": _linked_run(NEXT),
    "a file as next": _file(NEXT, "mine"),
    "a file of mine in next": _marked_with_more,
    "a finished folder of packages": _file(f"{FINISHED}/package.json", "{}"),
    "a finished folder with a manifest": _file(f"{FINISHED}/manifest.json", "{}"),
    "a linked finished": _linked(FINISHED),
    "a linked finished that holds a run": _linked_run(FINISHED),
    "a lock of others": _file(".lock", "pid 1\n"),
    "a folder as lock": _file(".lock/mine.txt", "mine"),
    "a linked lock": _linked(".lock"),
    "a pipe as lock": _pipe,
    "a web manifest": _file("manifest.json", '{"name": "My app", "icons": []}'),
    "a linked manifest": _linked_file,
    "weights": _weights,
    "a page": _file("report.html", "<p>mine"),
    "a table": _file("predictions.csv", "a,b\n1,2\n"),
    "a folder as table": _file("steps.csv/mine.txt", "mine"),
    "a linked adapter": _linked("adapter"),
    "an adapter for power": _file("adapter/plug.txt", "230 V"),
    "an empty adapter": lambda run, away: (run / "adapter").mkdir(),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_thing_in_the_way_is_refused_and_nothing_is_touched(
    what: str, fit: Fit, tmp_path: Path
) -> None:
    run, away = tmp_path / "run", tmp_path / "away"
    write(run / "package.json", '{"name": "mine"}')
    FOREIGN[what](run, away)
    before = snapshot(tmp_path)
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(PromptotError, match="needs this name|other files than an adapter"):
            fit(**options)
        with pytest.raises(PromptotError), locked(run):
            pass
        assert snapshot(tmp_path) == before, options


@pytest.mark.parametrize("what", ["a linked next", "a finished folder of packages", "weights"])
def test_so_it_is_beside_a_run(what: str, fit: Fit, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    FOREIGN[what](tmp_path / "run", tmp_path / "away")
    before = snapshot(tmp_path)
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(PromptotError, match="needs this name"):
            fit(**options)
        assert snapshot(tmp_path) == before, options


def test_the_command_says_it_in_one_sentence(
    few_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "run" / FINISHED / "package.json", "{}")
    before = snapshot(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", str(few_photos), "--out", str(tmp_path / "run"), "--overwrite"])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert ".finished' is not of a run, and a run needs this name" in said
    assert snapshot(tmp_path) == before


def test_names_that_only_look_like_ours_are_left_alone(fit: Fit, tmp_path: Path) -> None:
    """They don't hinder a run, so it goes on beside them; nor does a run remove them."""
    run = tmp_path / "run"
    write(run / ".partial-work" / "thesis.txt", "years")
    write(run / ".partial-abcdefgh" / "card.json", "{}")
    write(run / ".partial-abcdefgh.csv", "a,b")
    write(run / f".partial-{'0' * 32}.csv", "a,b")  # the second half is not that of the first
    write(run / ".old-adapter" / "card.json", "{}")
    write(run / "flags.csv", "mine")
    (run / temporary_name()).symlink_to(run / ".old-adapter")
    mine = set(run.rglob("*"))
    before = {name: seen for name, seen in snapshot(run).items() if Path(name) in mine}
    fit()
    with pytest.raises(KeyboardInterrupt):
        fit(overwrite=True, listener=stop_after(1))
    fit(resume=True)
    fit(overwrite=True)
    after = {name: seen for name, seen in snapshot(run).items() if Path(name) in mine}
    assert after == before


def test_what_an_interruption_left_of_ours_goes(fit: Fit, tmp_path: Path) -> None:
    fit()
    run = tmp_path / "run"
    before = {path.name for path in run.iterdir()}
    write(run / temporary_name(".csv"), "half")
    (run / temporary_name()).mkdir()
    write(run / temporary_name() / "adapter" / "card.json", "{}")
    kept = run / temporary_name()
    write(kept / "thesis.txt", "somebody has put this into our temporary folder")
    assert fit(resume=True).was_complete
    assert {path.name for path in run.iterdir()} == before | {kept.name}
    assert (kept / "thesis.txt").exists()


def test_temporary_names() -> None:
    names = {temporary_name(".csv") for _ in range(100)}
    assert len(names) == 100
    assert all(is_temporary(name) for name in names)
    for name in names:
        changed = name.replace(name[10], "0" if name[10] != "0" else "1")
        assert not is_temporary(changed)
    assert is_temporary(temporary_name("./../evil"))
    assert "/" not in temporary_name("./../evil")


def test_an_empty_folder_of_the_user_s_stays(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(PromptotError, match="nothing to resume"):
        fit(resume=True)
    with locked(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []
    with locked(tmp_path / "new"):
        assert (tmp_path / "new" / ".lock").read_bytes().startswith(TEXT)
    assert not (tmp_path / "new").exists()


def test_an_empty_lock_file_is_used_and_left(fit: Fit, tmp_path: Path) -> None:
    """As earlier versions leave it when they are killed; nobody can tell whose it is."""
    run = tmp_path / "run"
    write(run / ".lock", "")
    with locked(run), pytest.raises(AssertionError):
        assert LockFile(run / ".lock").acquire()
    before = (run / ".lock").lstat()
    fit()
    assert (run / ".lock").lstat() == before


# Runs that earlier versions have left, without marks


def _unmark(work: Path) -> None:
    (work / MARKER).unlink()


def test_an_interrupted_replacement_of_an_earlier_version_goes_on(fit: Fit, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit("optim.lr=0.03", out="whole")
    fit()
    old = (run / NAME).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        fit("optim.lr=0.03", overwrite=True, listener=stop_after(1))
    assert is_marked(run / NEXT)
    _unmark(run / NEXT)
    write(run / NEXT / ".partial-ab_1defg.csv", "half")
    write(run / NEXT / ".partial-zb1defgh" / "card.json", "{}")
    with pytest.raises(PromptotError, match="an interrupted one that is to replace it"):
        fit("optim.lr=0.03")
    assert (run / NAME).read_bytes() == old
    fit("optim.lr=0.03", resume=True)
    assert (run / NAME).read_bytes() == (tmp_path / "whole" / NAME).read_bytes()
    assert {p.name for p in run.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def test_an_interrupted_replacement_of_an_earlier_version_is_begun_anew(
    fit: Fit, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fit()
    with pytest.raises(KeyboardInterrupt):
        fit("optim.lr=0.03", overwrite=True, listener=stop_after(1))
    _unmark(run / NEXT)
    fit(overwrite=True)
    assert not (run / NEXT).exists()
    assert not [path for path in run.iterdir() if is_temporary(path.name)]


def test_a_fresh_run_that_an_earlier_version_left_goes_on(fit: Fit, tmp_path: Path) -> None:
    fit(out="whole")
    with pytest.raises(KeyboardInterrupt):
        fit(listener=stop_after(1))
    write(tmp_path / "run" / ".lock", "")
    assert not list((tmp_path / "run").glob(MARKER))  # a run's own folder carries none
    fit(resume=True)
    assert (tmp_path / "run" / NAME).read_bytes() == (tmp_path / "whole" / NAME).read_bytes()


@pytest.mark.parametrize("moved", [(), ("adapter",), ("adapter", "manifest.json", "epochs.csv")])
def test_a_finished_run_of_an_earlier_version_takes_its_place(
    fit: Fit, finished: Path, tmp_path: Path, moved: tuple[str, ...]
) -> None:
    """Cut off after each of the moves that the earlier version made."""
    run = tmp_path / "run"
    fit("optim.lr=0.03", out="new")
    expected = {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir() if p.is_file()}
    if not moved:
        shutil.copytree(finished, run)
    run.mkdir(exist_ok=True)
    (tmp_path / "new").replace(run / FINISHED)
    for name in moved:
        (run / FINISHED / name).replace(run / name)
    with pytest.raises(PromptotError, match="is complete"):
        fit(resume=True)
    found = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    assert found == expected
    assert {p.name for p in run.iterdir() if p.is_dir()} == {"adapter"}


def test_what_an_earlier_version_left_is_refused_with_a_file_of_others_in_it(
    fit: Fit, tmp_path: Path
) -> None:
    fit()
    with pytest.raises(KeyboardInterrupt):
        fit("optim.lr=0.03", overwrite=True, listener=stop_after(1))
    _unmark(tmp_path / "run" / NEXT)
    write(tmp_path / "run" / NEXT / "BUILD_ID", "abc")
    before = snapshot(tmp_path / "run")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(PromptotError, match="needs this name"):
            fit(**options)
    assert snapshot(tmp_path / "run") == before


# A place that is a link


def test_a_linked_run_folder_is_followed(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    fit()
    fit(overwrite=True)
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk" / "adapter" / "card.json").is_file()
    (tmp_path / "lost").symlink_to(tmp_path / "nothing")
    with pytest.raises(PromptotError, match="is a link to nothing"):
        fit(out="lost")
    assert not (tmp_path / "nothing").exists()
