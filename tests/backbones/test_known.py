"""A card may not make anybody load or download what they have not asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.backbones import by_name as load
from promptot.backbones import trusted as known
from promptot.errors import UnaskedBackbone
from promptot.runs.adapter import save_adapter
from promptot.runs.card import CARD

NAMES = ("cat", "dog")
STATE = ("PROMPTOT_STATE", "XDG_STATE_HOME", "LOCALAPPDATA")


class Stop(Exception):  # noqa: N818 - what a loader does here
    pass


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody who has loaded nothing yet."""
    folder = tmp_path / "state"
    monkeypatch.setenv("PROMPTOT_STATE", str(folder))
    return folder


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What loaders were asked for; nothing is really loaded."""
    asked: list[str] = []

    def source(name: str) -> load.Source:
        def refuse(rest: str) -> Backbone:
            asked.append(f"{name}:{rest}")
            raise Stop

        return load.Source("", "", refuse)

    for name in load.SOURCES:
        monkeypatch.setitem(load.SOURCES, name, source(name))
    return asked


@pytest.fixture
def adapter(backbone: Backbone, tmp_path: Path) -> Callable[[str], Path]:
    """An adapter of somebody else, whose card names what we are told."""

    def make(name: str) -> Path:
        folder = tmp_path / "foreign"
        save_adapter(folder, None, backbone, NAMES, "a photo of a {}.")
        card = json.loads((folder / CARD).read_text())
        card["backbone"]["name"] = name
        (folder / CARD).write_text(json.dumps(card))
        return folder

    return make


FOREIGN = [
    "openai:evil.pt", "openai:/tmp/evil.pt", "hf:user/evil", "hf:evil", "hf:/tmp/evil",
    "open_clip:local-dir:evil", "open_clip:local-dir:/tmp/evil", "open_clip:ViT-B-16/no-such-tag",
    "open_clip:hf-hub:user/evil", "hf:\\\\evil.example\\share", "hf://evil.example/share",
    "openai:\x00", "hf:" + "x" * 5000, "open_clip:", "hf:",
]  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_card_names_is_not_loaded(
    adapter: Callable[[str], Path], loaded: list[str], name: str
) -> None:
    with pytest.raises(UnaskedBackbone, match="not loaded on this machine") as error:
        promptot.load(adapter(name))
    assert f"backbone={name!r}" in str(error.value)
    assert loaded == []


def test_naming_it_loads_it(adapter: Callable[[str], Path], loaded: list[str]) -> None:
    with pytest.raises(Stop):
        promptot.load(adapter("hf:user/evil"), backbone="hf:user/evil")
    assert loaded == ["hf:user/evil"]


def test_bundled_models_need_no_naming(tmp_path: Path, state: Path) -> None:
    folder = tmp_path / "run"
    save_adapter(folder, None, load_backbone(), NAMES, "a photo of a {}.")
    assert promptot.load(folder).class_names == NAMES
    assert not state.exists()


def test_who_has_loaded_it_by_name_is_not_asked_again(
    clip_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    """As after `fit`; a relative name means the same file, and not another one."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "clip.safetensors").write_bytes(clip_file.read_bytes())
    (tmp_path / "there" / "clip.safetensors").write_bytes(clip_file.read_bytes())
    monkeypatch.chdir(tmp_path / "here")
    own = load_backbone("openai:clip.safetensors")
    save_adapter(tmp_path / "run", None, own, NAMES, "a photo of a {}.")
    assert promptot.load(tmp_path / "run").class_names == NAMES
    monkeypatch.chdir(tmp_path / "there")  # where an archive may have put another file
    with pytest.raises(UnaskedBackbone):
        promptot.load(tmp_path / "run")
    assert promptot.load(tmp_path / "run", "openai:../here/clip.safetensors").class_names == NAMES
    for note in state.rglob("*"):
        note.unlink() if note.is_file() else None
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UnaskedBackbone):
        promptot.load(tmp_path / "run")


def test_a_local_folder_does_not_pass_for_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.note("hf:openai/clip-vit-base-patch16")
    known.check_named("hf:openai/clip-vit-base-patch16")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai" / "clip-vit-base-patch16").mkdir(parents=True)
    with pytest.raises(UnaskedBackbone):
        known.check_named("hf:openai/clip-vit-base-patch16")


def test_what_is_not_loaded_is_not_noted(state: Path) -> None:
    with pytest.raises(promptot.PromptotError):
        load_backbone("openai:none.pt")
    assert not state.exists()


@pytest.mark.parametrize("place", ["/proc/none", "\0"])
def test_no_place_to_note_is_no_error(
    place: str, clip_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in STATE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path(place))
    load_backbone(f"openai:{clip_file}")
    with pytest.raises(UnaskedBackbone):
        known.check_named(f"openai:{clip_file}")


def test_without_a_home_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in STATE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    known.note("hf:a/b")
    with pytest.raises(UnaskedBackbone):
        known.check_named("hf:a/b")


def test_where_it_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PROMPTOT_STATE")
    monkeypatch.setenv(
        "LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME", str(tmp_path)
    )
    known.note("hf:a/b")
    (note,) = (tmp_path / "promptot" / "backbones").iterdir()
    assert json.loads(note.read_text()) == {"backbone": "hf:a/b"}


@pytest.mark.parametrize("variable", ["PROMPTOT_STATE", "XDG_STATE_HOME"])
@pytest.mark.skipif(sys.platform == "win32", reason="variables are POSIX's")
def test_an_archive_can_not_bring_notes_along(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative folder would be looked for in the working directory."""
    monkeypatch.setenv("PROMPTOT_STATE", str(tmp_path / "forged" / "promptot"))
    known.note("hf:user/evil")
    known.check_named("hf:user/evil")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PROMPTOT_STATE")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "forged/promptot" if variable == "PROMPTOT_STATE" else "forged")
    with pytest.raises(UnaskedBackbone):
        known.check_named("hf:user/evil")


@pytest.mark.parametrize(
    "name",
    ["openai:/net/evil/clip.pt", "hf:/net/evil/clip", "hf:../../net/evil", "hf://evil/share/x",
     "open_clip:local-dir://evil/share"],
)  # fmt: skip
def test_places_that_a_card_names_are_not_even_looked_at(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look would reach out where they are mounted by the network."""
    looked: list[str] = []
    monkeypatch.setattr(Path, "exists", lambda path, **more: looked.append(str(path)) or False)
    monkeypatch.setattr(Path, "is_file", lambda path: looked.append(str(path)) or False)
    with pytest.raises(UnaskedBackbone):
        known.check_named(name)
    assert not [path for path in looked if "evil" in path or "net" in path]


@pytest.mark.parametrize("cached", [True, False])
def test_weights_of_open_clip_that_are_here_already(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cached: bool
) -> None:
    """In the Hub's cache, or where open_clip puts what it fetches itself."""
    import huggingface_hub
    from open_clip import pretrained

    asked = []

    def look(repository: str, file: str) -> str | None:
        asked.append(repository)
        return "/cache/file" if cached else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setitem(pretrained._PRETRAINED["ViT-B-16"], "by_hub", {"hf_hub": "a/b/"})
    url = {"url": "https://x.example/models/b.pt", "hf_hub": ""}
    monkeypatch.setitem(pretrained._PRETRAINED["ViT-B-16"], "by_url", url)
    if cached:
        (tmp_path / ".cache" / "clip").mkdir(parents=True)
        (tmp_path / ".cache" / "clip" / "b.pt").write_bytes(b"x")
    for tag in ("by_hub", "by_url"):
        name = f"open_clip:ViT-B-16/{tag}"
        if cached:
            known.check_named(name)
        else:
            with pytest.raises(UnaskedBackbone):
                known.check_named(name)
    assert set(asked) == {"a/b"}


# the commands


def commands(run: Path) -> list[list[str]]:
    return [
        ["predict", f"{run}", f"{run}/a.png"], ["evaluate", f"{run}", f"{run}"],
        ["export", f"{run}", "--out", f"{run}/x"], ["serve", f"{run}", "--port", "0"],
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(4))
def test_a_command_says_which_option_to_add(
    number: int,
    adapter: Callable[[str], Path],
    loaded: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from PIL import Image

    from promptot.cli import main

    run = adapter("hf:user/evil thing")
    Image.new("RGB", (8, 8)).save(run / "a.png")
    with pytest.raises(SystemExit) as stop:
        main(commands(run)[number])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "--backbone 'hf:user/evil thing'" in said
    assert said.count("\n") == 2
    assert loaded == []


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are POSIX's")
@pytest.mark.parametrize(("answer", "loads"), [("y", True), ("", False), ("no", False)])
def test_at_a_terminal_it_asks(
    answer: str, loads: bool, clip_file: Path, backbone: Backbone, tmp_path: Path, state: Path
) -> None:
    import pty
    import time

    from PIL import Image

    save_adapter(tmp_path / "run", None, backbone, NAMES, "a photo of a {}.")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    ours, theirs = pty.openpty()
    source = Path(promptot.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "promptot", "predict", "run", "a.png", "--format", "csv"],
        stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(source)},
    )  # fmt: skip
    os.close(theirs)
    said = ""
    end = time.monotonic() + 60
    while "[y/N]" not in said and time.monotonic() < end:
        said += os.read(ours, 4096).decode()
    assert f"openai:{clip_file}" in said.replace("\r\n", "")
    os.write(ours, f"{answer}\n".encode())
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == (0 if loads else 1)
    assert (b"a.png,1,cat" in out or b"a.png,1,dog" in out) == loads
    assert state.exists() == loads
