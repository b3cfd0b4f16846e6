"""Listening: an address, a server, and a clean end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptot.backbones.backbone import Backbone
from promptot.errors import PromptotError
from promptot.runs.classifier import load
from promptot.serving.hosts import is_host, is_loopback

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

FLAGS = "flags.csv"
GRACE = 10  # seconds that running requests get at the end


def serve(
    run: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    allowed_hosts: Sequence[str] = (),
    flags: str | os.PathLike[str] | None = None,
    backbone: Backbone | str | None = None,
    device: str = "auto",
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a page on which a run and the frozen model answer side by side, until a signal comes.

    SIGINT (Ctrl-C) or SIGTERM ends it, and not whoever called it. Called in another thread than the
    main one, it does not hear of them.

    Args:
        run: a run folder that `fit` wrote, its adapter folder, or "hf-hub:user/name".
        host: the address to listen at; any but a loopback address lets other machines in.
        port: 0 for any that is free.
        allowed_hosts: names of this machine that the page answers to, beside `localhost` and, where
            other machines are let in, addresses and its own host name.
        flags: the CSV file for flagged mistakes; by default `flags.csv` in the run folder, or in
            the working directory where the run is no folder.
        backbone, device: see `promptot.load`.
        on_ready: called with the page's address once it can be opened.

    Raises:
        PromptotError: a library is missing, there is no adapter, or the address can't be had.

    Example:
        >>> import promptot
        >>> promptot.serve("runs/photos", on_ready=print)  # doctest: +SKIP
        http://127.0.0.1:8765/
    """
    _need_libraries()
    from promptot.serving.comparing import Comparer
    from promptot.serving.connections import sparing_log
    from promptot.serving.flags import FlagFile
    from promptot.serving.web_app import create_app

    for name in allowed_hosts:
        if not is_host(name):
            raise PromptotError(
                f"'{name}' is no host name.",
                fix="Write it like photos.example.org, without http:// and without a port.",
            )
    comparer = Comparer(load(run, backbone, device))
    folder = Path(run)
    flag_file = FlagFile(Path(flags or (folder / FLAGS if folder.is_dir() else FLAGS)))
    flag_file.check()
    app = create_app(
        comparer,
        flag_file,
        title=folder.resolve().name if folder.exists() else os.fspath(run),
        loopback_only=is_loopback(host),
        allowed_hosts=(*allowed_hosts, host),
    )
    with listen(host, port) as listener, sparing_log():
        on_ready(address_of(listener))
        try:
            page_server(app).run(sockets=[listener])
        finally:
            app.state.stop()


def page_server(app: Starlette) -> uvicorn.Server:
    """The server of an application; its `run` takes sockets that listen."""
    from uvicorn import Config

    from promptot.serving.connections import ACCEPTED_TOGETHER, Connection, Server

    config = Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        backlog=ACCEPTED_TOGETHER,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE,
        lifespan="on",
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        PromptotError: the name is unknown, or the port is taken or not allowed.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PromptotError(
            f"'{host}' is no address of this machine ({error.strerror}).",
            fix="Leave --host out to serve this machine only.",
        ) from error
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=512, dualstack_ipv6=both)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise PromptotError(
            f"Can't listen at {host}:{port} ({reason}).",
            fix="Choose another port (--port 0 takes any that is free).",
        ) from error


def address_of(listener: socket.socket) -> str:
    """The address of the page for a browser."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _need_libraries() -> None:
    try:
        import python_multipart  # noqa: F401 - starlette reads forms with it
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise PromptotError(
            f"The page needs {error.name}.", fix="pip install 'promptot[serve]'"
        ) from error
