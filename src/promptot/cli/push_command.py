"""`promptot push`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from promptot.cli import common_options as common
from promptot.cli.command_options import keywords
from promptot.cli.console import Screen, plain


@dataclass(frozen=True)
class PushOptions:
    """What `promptot push` takes."""

    run: common.RunFolder
    repository: common.Repository
    private: Annotated[bool, "For you alone."] = False


def push(options: PushOptions, screen: Screen) -> None:
    """Put a run's adapter on the Hugging Face Hub, with a model card."""
    from promptot.runs.hub import push as push_run

    url = push_run(**keywords(options))
    screen.say(f"Pushed to [bold]{plain(url)}[/]")
    screen.result({"url": url})
