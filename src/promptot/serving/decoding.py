"""Images of strangers are decoded in processes of their own, which can be stopped.

A decoder is C code that hears of nothing while it works: no Ctrl-C, no time limit. A process can be
ended whatever it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any

from PIL import Image

from promptot.data.images.read_image import UnreadableImage, load_image

STRIP_BYTES = 1 << 24  # of pixels that are handed over together
START_SECONDS = 60.0
_WORK = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from promptot.serving.decoding import work; work()"
)


class Decoder:
    """Reads images, each in a process that is ended when it takes too long.

    It may be called from several threads at once; there are as many processes as there were calls
    at the same time.

    Args:
        seconds: that one image may take.
        command: what to run as a process; by default `work` below.
    """

    def __init__(self, seconds: float, command: Sequence[str] | None = None) -> None:
        self.seconds = seconds
        own = (sys.executable, "-I", "-c", _WORK, json.dumps(list(map(str, sys.path))))
        self._command = command or own
        self._lock = threading.Lock()
        self._all: set[_Process] = set()
        self._idle: list[_Process] = []
        self._closed = False

    def __call__(self, content: bytes) -> Image.Image:
        """Decode the bytes of an image file, as `load_image` does.

        Raises:
            UnreadableImage: it can't be read, takes too long, or ended the process.
            RuntimeError: no process can be started.
        """
        process = self._take()
        try:
            image = process.decode(content, self.seconds)
        except UnreadableImage:
            self._idle.append(process)
            raise
        except (OSError, EOFError, ValueError) as error:
            started, late = process.started, process.late
            self._end(process)
            if self._closed:
                raise UnreadableImage("image", "the page is being closed") from error
            if not started:
                raise RuntimeError("The process that decodes images did not start.") from error
            reason = "it ended the process that was to decode it"
            reason = f"it takes more than {self.seconds:g} s to decode" if late else reason
            raise UnreadableImage("image", reason) from error
        self._idle.append(process)
        return image

    def close(self) -> None:
        """End all processes, whatever they do."""
        with self._lock:
            self._closed = True
            running = list(self._all)
        for process in running:
            self._end(process)

    def _take(self) -> _Process:
        with self._lock:
            if self._closed:
                raise UnreadableImage("image", "the page is being closed")
            while self._idle:
                process = self._idle.pop()
                if process.alive():
                    return process
                self._all.discard(process)
            process = _Process(self._command)
            self._all.add(process)
            return process

    def _end(self, process: _Process) -> None:
        with self._lock:
            self._all.discard(process)
        process.end()


class _Process:
    """One process, one image at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        alone: dict[str, Any] = {"start_new_session": True}  # Ctrl-C is for the page alone
        if sys.platform == "win32":
            alone = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        pipe = subprocess.PIPE
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, **alone
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.late = False
        self.started = False

    def decode(self, content: bytes, seconds: float) -> Image.Image:
        """The image, or what keeps it from being read.

        Raises:
            UnreadableImage: it can't be read.
            OSError, EOFError, ValueError: the process has ended.
        """
        if not self.started:
            with self._limited(START_SECONDS):
                _read(self._output, 1)
            self.started = True
        with self._limited(seconds):
            self._input.write(struct.pack(">Q", len(content)))
            _send(self._input, content)
            image = _receive(self._output)
        if self.late:  # at the last moment
            raise EOFError
        return image

    @contextlib.contextmanager
    def _limited(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stop(self) -> None:
        self.late = True
        self._process.kill()

    def alive(self) -> bool:
        return not self.late and self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._input, self._output):
            with contextlib.suppress(OSError):  # what was to be written still
                stream.close()


def work() -> None:
    """The process: images from standard input, their pixels to standard output, to the end."""
    source = sys.stdin.buffer
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no pixel
    _send(target, b"+")
    while len(head := source.read(8)) == 8:
        content = source.read(struct.unpack(">Q", head)[0])
        try:
            image = load_image(content, "image")
        except UnreadableImage as error:
            _send(target, f"{json.dumps({'reason': error.reason})}\n".encode())
            continue
        _send(target, f"{json.dumps({'size': image.size})}\n".encode())
        for top, bottom in _strips(*image.size):
            _send(target, image.crop((0, top, image.width, bottom)).tobytes())
        del image, content


def _receive(source: IO[bytes]) -> Image.Image:
    answer = json.loads(source.readline(1 << 16))
    if "reason" in answer:
        raise UnreadableImage("image", str(answer["reason"]))
    width, height = answer["size"]
    image = Image.new("RGB", (width, height))
    for top, bottom in _strips(width, height):
        pixels = _read(source, 3 * width * (bottom - top))
        image.paste(Image.frombytes("RGB", (width, bottom - top), pixels), (0, top))
    return image


def _strips(width: int, height: int) -> list[tuple[int, int]]:
    rows = max(1, STRIP_BYTES // (3 * width))
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def _read(source: IO[bytes], size: int) -> bytes:
    content = source.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _send(target: IO[bytes], content: bytes) -> None:
    target.write(content)
    target.flush()
