"""`promptot data check`: whether public data sets are there, and are those of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from promptot.cli import common_options as common
from promptot.cli.console import Screen, Stages, plain, progress_bar
from promptot.errors import PromptotError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptot.data.catalog.public import SetCheck


class CheckOptions(common.Options):
    """What `promptot data check` takes."""

    suite: common.Suite
    root: common.SuiteRoot
    tasks: common.SetNames = ""
    checksums: Annotated[Path | None, "A list of files, as sha256sum or md5sum writes it."] = None


def check(options: CheckOptions, screen: Screen) -> None:
    """Say which public data sets are there, what is missing and where it comes from."""
    from promptot.data.catalog.public import check_set, check_sums
    from promptot.experiments.suite import named_sets

    root, sums = options.root, options.checksums
    chosen = named_sets(options.suite, common.by_commas(options.tasks))
    checks = []
    with progress_bar() as bar:
        stages = Stages(bar)
        for done, public_set in enumerate(chosen):
            stages("data sets", done, len(chosen))
            checks.append(check_set(public_set, root))
        wrong = [] if sums is None else check_sums(sums, root, stages)
    _show(screen, checks, wrong, root)
    if sums is not None and not wrong:
        screen.print("All checksums agree.")
    screen.result({"sets": [one.as_json() for one in checks], "checksums": wrong})
    unready = [one for one in checks if one.state != "ready"]
    if unready or wrong:
        raise PromptotError(
            f"{len(unready)} of {len(checks)} data sets are not as published"
            + (f", and {len(wrong)} checksums differ." if wrong else "."),
            fix="See above; `promptot benchmark --suite` runs with complete data only, unless "
            "--unverified is given.",
        )
    screen.print(f"All {len(checks)} data sets are complete.")


def _show(screen: Screen, checks: Sequence[SetCheck], wrong: Sequence[str], root: Path) -> None:
    """States, problems, and what has to be fetched: where it belongs and where it comes from."""
    from promptot.cli.suite_tables import check_table

    screen.print(check_table(checks))
    for one in checks:
        text = " ".join((*one.problems, *one.differences, *one.notes))
        if text:
            screen.say(f"[bold]{plain(one.public_set.name)}[/]: {plain(text)}")
    for text in wrong:
        screen.say(f"[bold red]checksum[/]: {plain(text)}")
    missing = [(one.public_set.folder, source) for one in checks for source in one.missing]
    if missing:
        screen.print(f"[bold]To fetch[/], into {plain(root)}:")
    for folder, source in missing:
        note = f" ({source.note})" if source.note else ""
        screen.say(plain(f"{folder}/{source.place}"))
        screen.say(plain(f"    from {source.url}{note}"))
