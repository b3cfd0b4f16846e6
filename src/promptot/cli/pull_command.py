"""`promptot pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from promptot.cli import common_options as common
from promptot.cli.console import Screen, command, plain


class PullOptions(common.Options):
    """What `promptot pull` takes."""

    repository: common.Repository
    out: Annotated[Path, "--out", "-o", "Folder for the adapter."]
    revision: Annotated[str | None, "A branch, a tag or a commit."] = None
    overwrite: common.Overwrite = False


def pull(options: PullOptions, screen: Screen) -> None:
    """Fetch an adapter from the Hugging Face Hub."""
    from promptot.runs.hub import pull as pull_run

    folder = pull_run(**options.keywords())
    screen.say(f"Fetched into [bold]{plain(folder)}[/].")
    screen.say(f"Next: {command('predict', folder, 'new.jpg')}")
    screen.result({"folder": str(folder)})
