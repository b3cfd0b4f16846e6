"""Clumsy and hostile input: a clear error, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Fails = Callable[..., str]
FIT = ("fit", "photos", "--out", "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "none", "--out", "out"), "'none' does not exist"),
        (("fit", "empty", "--out", "out"), "holds no class folders with images"),
        (("fit", "photos/red/0.png", "--out", "out"), "is a file, not a folder"),
        (("fit", "photos/red", "--out", "out"), "holds 4 images but no class folders"),
        (("fit", "photos", "--out", "note.txt"), "'note.txt' is a file"),
        (("fit", "photos", "--out", "note.txt/run"), "'note.txt' is a file"),
        (("fit", "photos", "--out", "photos"), "lies in the image folder"),
        (("fit", "photos", "--out", "photos/runs/1"), "lies in the image folder"),
        (("fit", "photos", "--out", "run"), "already holds a run. Replace it (--overwrite), or"),
        (("fit", "photos", "--out", "run", "--resume"), "is complete"),
        ((*FIT, "--resume"), "nothing to resume in 'out'"),
        ((*FIT, "--resume", "--overwrite"), "exclude each other"),
        ((*FIT, "--recipe", "promt-ot"), "No recipe 'promt-ot'. Did you mean 'prompt-ot'?"),
        ((*FIT, "--set", "optim.lrr=1"), "Unknown recipe key 'optim.lrr'. Did you mean 'optim.lr'"),
        ((*FIT, "--set", "optim.lr"), "not of the form key=value"),
        ((*FIT, "--set", "optim.lr=fast"), "'optim.lr' is 'fast'; it should be a valid number"),
        ((*FIT, "--set", "prompts.vision_tokens=2000"), "less than or equal to 1024"),
        ((*FIT, "--set", "data.template=[/] {} {}"), "The template '[/] {} {}' must hold"),
        ((*FIT, "--backbone", "bundled:tny"), "Did you mean 'tiny'"),
        ((*FIT, "--backbone", "tiny"), "Unknown backbone 'tiny'"),
        ((*FIT, "--backbone", "openai:none.pt"), "no file 'none.pt'"),
        ((*FIT, "--backbone", "openai:photos/red/0.png"), "not a state dict"),
        ((*FIT, "--device", "gpu"), "Unknown device 'gpu'. Did you mean 'cpu'"),
        ((*FIT, "--device", "cuda:99"), "no device 'cuda:99'. Use --device cpu"),
        (("evaluate", "none", "photos"), "no adapter in 'none'"),
        (("evaluate", "run", "none"), "'none' does not exist"),
        (("info", "photos"), "no adapter in 'photos'"),
        (("recipes", "promt-ot"), "Did you mean 'prompt-ot'?"),
        (("predict", "none", "photos/red/0.png"), "no adapter in 'none'"),
        (("predict", "run", "empty"), "There is no image in 'empty'"),
        (("predict", "run", "photos/*.jpg"), "No file matches 'photos/*.jpg'"),
        (("predict", "run", "photos/red/0.png", "--classes", ""), "holds an empty name"),
        (("predict", "run", "photos/red/0.png", "--classes", "a,,b"), "holds an empty name"),
        (("predict", "run", "photos/red/0.png", "--classes", "a,A"), "'A' comes twice"),
        (("predict", "run", "photos/red/0.png", "--classes", "word " * 90), "tokens"),
    ],
)
def test_a_mistake_is_one_clear_error(
    fails: Fails, trained: Path, arguments: tuple[str, ...], message: str
) -> None:
    Path("empty").mkdir()
    Path("note.txt").write_text("mine")
    before = sorted(Path().rglob("*"))
    assert message in fails(*arguments)
    assert sorted(Path().rglob("*")) == before
    assert Path("note.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("red", "RED"), "comes twice"),
        (("green_apple", "green apple"), "'green apple' comes twice"),
        (("_", "blue"), "has an empty class name"),
        (("1" * 90, "blue"), "tokens"),
    ],
)
def test_class_names_that_cannot_work(
    fails: Fails, classes: Callable[..., Path], quick: list[str], tmp_path: Path,
    labels: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    if len({label.casefold() for label in labels}) < 2 and sys.platform in ("darwin", "win32"):
        pytest.skip("this file system ignores case")
    data = classes("photos", labels)
    assert message in fails("fit", data, "--out", tmp_path / "run", *quick)
    assert not (tmp_path / "run").exists()


def test_a_run_that_learnt_nothing_leaves_nothing(
    run, fails: Fails, trained: Path, quick: list[str]
) -> None:
    wild = (
        "--set",
        "optim.lr=1e30",
        "--set",
        "optim.warmup_epochs=0",
        "--set",
        "optim.batch_size=1",
    )
    assert "ower" in fails("fit", "photos", "--out", "out", *quick, *wild)
    assert not Path("out").exists()
    assert "1 token" in fails(
        "fit", "photos", "--out", "two", *quick, "--set", "prompts.init_words=photo"
    )
    assert not Path("two").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids such file names")
def test_names_that_a_terminal_would_obey(
    run, classes: Callable[..., Path], quick: list[str], tmp_path: Path
) -> None:
    labels = ("[red]x[", "[bold]", "a\nb", "émoji 🐼", "\u202eabc", "\x1b[31mred", "{}", "!!!")
    data = classes("odd [/] photos", labels, images=3)
    (data / "[bold]" / "bad [red]\x1b[2J.png").write_bytes(b"no image")
    out = tmp_path / "run [x] é"
    shown = [
        run("fit", data, "--out", out, *quick, "--shots", "9"),
        run("evaluate", out, data, "--device", "cpu"),
        run("predict", out, data, "-k", "8", "--device", "cpu"),
        run("info", out),
    ]
    for result in shown:
        assert result.code == 0, result
        assert not {"\x1b", "\u202e"} & set(result.out + result.err)
    assert "bad [red]" in shown[0].out
    assert "[red]x[" in shown[2].out
    assert "émoji 🐼" in shown[3].out
    card = json.loads((out / "adapter" / "card.json").read_text(encoding="utf-8"))
    assert "a b" in card["class_names"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_file_names_that_are_no_text(run, fails: Fails, trained: Path, quick: list[str]) -> None:
    folder = os.fsdecode(b"photos/r\xff")
    Path("photos/red").rename(folder)
    assert "is not valid text" in fails("fit", "photos", "--out", "out", *quick)
    Path(folder).rename("photos/red")
    for image in Path("photos/red").iterdir():
        image.rename(image.with_name(os.fsdecode(b"\xff") + image.name))
    assert run("fit", "photos", "--out", "out", *quick).code == 0
    assert len(json.loads(Path("out/manifest.json").read_text())["task"]["shots"]) == 6
    assert run("predict", "out", "photos", "--json", "found.json").code == 0
    assert run("predict", "out", "photos", "-f", "jsonl").code == 0


def test_unreadable_images_are_named_and_the_run_goes_on(
    run, trained: Path, quick: list[str]
) -> None:
    Path("photos/red/0.png").write_bytes(b"text")
    Path("photos/red/1.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save("photos/red/2.png")
    result = run("fit", "photos", "--out", "out", *quick, "--shots", "4")
    assert result.code == 0
    text = " ".join(result.out.split())
    assert "Left out 2 images" in text
    assert "0.png': it holds text, not an image" in text
    assert "1.png': the file is empty" in text


def test_a_test_folder_without_a_readable_image_costs_no_adapter(
    run, fails: Fails, trained: Path, quick: list[str]
) -> None:
    shutil.copytree("photos", "data/train")
    shutil.copytree("photos", "data/test")
    for image in Path("data/test").rglob("*.png"):
        image.write_bytes(b"")
    result = run("fit", "data", "--out", "out", *quick)
    assert result.code == 0
    assert "Left out 12 images" in result.out
    assert "No image was left for a test" in result.out
    assert Path("out/adapter/card.json").is_file()
    assert "None of the 12 images" in fails("evaluate", "out", "data")


def test_overwriting_spares_what_no_run_has_written(
    fails: Fails, trained: Path, classes: Callable[..., Path], quick: list[str]
) -> None:
    other = classes("other", ("adapter", "blue"))
    arguments = ("--out", other, "--overwrite", *quick)
    assert "holds other files than an adapter" in fails("fit", "photos", *arguments)
    assert "lies in the image folder" in fails("fit", other, *arguments)
    assert len(list(other.rglob("*.png"))) == 8


def test_what_was_trained_on_is_known_wherever_it_lies(
    run, trained: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def left_out(*arguments: object) -> int | None:
        result = run("evaluate", *arguments, "--json", "-")
        assert result.code == 0, result
        return json.loads(result.out)["left_out"]

    assert run("fit", "photos", "--out", "relative", *quick).code == 0
    monkeypatch.chdir("photos")
    assert left_out("../relative", ".") == 6
    monkeypatch.chdir("..")
    Path("moved").mkdir()
    shutil.move("relative", "moved/run")
    shutil.move("photos", "pictures")
    assert left_out("moved/run", "pictures") == 6
    Path("moved/run/manifest.json").unlink()
    assert left_out("moved/run", "pictures") is None
    assert "no manifest" in run("evaluate", "moved/run", "pictures").out


@pytest.mark.parametrize("text", ["{", "[]", '{"task": {"shots": [1]}}', "\x00"])
def test_a_damaged_manifest_is_not_guessed_around(fails: Fails, trained: Path, text: str) -> None:
    Path("run/manifest.json").write_text(text)
    assert "manifest.json' is damaged" in fails("evaluate", "run", "photos")


def test_an_adapter_of_another_backbone(fails: Fails, trained: Path) -> None:
    arguments = ("run", "photos/red/0.png", "--backbone", "bundled:tiny")
    assert "was trained in" in fails("predict", *arguments)


def test_only_unreadable_images_is_an_error(run, trained: Path) -> None:
    result = run("predict", "run", "none.png", os.devnull)
    assert result.code == 1
    assert "there is no such file" in " ".join(result.out.split())
    assert "None of the images could be read" in result.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /proc")
def test_a_place_that_cannot_be_written_to(fails: Fails, trained: Path, quick: list[str]) -> None:
    assert "Can't write '/proc/run/" in fails("fit", "photos", "--out", "/proc/run", *quick)


def test_a_full_disk_keeps_the_last_checkpoint(
    run, fails: Fails, trained: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(handle: int) -> None:
        if b'"epoch":"3"' in os.pread(handle, 2**16, 0):
            raise OSError(28, "No space left on device")
        sync(handle)

    arguments = ("fit", "photos", "--out", "out", *quick, "--set", "optim.epochs=4")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert "No space left on the disk" in fails(*arguments)
    names = {path.name for path in Path("out").iterdir()}
    assert names == {"checkpoint.safetensors", "manifest.json", "steps.csv", "epochs.csv"}
    assert "holds an interrupted run. Go on with it (--resume)" in fails(*arguments)
    resumed = run(*arguments, "--resume")
    assert resumed.code == 0
    assert "Going on after epoch 2 of 4" in resumed.err
    assert not Path("out/checkpoint.safetensors").exists()
