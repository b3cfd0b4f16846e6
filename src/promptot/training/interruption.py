"""Ctrl-C and SIGTERM, held back while a step is half taken."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interruptions:
    """Signals are handled at once, but in the parts of the work that must not be cut in two."""

    def __init__(self) -> None:
        self._handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}
        self._holding = False
        self._waiting: list[signal.Signals] = []

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Signals can be held within this, in the main thread; no other ever handles one.

        Those that Python has no handler for end the process, as they do outside.
        """
        try:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    handler = signal.getsignal(number)
                    if callable(handler):
                        self._handlers[number] = handler
                        signal.signal(number, self._handle)
            yield
        finally:
            for number, caught in self._handlers.items():
                signal.signal(number, caught)

    def hold(self) -> None:
        """Keep signals waiting, until `release`."""
        self._holding = True

    def release(self) -> None:
        """Handle the signal that came meanwhile, if one did: this may raise `KeyboardInterrupt`."""
        self._holding = False
        if self._waiting:
            number = self._waiting[0]
            self._waiting.clear()
            self._handlers[number](number, None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """`hold` for the length of this block."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._holding:
            self._waiting.append(signal.Signals(number))
        else:
            self._handlers[signal.Signals(number)](number, frame)
