"""`promptot push`."""

from __future__ import annotations

from typing import Annotated

from promptot.cli import common_options as common
from promptot.cli.console import Screen, plain


class PushOptions(common.Options):
    """What `promptot push` takes."""

    run: common.RunFolder
    repository: common.Repository
    private: Annotated[bool, "For you alone."] = False


def push(options: PushOptions, screen: Screen) -> None:
    """Put a run's adapter on the Hugging Face Hub, with a model card."""
    from promptot.runs.hub import push as push_run

    url = push_run(**options.keywords())
    screen.say(f"Pushed to [bold]{plain(url)}[/]")
    screen.result({"url": url})
