"""Names that the page answers to: a web site's own name for this machine is none of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from server_process import serving

from promptot.errors import PromptotError
from promptot.runs.classifier import Classifier
from promptot.serving.comparing import Comparer
from promptot.serving.flags import FlagFile
from promptot.serving.hosts import own_names
from promptot.serving.server import serve
from promptot.serving.web_app import create_app


@pytest.fixture(scope="module")
def open_to_all(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that listens to everybody, and its flags."""
    flags = tmp_path_factory.mktemp("flags") / "flags.csv"
    log = flags.with_name("log")  # a request that is no HTTP is worth a line
    options = ("--host", "0.0.0.0", "--allow-host", "Photos.Example", "--allow-host", "b.example")
    with serving(run_folder, *options, "--flags", str(flags), log=log, warns=True) as address:
        yield urlsplit(address).port or 0


def ask(port: int, request: str, body: bytes = b"") -> int:
    """The status that a raw request gets."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request.replace("\n", "\r\n").encode() + body)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    return int(answer.split()[1])


def get(port: int, host: str, more: str = "") -> int:
    return ask(port, f"GET /about HTTP/1.1\nHost: {host}\n{more}Connection: close\n\n")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:{port}", "127.0.0.1.nip.io", "photos.example.evil.example",
        "xphotos.example", "localhost.evil.example", "", "evil.example.", "0x7f.1.evil.example",
        "[evil.example]", "photos.example@evil.example", "local", "example",
    ],
)  # fmt: skip
def test_a_foreign_name_is_refused(open_to_all: int, host: str) -> None:
    assert get(open_to_all, host.format(port=open_to_all)) in (400, 421)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:{port}", "localhost:{port}", "10.1.2.3:{port}", "[::1]:{port}",
        "[2001:db8::7]", "photos.example", "PHOTOS.example:{port}", "photos.example.", "b.example",
        "{name}:{port}", "{short}.local",
    ],
)  # fmt: skip
def test_addresses_and_own_names_are_answered(open_to_all: int, host: str) -> None:
    name = socket.gethostname()
    host = host.format(port=open_to_all, name=name, short=name.partition(".")[0])
    assert get(open_to_all, host) == 200


def test_a_foreign_origin_is_refused(open_to_all: int) -> None:
    own = f"127.0.0.1:{open_to_all}"
    flag = json.dumps({"image": "a.png"}).encode()
    head = f"POST /flag HTTP/1.1\nHost: {own}\nContent-Length: {len(flag)}\nConnection: close\n"
    for origin in ("http://evil.example", f"http://evil.example:{open_to_all}", "null", "http://["):
        assert ask(open_to_all, f"{head}Origin: {origin}\n\n", flag) == 403
        assert get(open_to_all, own, f"Origin: {origin}\n") == 403
    assert ask(open_to_all, f"{head}Origin: http://{own}\n\n", flag) == 400  # no whole flag
    assert get(open_to_all, own, f"Origin: http://{own}\n") == 200
    rebound = f"evil.example:{open_to_all}"  # both alike, as a rebound name's page would send them
    assert get(open_to_all, rebound, f"Origin: http://{rebound}\n") == 421
    assert ask(open_to_all, f"GET http://{rebound}/about HTTP/1.1\nHost: {rebound}\n\n") == 421


def test_two_hosts_or_none_are_refused(open_to_all: int) -> None:
    end = "Connection: close\n\n"
    assert ask(open_to_all, f"GET / HTTP/1.1\nHost: 127.0.0.1\nHost: evil.example\n{end}") == 400
    assert ask(open_to_all, f"GET / HTTP/1.1\n{end}") == 400
    assert ask(open_to_all, "GET / HTTP/1.0\n\n") == 421


def test_names_can_be_allowed_on_loopback_too(
    classifier: Classifier, tmp_path: Path, in_thread: Callable[..., AbstractContextManager[str]]
) -> None:
    app = create_app(
        Comparer(classifier), FlagFile(tmp_path / "flags.csv"), title="run",
        allowed_hosts=("photos.example",),
    )  # fmt: skip
    with in_thread(app) as address:
        port = urlsplit(address).port or 0
        assert get(port, "photos.example") == 200
        assert get(port, "b.example") == 421
        assert get(port, "10.1.2.3") == 421  # nobody gets here by that address


@pytest.mark.parametrize("name", ["http://photos.example", "photos.example:80", "", "a/b", "a b"])
def test_what_is_no_name_is_not_allowed(run_folder: Path, name: str) -> None:
    with pytest.raises(PromptotError, match="no host name"):
        serve(run_folder, allowed_hosts=(name,), host="nowhere.invalid")


def test_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk.example.org")
    assert own_names() == {"desk.example.org", "desk", "desk.local"}
    monkeypatch.setattr(socket, "gethostname", lambda: "")
    assert own_names() == frozenset()
