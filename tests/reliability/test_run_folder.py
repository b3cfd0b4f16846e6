"""One run at a time in a folder, and an old run stays until a new one has finished."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from killing import Launcher

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError
from promptot.files.owned import temporary_name
from promptot.runs.run_folder import FINISHED, NEXT, locked
from promptot.training import batches
from promptot.training.checkpoint import read_checkpoint
from promptot.training.listener import Listener
from promptot.training.training_log import EpochRecord, StepRecord

resource = pytest.importorskip("resource", reason="POSIX calls")
OVERRIDES = ["optim.epochs=3", "optim.batch_size=4"]


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


@pytest.fixture
def fit(small: Backbone, few_photos: Path, tmp_path: Path) -> Callable[..., promptot.Run]:
    """Fit a run into `tmp_path / "run"`."""

    def call(*overrides: str, data: Path = few_photos, out: str | Path = "run", **options):
        chosen = [*OVERRIDES, *overrides]
        options = {"backbone": small, "device": "cpu", "shots": 3, "recipe": "ivlp"} | options
        return promptot.fit(data, tmp_path / out, overrides=chosen, **options)

    return call


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stop_at(epoch: int, step: int | None = None) -> Listener:
    """Interrupt a run after an epoch, or after a step of the next one."""

    def on_epoch(record: EpochRecord) -> None:
        if step is None and record.epoch == epoch:
            raise KeyboardInterrupt

    def on_step(record: StepRecord) -> None:
        if step is not None and (record.epoch, record.step) == (epoch + 1, step):
            raise KeyboardInterrupt

    return Listener(on_epoch=on_epoch, on_step=on_step)


@pytest.mark.usefixtures("fast_clock")
def test_two_runs_into_one_folder(fit: Callable[..., promptot.Run], tmp_path: Path) -> None:
    found: list[str] = []

    def second(record: EpochRecord) -> None:
        before = listing(tmp_path / "run")
        for options in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(PromptotError) as caught:
                fit(**options)
            found.append(str(caught.value))
        assert listing(tmp_path / "run") == before

    fit(listener=Listener(on_epoch=second))
    assert any("Another run is being written" in text for text in found)
    fit(out="alone")
    assert listing(tmp_path / "run").keys() == listing(tmp_path / "alone").keys()
    name = "adapter/prompts.safetensors"
    assert listing(tmp_path / "run")[name] == listing(tmp_path / "alone")[name]


def test_a_lock_goes_with_its_process(launcher: Launcher, tmp_path: Path) -> None:
    launcher.hold(tmp_path / "run", seconds=0.6)
    with (
        pytest.raises(PromptotError, match="Another run is being written"),
        locked(tmp_path / "run", seconds=0.1),
    ):
        pass
    assert launcher.wait() == -signal.SIGKILL
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()  # it was empty


def test_many_at_once_take_turns(tmp_path: Path) -> None:
    inside, most, done = 0, 0, 0

    def enter() -> None:
        nonlocal inside, most, done
        with locked(tmp_path / "run"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1
            done += 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == (1, 8)


def test_many_that_leave_nothing_do_not_hinder_one_another(tmp_path: Path) -> None:
    """Each takes the empty folder away as it goes: another's ``mkdir`` may stumble over that."""
    failed: list[PromptotError] = []

    def enter(folder: Path) -> None:
        try:
            with locked(folder):
                pass
        except PromptotError as error:
            failed.append(error)

    for number in range(40):
        folder = tmp_path / f"{number}"
        threads = [threading.Thread(target=enter, args=[folder]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed, failed[0]


@pytest.mark.parametrize("what", ["a file", "a link to nothing", "below a file"])
def test_where_no_folder_can_be(what: str, tmp_path: Path) -> None:
    place = tmp_path / "run"
    if what == "a link to nothing":
        place.symlink_to(tmp_path / "nothing")
    else:
        place.write_text("kept")
    with (
        pytest.raises(PromptotError, match="may write to"),
        locked(place / "deeper" if what == "below a file" else place),
    ):
        pass
    assert what == "a link to nothing" or place.read_text() == "kept"


def test_an_old_run_stays_until_the_new_one_has_finished(
    fit: Callable[..., promptot.Run], tmp_path: Path
) -> None:
    fit()
    old = listing(tmp_path / "run")
    seen: list[dict[str, bytes]] = []

    def look(record: EpochRecord) -> None:
        seen.append({k: v for k, v in listing(tmp_path / "run").items() if k in old})
        promptot.load(tmp_path / "run", small_backbone(fit))

    fit("optim.lr=0.03", overwrite=True, listener=Listener(on_epoch=look))
    assert seen == [old] * 3
    new = listing(tmp_path / "run")
    assert new.keys() == old.keys()
    assert new["adapter/prompts.safetensors"] != old["adapter/prompts.safetensors"]


def small_backbone(fit: Callable[..., promptot.Run]) -> Backbone:
    closure = dict(zip(fit.__code__.co_freevars, fit.__closure__ or (), strict=True))
    return closure["small"].cell_contents


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("optim.lr=1e38", "optim.warmup_epochs=0"), "not finite|beyond"),
        (("optim.batch_size=1000000000",), "memory"),
        (("prompts.init_words=a",), "token"),
    ],
)
def test_a_new_run_that_fails_costs_nothing(
    fit: Callable[..., promptot.Run],
    tmp_path: Path,
    overrides: tuple[str, ...],
    message: str,
) -> None:
    fit()
    (tmp_path / "run" / "report.html").write_text("mine")
    old = listing(tmp_path / "run")
    with pytest.raises(PromptotError, match=message):
        fit(*overrides, overwrite=True)
    assert listing(tmp_path / "run") == old


def test_an_interrupted_replacement_goes_on_or_is_begun_anew(
    fit: Callable[..., promptot.Run], tmp_path: Path
) -> None:
    fit()
    old = listing(tmp_path / "run")
    changed = "optim.lr=0.03"
    with pytest.raises(KeyboardInterrupt):
        fit(changed, overwrite=True, listener=stop_at(2))
    assert {k: v for k, v in listing(tmp_path / "run").items() if k in old} == old
    with pytest.raises(PromptotError, match="a run, and an interrupted one that is to replace it"):
        fit(changed)
    with pytest.raises(PromptotError, match="started with something else"):
        fit(resume=True)
    fit(changed, resume=True)
    fit(changed, out="whole")
    name = "adapter/prompts.safetensors"
    assert listing(tmp_path / "run")[name] == listing(tmp_path / "whole")[name]
    assert not (tmp_path / "run" / NEXT).exists()

    with pytest.raises(KeyboardInterrupt):
        fit(overwrite=True, listener=stop_at(1))
    fit(overwrite=True)
    assert listing(tmp_path / "run")[name] == old[name]
    assert fit(resume=True).was_complete


def test_a_finished_run_that_waits_takes_its_place(
    fit: Callable[..., promptot.Run], tmp_path: Path
) -> None:
    """As after a kill between the last move of one file and the first of another."""
    fit()
    fit("optim.lr=0.03", out="new")
    new = listing(tmp_path / "new")
    shutil.move(tmp_path / "new", tmp_path / "run" / FINISHED)
    assert fit("optim.lr=0.03", resume=True).was_complete
    assert listing(tmp_path / "run") == new


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("recipe", ["promptsrc", "prompt-ot-queue"])
def test_an_epoch_goes_on_where_it_was_left(
    fit: Callable[..., promptot.Run], tmp_path: Path, recipe: str, step: int
) -> None:
    options = {"recipe": recipe, "report": False}
    if recipe == "promptsrc":
        options["overrides_"] = "data.templates=one"
    more = [options.pop("overrides_")] if "overrides_" in options else []
    with pytest.raises(KeyboardInterrupt):
        fit(*more, listener=stop_at(0, step), **options)
    state = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert (state.epoch, state.step, len(state.records)) == (0, step, step)
    with pytest.raises(KeyboardInterrupt):
        fit(*more, listener=stop_at(1, step), resume=True, **options)
    resumed = fit(*more, resume=True, **options)
    whole = fit(*more, out="whole", **options)
    name = "adapter/prompts.safetensors"
    assert listing(tmp_path / "run")[name] == listing(tmp_path / "whole")[name]
    assert repr(resumed.log.steps) == repr(whole.log.steps)
    assert (tmp_path / "run/steps.csv").read_bytes() == (tmp_path / "whole/steps.csv").read_bytes()


def test_a_run_stopped_before_its_first_step_leaves_nothing(
    fit: Callable[..., promptot.Run], tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(listener=Listener(on_start=stop))
    assert not (tmp_path / "run").exists()


def test_a_run_killed_before_its_first_epoch_starts_again_with_resume(
    fit: Callable[..., promptot.Run], tmp_path: Path
) -> None:
    fit(out="whole")
    (tmp_path / "run").mkdir()
    shutil.copy(tmp_path / "whole" / "manifest.json", tmp_path / "run")
    (tmp_path / "run" / temporary_name(".csv")).write_text("half")
    with pytest.raises(PromptotError, match="an interrupted run. Go on with it"):
        fit()
    fit(resume=True)
    assert listing(tmp_path / "run").keys() == listing(tmp_path / "whole").keys()


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_that_may_not_grow(fit: Callable[..., promptot.Run], tmp_path: Path) -> None:
    fit()
    old = listing(tmp_path / "run")
    with limited_files(6000), pytest.raises(PromptotError, match="Can't write .*File too large"):
        fit(overwrite=True)
    assert listing(tmp_path / "run") == old
    with pytest.raises(KeyboardInterrupt):
        fit(out="cut", listener=stop_at(1))
    with limited_files(6000), pytest.raises(PromptotError, match="Can't write"):
        fit(out="cut", resume=True)
    fit(out="cut", resume=True)
    name = "adapter/prompts.safetensors"
    assert listing(tmp_path / "cut")[name] == old[name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(fit: Callable[..., promptot.Run], small_disk: Path) -> None:
    """Each size of what is left over is tried: somewhere in it, every file hits the end."""
    expected = listing_of(fit, "disk/run")
    for free in range(5, 65, 12):
        shutil.rmtree(small_disk / "run")
        filler = small_disk / "filler"
        filler.write_bytes(b"\0" * (1024 * (200 - free)))
        try:
            fit(out="disk/run")
        except PromptotError as error:
            assert "No space left on the disk" in str(error)  # noqa: PT017
        filler.unlink()
        left = {path.name for path in (small_disk / "run").glob(".partial-*")}
        assert not left
        try:
            fit(out="disk/run", resume=True)
        except PromptotError as error:
            if "nothing to resume" in str(error):
                fit(out="disk/run")
        found = listing(small_disk / "run")
        assert found["adapter/prompts.safetensors"] == expected


def listing_of(fit: Callable[..., promptot.Run], out: str) -> bytes:
    return (fit(out=out).folder / "adapter" / "prompts.safetensors").read_bytes()


@contextmanager
def without_rights() -> Iterator[None]:
    """Be nobody for a while, where this is root, who may write anywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_that_may_not_be_written_to(
    fit: Callable[..., promptot.Run], few_photos: Path
) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copytree(few_photos, place / "photos")
        shutil.copytree(fit().folder, place / "run")
        with pytest.raises(KeyboardInterrupt):
            fit(out=place / "cut", data=place / "photos", listener=stop_at(1))
        old = listing(place)
        for folder in ("run", "cut"):
            (place / folder).chmod(0o555)
        with without_rights():
            for options in ({"out": "new"}, {"out": "run", "overwrite": True},
                            {"out": "cut", "resume": True}):  # fmt: skip
                options["out"] = place / options["out"]
                with pytest.raises(PromptotError, match="Can't write .*Permission denied"):
                    fit(data=place / "photos", **options)
        assert listing(place) == old
        (place / "cut").chmod(0o755)
        fit(out=place / "cut", data=place / "photos", resume=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_vanishes_while_training(
    fit: Callable[..., promptot.Run],
    few_photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    """It is an error with its name; put back, the run goes on to the same bits."""
    data = tmp_path / "photos"
    shutil.copytree(few_photos, data)
    whole = listing_of(lambda out: fit(data=data, out=out, report=False), "whole")
    loader = batches.ImageLoader
    monkeypatch.setattr(
        batches, "ImageLoader", lambda *a, **k: loader(*a, **({"cache_bytes": 0} | k))
    )

    def vanish(record: EpochRecord) -> None:
        if record.epoch == 1:
            shutil.move(data, tmp_path / "away")

    with pytest.raises(PromptotError, match="photos.*there is no such file.*Put it back"):
        fit(data=data, workers=workers, listener=Listener(on_epoch=vanish))
    shutil.move(tmp_path / "away", data)
    fit(data=data, resume=True, workers=workers, report=False)
    assert (tmp_path / "run/adapter/prompts.safetensors").read_bytes() == whole


def test_a_loading_process_that_dies(fit: Callable[..., promptot.Run], tmp_path: Path) -> None:
    def kill(record: EpochRecord) -> None:
        if record.epoch == 1:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(PromptotError, match="process that loads images has died.*--workers"):
        fit(workers=2, listener=Listener(on_epoch=kill))
    fit(resume=True, report=False)
    whole = listing_of(lambda out: fit(out=out, report=False), "whole")
    assert (tmp_path / "run/adapter/prompts.safetensors").read_bytes() == whole
