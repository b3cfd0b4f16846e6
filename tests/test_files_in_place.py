"""What is not a plain new file: links, devices, pipes, folders, files with rights of their own."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from promptot.errors import CannotWrite, PromptotError
from promptot.files.writing import (
    atomic_write,
    check_replaceable,
    output_folder,
    write_bytes,
    write_text,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    before = Path("/dev/null").lstat()
    for place in (Path("/dev/null"), _link(tmp_path / "link", Path("/dev/null"))):
        write_text(place, "gone")
    after = Path("/dev/null").lstat()
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


@pytest.mark.skipif(sys.platform != "linux", reason="a device of Linux")
def test_a_full_device_is_a_full_disk() -> None:
    with pytest.raises(CannotWrite, match="No space left on the disk while writing '/dev/full'"):
        write_text("/dev/full", "x" * 100_000)
    assert stat.S_ISCHR(Path("/dev/full").lstat().st_mode)


def test_a_pipe_gets_it_all(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_bytes(tmp_path / "pipe", b"0123456789" * 100_000)  # more than a pipe holds
    reader.join(10)
    assert found == [b"0123456789" * 100_000]
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


def test_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    with (
        pytest.raises(PromptotError, match="Nobody reads the pipe"),
        atomic_write(tmp_path / "pipe", pipe_seconds=0.1) as temporary,
    ):
        temporary.write_text("x")
    assert time.monotonic() - began < 5
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


def test_folders_sockets_and_disks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(PromptotError, match="it is a folder"):
        write_text(tmp_path / "folder", "x")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's name must be short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        with pytest.raises(PromptotError, match="it is a socket"):
            write_text(tmp_path / "socket", "x")
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "socket"}
    if sys.platform == "linux" and os.geteuid() == 0:
        try:
            os.mknod(tmp_path / "disk", 0o600 | stat.S_IFBLK, os.makedev(7, 0))
        except PermissionError:
            return
        with pytest.raises(PromptotError, match="it is a disk"):
            write_text(tmp_path / "disk", "x")
        assert stat.S_ISBLK((tmp_path / "disk").lstat().st_mode)


def _link(path: Path, target: Path | str) -> Path:
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("there", [True, False])
def test_where_a_link_leads_is_written_and_the_link_stays(tmp_path: Path, there: bool) -> None:
    (tmp_path / "disk").mkdir()
    real = tmp_path / "disk" / "real.json"
    if there:
        write_text(real, "old")
    _link(tmp_path / "second", "disk/real.json")
    _link(tmp_path / "first", "second")
    write_text(tmp_path / "first", "new")
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert not real.is_symlink()
    assert real.read_text() == "new"
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {"real.json"}


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    _link(tmp_path / "loop", "loop")
    with pytest.raises(PromptotError, match="Can't write"):
        write_text(tmp_path / "loop", "x")
    assert (tmp_path / "loop").is_symlink()


def test_rights_stay_and_another_hard_link_keeps_the_old_content(tmp_path: Path) -> None:
    place, other = tmp_path / "a.txt", tmp_path / "b.txt"
    write_text(place, "old")
    umask = os.umask(0)
    os.umask(umask)
    assert place.stat().st_mode & 0o777 == 0o666 & ~umask
    os.link(place, other)
    for mode in (0o600, 0o640, 0o755):
        place.chmod(mode)
        write_text(place, "new")
        assert place.stat().st_mode & 0o777 == mode
    assert other.read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="owners")
def test_the_owner_stays(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may write for others")
    write_text(tmp_path / "a.txt", "old")
    os.chown(tmp_path / "a.txt", 1234, 1234)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").stat().st_uid == 1234


def test_a_file_that_may_not_be_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "a.txt", "old")
    (tmp_path / "a.txt").chmod(0o444)
    if os.geteuid() == 0:  # who may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(CannotWrite, match="Permission denied"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("to", ["a pipe", "a file"])
def test_json_to_standard_output(tmp_path: Path, to: str) -> None:
    """Nothing that was printed before is lost, and the file is not replaced."""
    command = [sys.executable, "-m", "promptot", "recipes", "ivlp", "--json", "/dev/stdout"]
    if to == "a pipe":
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        place = tmp_path / "out.txt"
        with place.open("a") as file:
            before = place.stat().st_ino
            subprocess.run(command, stdout=file, check=True)
        assert place.stat().st_ino == before
        text = place.read_text()
    assert json.loads(text[text.index("{\n") :])["name"] == "ivlp"
    assert "optim.lr" in text[: text.index("{\n")]


# Folders


@pytest.mark.parametrize("place", [".", "..", "/", "here/../.", "link"])
def test_a_folder_that_somebody_stands_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "here").mkdir()
    _link(tmp_path / "here" / "link", tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "here").mkdir()
    with pytest.raises(PromptotError, match="the folder you are in, and would be replaced"):
        check_replaceable(Path(place))


def test_a_folder_that_is_read_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(PromptotError, match="a folder that is read"):
            check_replaceable(folder, tmp_path / "a" / "b")
    check_replaceable(tmp_path / "a" / "b" / "c", tmp_path / "a" / "b")
    check_replaceable(tmp_path / "a" / "bb", tmp_path / "a" / "b")


MAKE: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text(""),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to a file": lambda path: path.symlink_to(__file__),
}


@pytest.mark.parametrize("what", MAKE)
def test_no_folder_can_be_there(tmp_path: Path, what: str) -> None:
    MAKE[what](tmp_path / "out")
    for place in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(PromptotError, match="is a file|is a link to nothing"):
            output_folder(place)
    assert output_folder(tmp_path / "new" / "deeper") == tmp_path / "new" / "deeper"
