"""Connections that never finish what they began, by the hundreds."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from server_process import serving
from test_server import compare

from promptot.serving import connections
from promptot.serving.connections import most_connections, sparing_log

Images = Callable[..., bytes]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits and signals are POSIX's")

UNFINISHED = {
    "nothing": b"",
    "half a header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-",
    "half a body": b"POST /compare HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n",
    "no request at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
}


@pytest.fixture(scope="module")
def few_handles(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that may have 256 files and connections open, as macOS gives them."""
    log = tmp_path_factory.mktemp("log") / "log"
    with serving(run_folder, handles=256, seconds=2.0, log=log) as address:
        yield address
        size = log.stat().st_size
    assert size < 20_000, log.read_text()[:2000]
    assert "Traceback" not in log.read_text()  # whoever leaves early is no failure of the page's


@contextlib.contextmanager
def unfinished(address: str, start: bytes, count: int) -> Iterator[list[socket.socket]]:
    where = (urlsplit(address).hostname, urlsplit(address).port)
    clients: list[socket.socket] = []
    try:
        for _ in range(count):
            client = socket.create_connection(where, timeout=10)
            clients.append(client)
            with contextlib.suppress(OSError):  # the server may have had enough
                client.sendall(start)
        yield clients
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("kind", UNFINISHED)
def test_three_hundred_of_them_hold_nobody_up(
    few_handles: str, make_image: Images, kind: str
) -> None:
    with unfinished(few_handles, UNFINISHED[kind], 300):
        began = time.monotonic()
        for seed in range(3):
            assert compare(few_handles, make_image(seed), timeout=30)[0] == 200
        assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    "start",
    [
        b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"GET /about HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /abou",  # the second one in it
        b"POST /about HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\nx",  # answered
    ],
)  # fmt: skip
def test_they_are_given_up_however_slowly_they_go_on(few_handles: str, start: bytes) -> None:
    with unfinished(few_handles, start, 1) as (client,):
        client.settimeout(0.3)
        began = time.monotonic()
        while time.monotonic() - began < 20:
            try:
                client.sendall(b"X")
                if not client.recv(65536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - began < 10


def test_a_connection_may_be_used_again_and_again(few_handles: str) -> None:
    import http.client

    client = http.client.HTTPConnection(urlsplit(few_handles).netloc, timeout=10)
    client.connect()
    first = client.sock
    for _ in range(5):
        client.request("GET", "/about")
        answer = client.getresponse()
        assert answer.status == 200
        answer.read()
        time.sleep(0.6)  # longer together than what one request may take
    assert client.sock is first
    client.close()


def test_how_many_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    for handles, most in ((resource.RLIM_INFINITY, 512), (1 << 20, 512), (256, 128), (64, 16)):
        monkeypatch.setattr(resource, "getrlimit", lambda what, handles=handles: (handles, handles))
        assert most_connections() == most


def test_a_log_that_is_flooded_stays_short(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("uvicorn.error")
    with sparing_log(seconds=2.0):
        began = time.monotonic()
        for number in range(10_000):
            logger.warning("line %d\x1b[31m", number)
        flooded = time.monotonic() - began
        time.sleep(max(0.0, 2.1 - flooded))
        logger.warning("later")
    assert flooded < 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == connections.LOG_LINES + 1
    assert "No more lines" in said[-2]
    assert "later" in said[-1]
    assert not any("\x1b" in line for line in said)
    logger.warning("not through that handler")
    assert "WARNING:" not in capsys.readouterr().err


def test_a_traceback_is_shown_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    with sparing_log():
        try:
            raise ValueError("\x1b]0;title\x07")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("failed")
    said = capsys.readouterr().err
    assert "\n  File " in said
    assert "\x1b" not in said
    assert "ValueError: \N{REPLACEMENT CHARACTER}]0;title" in said


def test_ctrl_c_is_not_held_up_by_them(
    run_folder: Path, make_image: Images, tmp_path: Path
) -> None:
    clients = []
    log = tmp_path / "log"
    with serving(run_folder, stop=signal.SIGINT, log=log) as address:  # looks at how it ends
        assert compare(address, make_image())[0] == 200
        where = (urlsplit(address).hostname, urlsplit(address).port)
        for kind in ("nothing", "half a header", "no request at all"):
            start = UNFINISHED[kind]
            clients.append(socket.create_connection(where, timeout=10))
            clients[-1].sendall(start)
        began = time.monotonic()
    assert time.monotonic() - began < 8
    for client in clients:
        client.close()
