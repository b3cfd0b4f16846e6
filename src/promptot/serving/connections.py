"""Connections that never finish their request: how long and how many of them are borne."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""From the first moment of a connection, or of a further request in it, to the end of its headers;
and for what a request that is answered already has left to send."""
MOST_CONNECTIONS = 512
SPARE_HANDLES = 128
"""File handles that connections leave to everything else."""
ACCEPTED_TOGETHER = 32
"""Connections taken from the system in one go, before any of them can be judged."""
LOG_LINES, LOG_SECONDS = 20, 60.0


class Server(uvicorn.Server):
    """A server that signals end, and not whoever called it; and whose listeners wait for long."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():  # those that wait in the system need no handle of ours
            listener.listen(MOST_CONNECTIONS)


class Connection(H11Protocol):
    """HTTP/1.1 with an end to waiting for headers, and a place for whoever sends whole requests.

    When there are too many connections, the oldest one goes whose headers are not complete, or else
    the oldest whose body is not; where every one has sent its request, the newcomer goes.
    """

    patience: asyncio.TimerHandle | None = None
    dropped = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.began = time.monotonic()
        self._wait()
        if len(self.connections) > most_connections():
            _oldest_unfinished(self.connections, self).drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.answering():
            self._stop_waiting()
        elif self.patience is None and not self.transport.is_closing():
            self._wait()

    def answering(self) -> bool:
        """Whether the headers of a request are complete, and its answer is not."""
        return self.cycle is not None and not self.cycle.response_complete

    def receiving(self) -> bool:
        """Whether a request's body is on its way."""
        return self.answering() and bool(self.cycle.more_body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # What the client has not sent by now, or not read, may take no longer than headers.
        if self.conn.their_state is h11.SEND_BODY or self.transport.is_closing():
            self._wait()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._wait()

    def drop(self) -> None:
        """End the connection at once."""
        self.dropped = True
        self.transport.abort()

    def _wait(self) -> None:
        self._stop_waiting()
        self.patience = self.loop.call_later(HEADER_SECONDS, self.drop)

    def _stop_waiting(self) -> None:
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None


def _oldest_unfinished(connections: set[Any], newest: Connection) -> Connection:
    known = [one for one in connections if isinstance(one, Connection) and not one.dropped]
    waiting = [one for one in known if one is not newest and not one.answering()]
    receiving = [one for one in known if one.receiving()]
    return min(waiting or receiving or [newest], key=lambda one: one.began)


def most_connections() -> int:
    """How many connections there may be; fewer where the system gives few file handles."""
    if sys.platform == "win32":
        return MOST_CONNECTIONS
    import resource

    handles = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if handles == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(handles - SPARE_HANDLES, handles // 4, 1))


class _Sparing(logging.Filter):
    """Lets `LOG_LINES` lines through in some seconds; says when it lets no more."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self._began, self._count = 0.0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._began > self.seconds:
            self._began, self._count = now, 0
        self._count += 1
        if self._count == LOG_LINES:
            record.msg = f"{record.getMessage()} (No more lines for {self.seconds:.0f} s.)"
            record.args = None
        return self._count <= LOG_LINES


class _Printable(logging.Formatter):
    """Message and traceback, without what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        from promptot.reports.tables import printable

        lines = super().format(record).splitlines()
        indents = [len(line) - len(line.lstrip(" ")) for line in lines]
        return "\n".join(" " * n + printable(line) for n, line in zip(indents, lines, strict=True))


@contextmanager
def sparing_log(seconds: float = LOG_SECONDS) -> Iterator[None]:
    """Warnings and errors of the server, to standard error; `LOG_LINES` in some seconds at most."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Printable("%(levelname)s: %(message)s"))
    handler.addFilter(_Sparing(seconds))
    before = {logger: logger.propagate for logger in map(logging.getLogger, ("uvicorn", "asyncio"))}
    for logger in before:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in before.items():
            logger.removeHandler(handler)
            logger.propagate = propagate
