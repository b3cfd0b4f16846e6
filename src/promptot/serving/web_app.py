"""The web application behind the page: three files, two questions, and what it refuses."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from promptot.backbones.trusted import shown
from promptot.data.images.read_image import UnreadableImage
from promptot.errors import PromptotError
from promptot.reports.tables import printable
from promptot.serving.comparing import LONGEST_NAME, MOST_NAMES, Comparer, Comparison
from promptot.serving.decoding import Decoder
from promptot.serving.flags import Flag, FlagFile
from promptot.serving.guard import LIMITS, Guard, Limits

logger = logging.getLogger("uvicorn.error")  # which `serve` shows at the terminal
PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All that is read from disk for a request; no path is ever made of what a request says."""
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which is no text


def create_app(
    comparer: Comparer,
    flags: FlagFile,
    *,
    title: str,
    limits: Limits = LIMITS,
    decoder: Decoder | None = None,
    loopback_only: bool = True,
    allowed_hosts: Collection[str] = (),
) -> Starlette:
    """The application.

    `app.state.stop()` ends the processes that decode images, should its lifespan not be ended.

    Args:
        comparer: the two models.
        flags: where flagged mistakes go.
        title: the run's name, for the page.
        limits: see `Limits`.
        decoder: reads the images; by default one that keeps to the limits.
        loopback_only: answer only requests that name this machine as their host, so that no other
            web site can reach the page through a host name of its own; where other machines are
            let in, those that name an address or one of this machine's names too.
        allowed_hosts: host names to answer to as well.
    """
    decoder = decoder or Decoder(limits.decode_seconds)
    service = _Service(comparer, flags, decoder, title, limits)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    files = [Route(path, _file(*file), methods=["GET"]) for path, file in FILES.items()]
    app = Starlette(
        routes=[
            *files,
            Route("/about", service.about, methods=["GET"]),
            Route("/compare", service.compare, methods=["POST"]),
            Route("/flag", service.flag, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, limits, loopback_only, allowed_hosts)],
        exception_handlers=dict.fromkeys(
            (PromptotError, HTTPException, ClientDisconnect, Exception), _on_error
        ),
        lifespan=lifespan,
    )
    app.state.stop = decoder.close
    return app


IMAGES_TOGETHER = 2
"""Images that are in memory; while one takes its time to be decoded, others get through."""


class _Service:
    """What the routes do. A thread an image; the models look at one image at a time."""

    def __init__(
        self, comparer: Comparer, flags: FlagFile, decoder: Decoder, title: str, limits: Limits
    ) -> None:
        self.comparer = comparer
        self.flags = flags
        self.decoder = decoder
        self.title = title
        self.limits = limits
        self.waiting = asyncio.Semaphore(limits.waiting)
        self.turn = threading.Lock()
        self.models = ThreadPoolExecutor(IMAGES_TOGETHER, thread_name_prefix="models")
        self.disk = ThreadPoolExecutor(1, thread_name_prefix="flags")

    def close(self) -> None:
        self.decoder.close()
        for executor in (self.models, self.disk):
            executor.shutdown(wait=True, cancel_futures=True)

    async def about(self, request: Request) -> Response:
        card, model = self.comparer.classifier.card, self.comparer.classifier.model
        return JSONResponse(
            {
                "title": printable(self.title),
                "recipe": str(card.recipe.get("name") or card.prompts.design),
                "backbone": shown(card.backbone.name),
                "class_names": list(self.comparer.classifier.class_names),
                "any_names": model.serves_any,
                "flags": printable(self.flags.path.name),
                "limits": {
                    "names": MOST_NAMES,
                    "name_length": LONGEST_NAME,
                    "upload_bytes": self.limits.upload_bytes,
                },
            }
        )

    async def compare(self, request: Request) -> Response:
        """A form with `image` (a file) and, if they are not those of the training, `names`."""
        kind = request.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            return _problem(415, "Send a form with an image.")
        try:
            async with request.form(max_files=1, max_fields=2, max_part_size=2**20) as form:
                content = await _image(form)
                names = _names(form)
        except UnicodeError:  # of a character set that the form names
            return _problem(400, "The form is not valid text.", "Send it as UTF-8.")
        if self.waiting.locked():
            return _problem(503, "Too many people are asking at once.", "Try again in a moment.")
        async with self.waiting:
            loop = asyncio.get_running_loop()
            answer = loop.run_in_executor(self.models, self._run, content, names)
            try:
                comparison = await asyncio.wait_for(answer, self.limits.answer_seconds)
            except TimeoutError:
                return _problem(503, "The models did not answer in time.", "Try again in a moment.")
        digest = hashlib.sha256(content).hexdigest()
        return JSONResponse({**asdict(comparison), "sha256": digest})

    async def flag(self, request: Request) -> Response:
        try:
            flag = Flag.model_validate_json(await request.body())
        except (ValidationError, RecursionError):
            return _problem(400, "This is not a flag.")
        loop = asyncio.get_running_loop()
        try:
            count = await loop.run_in_executor(self.disk, self.flags.add, flag)
        except (PromptotError, OSError) as error:
            logger.warning("A flag was lost: %s", error)
            return _not_written(error, self.flags.path)
        return JSONResponse({"count": count, "file": printable(self.flags.path.name)})

    def _run(self, content: bytes, names: tuple[str, ...] | None) -> Comparison:
        image = self.decoder(content)
        with self.turn:
            return self.comparer(image, names)


def _not_written(error: PromptotError | OSError, path: Path) -> Response:
    """Why a flag could not be kept, without saying where on this machine it was to be kept."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError):
        problem = "The machine that runs the page can't write it down."
        if cause.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            problem = "The disk of the machine that runs the page is full."
        return _problem(507, f"The flag was not kept. {problem}", "Tell whoever runs the page.")
    assert isinstance(error, PromptotError)
    problem, fix = error.problem, error.fix
    for place in (path, path.resolve()):
        problem = problem.replace(str(place), path.name)
        fix = fix and fix.replace(str(place), path.name)
    return _problem(400, problem, fix)


async def _image(form: FormData) -> bytes:
    file = form.get("image")
    if not isinstance(file, UploadFile):
        raise PromptotError("There is no image.", fix="Choose one.")
    return await file.read()


def _names(form: FormData) -> tuple[str, ...] | None:
    """The field `names`, a JSON list of texts; None if there is none."""
    field = form.get("names")
    if field is None:
        return None
    try:
        names = json.loads(field) if isinstance(field, str) else None
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PromptotError("The class names are not a list of texts.", fix="Send a JSON list.")
    if not names:
        raise PromptotError("There are no class names.", fix="Give at least one.")
    if any(SURROGATE.search(name) for name in names):
        raise PromptotError(
            "A class name is not valid text: it holds half a character (a lone surrogate).",
            fix="Type it anew.",
        )
    return tuple(" ".join(name.split()) for name in names)


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (PAGE / name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, media_type=kind)

    return send


def _problem(status: int, problem: str, fix: str | None = None) -> JSONResponse:
    texts = {"problem": problem, "fix": fix}
    whole = {key: text and SURROGATE.sub("?", text) for key, text in texts.items()}
    return JSONResponse(whole, status_code=status)


def _on_error(request: Request, error: Exception) -> Response:
    match error:
        case UnreadableImage():  # its path is that of a temporary file
            reason = f"This image can't be read: {error.reason}."
            return _problem(400, reason, "Choose another one.")
        case PromptotError():
            return _problem(400, error.problem, error.fix)
        case HTTPException():
            return _problem(error.status_code, str(error.detail))
        case ClientDisconnect():
            return _problem(400, "The upload ended early.")  # nobody is there to read it
    return _problem(500, "Something went wrong.", "The terminal that runs the page says what.")
