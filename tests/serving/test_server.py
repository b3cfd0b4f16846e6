"""The command as a process: where it listens, how many it serves, how it ends."""

from __future__ import annotations

import http.client
import io
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from server_process import serving

from promptot.errors import PromptotError
from promptot.serving.server import listen

Images = Callable[..., bytes]


def compare(address: str, image: bytes, timeout: float = 120) -> tuple[int, dict]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=timeout)
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body += image + b"\r\n--b--\r\n"
    try:
        connection.request(
            "POST", "/compare", body, {"Content-Type": "multipart/form-data; boundary=b"}
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_hundred_requests_at_once_are_all_answered(live: str, make_image: Images) -> None:
    images = [make_image(seed) for seed in range(10)]
    alone = [compare(live, image) for image in images]
    assert {status for status, _ in alone} == {200}
    barrier = threading.Barrier(100)

    def at_once(number: int) -> tuple[int, dict]:
        barrier.wait(30)
        return compare(live, images[number % 10])

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(at_once, range(100)))
    assert [answer == alone[i % 10] for i, answer in enumerate(answers)] == [True] * 100


def test_other_addresses_of_this_machine_are_closed(live: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent; it only chooses an address
            address = probe.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no address but loopback")
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    port = urlsplit(live).port
    with socket.socket() as client:
        client.settimeout(5)
        assert client.connect_ex((address, port)) != 0


def test_half_a_request_does_not_hold_up_others(live: str, make_image: Images) -> None:
    where = (urlsplit(live).hostname, urlsplit(live).port)
    idle = [socket.create_connection(where, timeout=10) for _ in range(20)]
    for client in idle:
        client.sendall(b"POST /compare HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n")
    try:
        assert compare(live, make_image())[0] == 200
    finally:
        for client in idle:
            client.close()


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/..%2f..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/app.py",
        "/page/../app.py", "/index.html/../../app.py", "//etc/passwd", "/page.css/../../app.py",
        "/flags.csv", "/.env", "/page.js%00.css", "/..\\..\\app.py", "http://evil.example/app.py",
    ],
)  # fmt: skip
def test_no_path_leads_out(live: str, path: str) -> None:
    where = (urlsplit(live).hostname, urlsplit(live).port)
    with socket.create_connection(where, timeout=10) as client:  # no client tidies the path up
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.split()[1] in (b"404", b"400"), answer[:200]
    assert b"root:" not in answer
    assert b"import" not in answer


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_ends_it_after_what_is_under_way(run_folder: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3000, 3000), "teal").save(file, "PNG")  # and its reader has to start
    with ThreadPoolExecutor(3) as pool:
        with serving(run_folder, stop=signal.SIGINT) as address:  # which looks at how it ends
            asked = [pool.submit(compare, address, file.getvalue()) for _ in range(3)]
            time.sleep(0.3)
            assert not asked[-1].done()
        assert [answer.result()[0] for answer in asked] == [200, 200, 200]
    with pytest.raises(OSError):
        compare(address, file.getvalue(), timeout=2)


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as taken:
        assert taken.getsockname()[0] == "127.0.0.1"
        with pytest.raises(PromptotError, match="Can't listen at.*another port"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(PromptotError, match="no address of this machine"):
        listen("no-such-host.invalid", 0)


@pytest.mark.parametrize(("host", "warns"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_a_warning_where_others_are_let_in(
    capsys: pytest.CaptureFixture[str], host: str, warns: bool
) -> None:
    from promptot.cli import main

    with pytest.raises(SystemExit) as stop:  # after the warning, and before anything is loaded
        main(["serve", "run", "--host", host, "--allow-host", "no name"])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "'no name' is no host name." in said
    assert ("no password" in said) == warns


def test_a_missing_library_says_what_to_install(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from promptot.serving.server import serve

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(PromptotError, match=r"pip install 'promptot\[serve\]'"):
        serve(run_folder)
