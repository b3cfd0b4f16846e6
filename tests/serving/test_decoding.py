"""Images that take long, or end their reader, cost their sender an answer, and no one else."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from server_process import serving
from starlette.testclient import TestClient
from test_server import compare

from promptot.data.images.read_image import UnreadableImage, load_image
from promptot.runs.classifier import Classifier
from promptot.serving import decoding
from promptot.serving.comparing import Comparer
from promptot.serving.decoding import Decoder
from promptot.serving.flags import FlagFile
from promptot.serving.web_app import create_app

Images = Callable[..., bytes]

SLOW = """
import sys, time
sys.path[:] = {path!r}
from promptot.serving import decoding
read = decoding.load_image
def slowly(content, name):
    if content == b"stuck":
        while True: pass
    if content == b"dies":
        import os; os._exit(3)
    return read(content, name)
decoding.load_image = slowly
decoding.work()
"""
COMMAND = [sys.executable, "-I", "-c", SLOW.format(path=sys.path)]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_the_pixels_are_those_of_load_image(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
    content = encoded(Image.fromarray(noise).convert(mode))
    decoder = Decoder(20)
    try:
        for _ in range(2):
            found = decoder(content)
            assert found.mode == "RGB"
            assert np.array_equal(np.asarray(found), np.asarray(load_image(content)))
        with pytest.raises(UnreadableImage) as here:
            load_image(b"no image", "image")
        with pytest.raises(UnreadableImage) as there:
            decoder(b"no image")
        assert there.value.reason == here.value.reason
        assert len(decoder._all) == 1
    finally:
        decoder.close()


def test_a_large_image_comes_in_strips() -> None:
    ramp = np.arange(2000 * 3001 * 3, dtype=np.uint32).astype(np.uint8).reshape(2000, 3001, 3)
    decoder = Decoder(60)
    try:
        found = decoder(encoded(Image.fromarray(ramp), "BMP"))
    finally:
        decoder.close()
    assert ramp.nbytes > decoding.STRIP_BYTES
    assert np.array_equal(np.asarray(found), ramp)


def test_what_takes_too_long_is_ended() -> None:
    decoder = Decoder(0.5, COMMAND)
    good = encoded(Image.new("RGB", (9, 7), "red"))
    try:
        assert decoder(good).size == (9, 7)
        began = time.monotonic()
        with pytest.raises(UnreadableImage, match="more than 0.5 s"):
            decoder(b"stuck")
        assert time.monotonic() - began < 5
        with pytest.raises(UnreadableImage, match="ended the process"):
            decoder(b"dies")
        assert decoder(good).size == (9, 7)
        assert len(decoder._all) == 1
    finally:
        decoder.close()
    with pytest.raises(UnreadableImage, match="closed"):
        decoder(good)


def test_a_process_that_does_not_start_is_no_fault_of_the_image() -> None:
    decoder = Decoder(5, [sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(RuntimeError, match="did not start"):
        decoder(b"anything")
    assert not decoder._all


def test_closing_ends_what_is_stuck() -> None:
    decoder = Decoder(60, COMMAND)
    with ThreadPoolExecutor(2) as pool:
        stuck = [pool.submit(decoder, b"stuck") for _ in range(2)]
        while len(decoder._all) < 2:
            time.sleep(0.01)
        processes = list(decoder._all)
        time.sleep(0.3)
        began = time.monotonic()
        decoder.close()
        for answer in stuck:
            with pytest.raises(UnreadableImage):
                answer.result(5)
    assert time.monotonic() - began < 5
    assert all(process._process.poll() is not None for process in processes)


def test_others_are_answered_meanwhile(
    classifier: Classifier, make_image: Images, tmp_path: Path
) -> None:
    flags = FlagFile(tmp_path / "flags.csv")
    page = create_app(Comparer(classifier), flags, title="", decoder=Decoder(4, COMMAND))
    answers = []
    with TestClient(page, base_url="http://127.0.0.1:8765") as client:

        def ask(image: bytes) -> tuple[int, str]:
            answer = client.post("/compare", files={"image": ("a.png", image)})
            return answer.status_code, answer.text

        assert ask(make_image())[0] == 200
        stuck = threading.Thread(target=lambda: answers.append(ask(b"stuck")))
        began = time.monotonic()
        stuck.start()
        time.sleep(0.2)
        assert [ask(make_image(seed))[0] for seed in range(3)] == [200] * 3
        assert client.get("/about").status_code == 200
        assert time.monotonic() - began < 3.5
        assert not answers
        stuck.join(20)
    status, text = answers[0]
    assert status == 400
    assert "more than 4 s to decode" in text


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_ends_a_page_at_work_on_a_heavy_image(
    run_folder: Path, make_image: Images, tmp_path: Path
) -> None:
    """Within the scans that are allowed; its decoding in this process would hold up Ctrl-C."""
    from promptot.data.images.decoding_cost import MOST_SCANNED

    side = 5400
    content = encoded(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    scan = content[start:-2]
    scans = min(100, MOST_SCANNED // side**2) - content.count(b"\xff\xda")
    heavy = content[:start] + scan * scans + b"\xff\xd9"
    with ThreadPoolExecutor(4) as pool:
        log = tmp_path / "log"
        with serving(run_folder, stop=signal.SIGINT, grace=1, log=log) as address:
            assert compare(address, make_image())[0] == 200
            asked = [pool.submit(_compare_or_nothing, address, heavy) for _ in range(4)]
            time.sleep(0.5)
            began = time.monotonic()
        assert time.monotonic() - began < 8
        for answer in asked:
            answer.result(10)


def _compare_or_nothing(address: str, image: bytes) -> int | None:
    try:
        return compare(address, image)[0]
    except (OSError, ValueError):  # the page ended, or said so in plain text
        return None
