"""A library's warning while it loads is an error, whether it warns or logs."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from promptot.backbones import library_warnings
from promptot.backbones.library_warnings import Harmless, refuse_warnings
from promptot.errors import PromptotError

WAYS: dict[str, Callable[[], object]] = {
    "warnings": lambda: warnings.warn("two weights are new", stacklevel=1),
    "root logger": lambda: logging.warning("two weights are new"),
    "transformers": lambda: logging.getLogger("transformers.modeling_utils").warning(
        "%d weights are new", 2
    ),
    "error": lambda: logging.getLogger("open_clip").error("two weights are new"),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Levels and filters that hide everything, as in a program that wants no output."""
    transformers = logging.getLogger("transformers")
    levels = logging.root.level, transformers.level
    logging.root.setLevel(logging.CRITICAL)
    transformers.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.root.setLevel(levels[0])
    transformers.setLevel(levels[1])


@pytest.mark.parametrize("way", WAYS)
def test_a_warning_is_an_error_with_a_fix(way: str) -> None:
    with (
        pytest.raises(PromptotError, match="lib warned while it loaded 'x'.*weights are new.*or"),
        refuse_warnings("lib", "x"),
    ):
        WAYS[way]()


def test_a_log_that_is_switched_off_is_heard() -> None:
    logging.disable(logging.CRITICAL)
    try:
        with pytest.raises(PromptotError, match="new"), refuse_warnings("lib", "x"):
            logging.warning("new")
        assert logging.root.manager.disable == logging.CRITICAL
    finally:
        logging.disable(logging.NOTSET)


def test_what_says_nothing_of_the_weights_passes() -> None:
    with refuse_warnings("lib", "x"):
        logging.info("loading")
        logging.getLogger("huggingface_hub.file_download").warning("trying again")
        warnings.warn("this function goes", DeprecationWarning, stacklevel=1)
        warnings.warn_explicit("no symlinks", UserWarning, "/lib/huggingface_hub/cache.py", 1)


@pytest.mark.parametrize(
    "message",
    [
        "`clean_up_tokenization_spaces` was not set. It will be set to `True` by default. This "
        "behavior will be changed in a later version.",
        "Model config: eos_token_id must be `None` or an integer within the vocabulary (between 0 "
        "and 31999), got 49407. This may result in unexpected behavior.",
    ],
)
def test_a_listed_message_is_harmless(message: str) -> None:
    with refuse_warnings("transformers", "x"):
        warnings.warn(message, FutureWarning, stacklevel=1)
        logging.getLogger("transformers").warning(message)
    with pytest.raises(PromptotError, match="not so"), refuse_warnings("transformers", "x"):
        logging.warning("not so: %s", message)
    assert len(library_warnings.HARMLESS) == 2  # each has its message here


def test_only_the_whole_message_is_harmless() -> None:
    known = (Harmless(r"\d+ files", "it counts"),)
    with refuse_warnings("lib", "x", known):
        logging.warning("12 files")
    broken = pytest.raises(PromptotError, match="12 files are broken")
    with broken, refuse_warnings("lib", "x", known):
        logging.warning("12 files are broken")


def test_everything_is_as_before_afterwards() -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.root.addHandler(handler)
    loggers = [logging.getLogger(name) for name in library_warnings.LOGGERS]

    def state() -> list[object]:
        filters = [list(one.filters) for logger in loggers for one in logger.handlers]
        sets = [(logger.level, list(logger.handlers)) for logger in loggers]
        return [sets, filters, list(warnings.filters), warnings.showwarning]

    before = state()
    try:
        with pytest.raises(PromptotError), refuse_warnings("lib", "x"):
            logging.critical("told as an error")
        assert state() == before
        with pytest.raises(ZeroDivisionError), refuse_warnings("lib", "x"):
            print(logging.warning("new") or 1 / 0)
        assert state() == before
        assert heard == []  # the error says it, nothing else does
        logging.critical("heard")
        assert heard == ["heard"]
    finally:
        logging.root.removeHandler(handler)


def test_other_threads_are_neither_blamed_nor_silenced() -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.root.addHandler(handler)

    def speak() -> None:
        logging.critical("a log")
        logging.warning("hidden by the level")
        warnings.warn("a warning", stacklevel=1)

    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with refuse_warnings("lib", "x"):
                other = threading.Thread(target=speak)
                other.start()
                other.join()
        assert [str(one.message) for one in seen] == ["a warning"]
        assert heard == ["a log"]
    finally:
        logging.root.removeHandler(handler)


def test_loads_of_several_threads_do_not_meet() -> None:
    errors: list[str] = []

    def load(name: str) -> None:
        try:
            with refuse_warnings("lib", name):
                for _ in range(50):
                    logging.warning("of %s", name)
                    warnings.warn(f"of {name}", stacklevel=1)
        except PromptotError as error:
            errors.append(str(error))

    filters, root = list(warnings.filters), list(logging.root.handlers)
    threads = [threading.Thread(target=load, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(error.split(". ")[0].split(" Such")[0] for error in errors) == [
        f"lib warned while it loaded '{i}': of {i}" for i in range(8)
    ]
    assert (list(warnings.filters), list(logging.root.handlers)) == (filters, root)
