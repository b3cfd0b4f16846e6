"""What stands before every route: whom it answers, how much it reads, what browsers may do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from promptot.serving.hosts import host_of, is_ours, normal, own_names

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
        upload_bytes: of a request's body.
        upload_seconds: until the body must have arrived.
        decode_seconds: that reading the image may take.
        answer_seconds: until the models must have answered, waiting for others included.
        waiting: requests that may wait for the models.
    """

    upload_bytes: int = 20 * 2**20
    upload_seconds: float = 60.0
    decode_seconds: float = 20.0
    answer_seconds: float = 120.0
    waiting: int = 128


LIMITS = Limits()


class _Refused(Exception):  # noqa: N818 - what happened to the request
    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status, self.problem = status, problem


class Guard:
    """Middleware: refuses other hosts and other sites, and bodies too large or too slow.

    Args:
        app: what is guarded.
        limits: of a request's body.
        loopback_only: answer only requests that name this machine as their host; else those that
            name an address, or one of this machine's names, too.
        allowed_hosts: host names to answer to as well.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        loopback_only: bool,
        allowed_hosts: Collection[str] = (),
    ) -> None:
        self.app = app
        self.limits = limits
        self.loopback_only = loopback_only
        self.names = frozenset(map(normal, allowed_hosts)) - {""}
        if not loopback_only:
            self.names |= own_names()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._limited(receive), send_guarded)
        except _Refused as refused:
            if started:
                raise
            response = JSONResponse(
                {"problem": refused.problem, "fix": None},
                status_code=refused.status,
                headers={"connection": "close"},  # whatever else was on its way is not read
            )
            await response(scope, receive, send_guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not is_ours(host_of(host), self.names, self.loopback_only):
            raise _Refused(
                421,
                "This page answers to this machine's own names only; whoever runs it can add "
                "others with --allow-host.",
            )
        changes = scope["method"] not in ("GET", "HEAD")
        origin = headers.get("origin")
        own = (f"http://{host}".lower(), f"https://{host}".lower())
        foreign = origin is not None and origin.lower() not in own
        site = headers.get("sec-fetch-site")
        if foreign or (changes and site in ("cross-site", "same-site")):
            raise _Refused(403, "Another site may not ask here.")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise _Refused(400, "The length of the request is no number.")
        if int(length) > self.limits.upload_bytes:
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        """Messages of the body, as long as it stays within the limits."""
        read, complete = 0, False
        deadline = time.monotonic() + self.limits.upload_seconds

        async def limited() -> Message:
            nonlocal read, complete
            if complete:  # what comes now is news of the connection, and may take its time
                return await receive()
            try:
                left = max(0.0, deadline - time.monotonic())
                message = await asyncio.wait_for(receive(), left)
            except TimeoutError:
                raise _Refused(408, "The upload took too long.") from None
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if read > self.limits.upload_bytes:
                    raise self._too_large()
            return message

        return limited

    def _too_large(self) -> _Refused:
        most = self.limits.upload_bytes / 2**20
        return _Refused(413, f"The upload is larger than {most:.3g} MB.")
