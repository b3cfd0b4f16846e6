"""What a library says while it loads weights: a warning of theirs is an error of ours.

Libraries warn, through `warnings` or only in a log, where they build something else than was asked
for: another activation, a layer whose weights were not in the file. They go on all the same, and
so the features would be wrong without a word.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptot.errors import PromptotError

NETWORK = ("huggingface_hub", "hf_xet", "httpx", "urllib3", "requests", "filelock", "fsspec")
"""Packages that say how files travel (a retry, a missing token), not what is in them."""
LOGGERS = ("", "transformers", "open_clip", "timm")
"""Loggers that are listened to: the root of all, and those of libraries that may not reach it."""


@dataclass(frozen=True)
class Harmless:
    """A message that changes no feature.

    Attributes:
        message: the whole text, as a pattern for `re.fullmatch`.
        reason: why it may be passed over.
    """

    message: str
    reason: str


HARMLESS: tuple[Harmless, ...] = (
    Harmless(
        r"`clean_up_tokenization_spaces` was not set\. .*",
        "transformers 4 says it of tokenizers; it concerns turning ids into text, not done here",
    ),
    Harmless(
        r"Model config: (bos|eos|pad)_token_id must be `None` or an integer within the vocabulary "
        r".*",
        "transformers 5 says it of SigLIP, whose configuration names tokens of CLIP that it never "
        "reads; where one is read (CLIP's end token), it is compared with the tokenizer's",
    ),
)
"""Messages that are passed over; where versions word one differently, the end is left open."""

_CATEGORIES = (DeprecationWarning, PendingDeprecationWarning)
"""Passed over whatever they say: they tell who calls a function that a later version drops it."""
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def refuse_warnings(
    library: str, source: str, harmless: Sequence[Harmless] = HARMLESS
) -> Iterator[None]:
    """Raise an error in place of the first warning that this thread gives inside.

    Warnings of `warnings` and log records from the level WARNING on count, whatever filters and
    levels are set. One load at a time is listened to; what other threads say meanwhile is
    passed on. Filters, levels and handlers are as before when it ends. If the code inside raises an
    exception itself, that one is raised.

    Args:
        library: its name.
        source: what it loads, as the user wrote it.
        harmless: messages that are passed over.

    Raises:
        PromptotError: it warned of something that is not harmless.
    """
    with _one_at_a_time:
        said: list[str] = []
        with _warnings_into(said), _log_records_into(said):
            yield
    for message in said:
        if not any(re.fullmatch(known.message, message, re.DOTALL) for known in harmless):
            raise PromptotError(
                f"{library} warned while it loaded '{source}': {' '.join(message.split())}",
                fix="Such weights may be computed otherwise than their makers meant, so they are "
                "not used. Correct what the warning names, or take a version of "
                f"{library} that loads them without one.",
            )


@contextlib.contextmanager
def quiet(level: int = logging.ERROR) -> Iterator[None]:
    """Keep what libraries warn of, print, and log up to a level off the screen."""
    disabled, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(level)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.handlers[:] = handlers  # a library may have added its own


@contextlib.contextmanager
def _warnings_into(said: list[str]) -> Iterator[None]:
    """Put this thread's warnings into `said`; give those of others again at the end."""
    thread = threading.get_ident()
    of_others: list[tuple[Any, ...]] = []

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        if threading.get_ident() != thread or not set(NETWORK).isdisjoint(Path(filename).parts):
            of_others.append((message, category, filename, lineno))
        elif not issubclass(category, _CATEGORIES):
            said.append(str(message))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            yield
    finally:
        for one in of_others:
            with contextlib.suppress(Warning):  # a filter may turn it into an error
                warnings.warn_explicit(*one)


class _Listener(logging.Handler):
    """Keeps the text of what one thread logs as a warning or worse."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said
        self.listened_to = threading.get_ident()

    def hears(self, record: logging.LogRecord) -> bool:
        """Whether a record is kept."""
        return (
            record.thread == self.listened_to
            and record.levelno >= logging.WARNING
            and record.name.split(".")[0] not in NETWORK
        )

    def emit(self, record: logging.LogRecord) -> None:
        if self.hears(record):
            self.said.append(record.getMessage())


@contextlib.contextmanager
def _log_records_into(said: list[str]) -> Iterator[None]:
    """Put what this thread logs as a warning, or worse, into `said`, and nowhere else.

    Loggers that were set to say less say it meanwhile to the listener alone.
    """
    listener = _Listener(said)
    disabled = logging.root.manager.disable
    loggers = {name: logging.getLogger(name) for name in LOGGERS}
    levels = {logger.name: logger.level for logger in loggers.values()}

    def as_before(record: logging.LogRecord) -> bool:
        """Whether a handler that was there gets a record."""
        if listener.hears(record) or record.levelno <= disabled:
            return False
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            level = levels.get(logger.name, logger.level)
            if level:
                return record.levelno >= level
            logger = logger.parent
        return True

    handlers = [handler for logger in loggers.values() for handler in logger.handlers]
    for handler in handlers:
        handler.addFilter(as_before)
    for logger in loggers.values():
        logger.addHandler(listener)
        if logger.getEffectiveLevel() > logging.WARNING:
            logger.setLevel(logging.WARNING)
    logging.disable(min(disabled, logging.INFO))
    try:
        yield
    finally:
        logging.disable(disabled)
        for logger in loggers.values():
            logger.removeHandler(listener)
            logger.setLevel(levels[logger.name])
        for handler in handlers:
            handler.removeFilter(as_before)
