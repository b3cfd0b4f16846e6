"""Where the commands print: results to standard output, progress and errors to standard error."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from promptot.errors import UnaskedBackbone

if TYPE_CHECKING:
    from promptot.data.task import Skipped
    from promptot.errors import PromptotError

Result = TypeVar("Result")


class Screen(Console):
    """What a command shows: text with Rich's markup for people, and its result as JSON.

    Args:
        json_path: where the JSON goes; "-" is standard output, and what is for people goes to
            standard error then.
        stderr: whether that is so anyhow.
    """

    def __init__(self, json_path: Path | None = None, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr or str(json_path) == "-", highlight=False)
        self._json_path = json_path

    def say(self, text: str) -> None:
        """Print text that may be copied or searched: nobody but the terminal breaks its lines."""
        self.print(text, soft_wrap=True)

    def skipped(self, images: Sequence[Skipped], most: int = 10) -> None:
        """Name the images that were left out."""
        if not images:
            return
        count = "1 image" if len(images) == 1 else f"{len(images)} images"
        self.print(f"[yellow]Left out {count}:[/]")
        for item in images[:most]:
            self.say(f"  '{plain(item.path)}': {plain(item.reason)}")
        if len(images) > most:
            self.print(f"  and {len(images) - most} more; --json lists all.")

    def result(self, result: Any) -> None:
        """Write the command's result as JSON, if that was asked for."""
        if str(self._json_path) == "-":
            sys.stdout.write(f"{json_text(result, indent=2)}\n")
        elif self._json_path is not None:
            from promptot.files.writing import write_json

            write_json(self._json_path, result)


errors = Screen(stderr=True)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON for standard output; what a terminal would obey is escaped as JSON escapes it."""
    from promptot.files.csv_text import OBEYED

    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    obeyed = f"(?!\n)[{OBEYED}]"  # line ends are those of the indentation
    return re.sub(obeyed, lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(text: object) -> str:
    """Text from outside, safe to print: no markup, no line breaks, nothing a terminal obeys."""
    from promptot.reports.tables import printable

    return escape(printable(str(text)))


class PlainGroup(TyperGroup):
    """Commands whose usage errors quote arguments (which may be file names) as `plain` does."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _plain_usage_errors():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _plain_usage_errors():
            return super().invoke(ctx)


@contextmanager
def _plain_usage_errors() -> Iterator[None]:
    from promptot.reports.tables import printable

    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)
        # Click's own class, of which newer versions of typer have a copy.
        if hasattr(error, "format_message") and isinstance(message, str):
            error.message = printable(message)  # type: ignore[attr-defined]
        raise


def command(*parts: object) -> str:
    """A command line to copy, quoted for the shell."""
    return plain(shlex.join(["promptot", *map(str, parts)]))


def again(context: typer.Context, *words: str, **instead: object) -> str:
    """The command at work as it was typed, with other values of some parameters; to copy.

    Parameters that were not given are left out, and so are those whose new value is None.

    Args:
        words: of the command, such as "fit".
    """
    arguments: list[object] = []
    options: list[object] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE"
        value = instead.get(name, context.params.get(name) if given else None)
        for each in value if isinstance(value, list | tuple) else [value]:
            flags = parameter.secondary_opts if each is False else parameter.opts
            if each is None or not flags:
                continue
            flag = max(flags, key=len)
            if parameter.param_type_name == "argument":
                arguments.append(each)
            else:
                options += [flag] if isinstance(each, bool) else [flag, each]
    return command(*words, *arguments, *options)


def show_error(error: PromptotError) -> None:
    """What is wrong in red, what to do about it below."""
    errors.say(f"[bold red]Error:[/] {plain(error.problem)}")
    if error.fix:
        errors.say(plain(error.fix))


def with_backbone(
    call: Callable[..., Result], *arguments: Any, backbone: str | None = None, **more: Any
) -> Result:
    """Do what loads an adapter; ask at a terminal before a backbone is loaded that its card names.

    Args:
        call: takes `backbone`; None stands for the one on the card.
        backbone: what --backbone says, or None.

    Raises:
        UnaskedBackbone: the answer is no, or there is nobody to ask.
    """
    try:
        return call(*arguments, backbone=backbone, **more)
    except UnaskedBackbone as error:
        if not (sys.stdin.isatty() and errors.is_terminal):
            raise
        errors.say(f"[yellow]{plain(error.problem)}[/]")
        answer = errors.input("Load it, now and from now on? \\[y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            raise
        return call(*arguments, backbone=error.name, **more)


@contextmanager
def interruption_note(text: str, kept: Callable[[], bool]) -> Iterator[None]:
    """When Ctrl-C or SIGTERM ends the work, say what is left of it.

    Args:
        text: to say.
        kept: whether anything is.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if kept():
            errors.say(text)
        raise


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Let warnings of ours be printed as sentences, without the line of code they come from."""
    from promptot.errors import PromptotWarning

    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, PromptotWarning):
            errors.say(f"[yellow]Warning:[/] {plain(message)}")
        else:
            before(message, category, *rest, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", PromptotWarning)
        warnings.showwarning = show
        yield


def show_notes(screen: Screen, notes: Sequence[str]) -> None:
    """Say what was taken for what in the data."""
    for note in notes:
        screen.say(f"[cyan]i[/] {plain(note)}")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error that goes away when the work is done."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        redirect_stdout=False,
        disable=not errors.is_terminal,
    )
    # Ending one that is disabled would print an empty line, with earlier versions of the library.
    with nullcontext() if bar.disable else bar:
        yield bar


def in_stages(call: Callable[..., Result]) -> Callable[..., Result]:
    """A call that shows on standard error how far it is, with `Stages` as its `progress`."""

    def run(*arguments: Any, **more: Any) -> Result:
        with progress_bar() as bar:
            return call(*arguments, progress=Stages(bar), **more)

    return run


class Stages:
    """One bar after another, named as the work goes on; in a log file, a line after long ones."""

    LONG = 5.0  # seconds

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(plain(what), total=total, note="")
            self._began[what] = time.monotonic()
        self._bar.update(self._tasks[what], completed=done, total=total)
        seconds = time.monotonic() - self._began[what]
        if self._bar.disable and done == total and seconds > self.LONG:
            errors.say(f"{plain(what)}: {done} in {seconds:.0f} s")

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """A callback that takes how much more is done."""
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            self(what, done, total)

        return count
