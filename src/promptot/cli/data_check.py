"""`promptot data check` and `data shots`: the public data sets and what is drawn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptot.cli.console import Stages, console_for, plain, progress_bar, write_result
from promptot.errors import PromptotError

Suite = Annotated[str, typer.Argument(help="A suite (coop), or one data set.", metavar="SUITE")]
Root = Annotated[Path, typer.Option("--root", help="The folder that holds all data sets.")]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="PATH", help="Also write the result as JSON.")
]


def check(
    suite: Suite,
    root: Root,
    tasks: Annotated[str, typer.Option(help="Some of the data sets, by commas.")] = "",
    checksums: Annotated[
        Path | None, typer.Option(help="A list of files, as sha256sum or md5sum writes it.")
    ] = None,
    json_path: Json = None,
) -> None:
    """Say which public data sets are there, what is missing and where it comes from."""
    from promptot.cli.suites import check_table, missing_lines
    from promptot.data.catalog.public import check_set, check_sums
    from promptot.experiments.suite import named_sets

    console = console_for(json_path)
    chosen = named_sets(suite, [part.strip() for part in tasks.split(",") if part.strip()])
    checks = []
    with progress_bar() as bar:
        stages = Stages(bar)
        for done, facts in enumerate(chosen):
            stages("data sets", done, len(chosen))
            checks.append(check_set(facts, root))
        wrong = [] if checksums is None else check_sums(checksums, root, stages)
    console.print(check_table(checks))
    for found in checks:
        said = " ".join((*found.problems, *found.differences, *found.notes))
        if said:
            console.print(f"[bold]{plain(found.facts.name)}[/]: {plain(said)}", soft_wrap=True)
    for text in wrong:
        console.print(f"[bold red]checksum[/]: {plain(text)}", soft_wrap=True)
    missing = missing_lines(checks)
    if missing:
        console.print(f"[bold]To fetch[/], into {plain(root)}:")
        for line in missing:
            console.print(plain(line), soft_wrap=True)
    if checksums is not None and not wrong:
        console.print("All checksums agree.")
    write_result({"sets": [c.as_json() for c in checks], "checksums": wrong}, json_path)
    ready = [found for found in checks if found.state == "ready"]
    if len(ready) < len(checks) or wrong:
        raise PromptotError(
            f"{len(checks) - len(ready)} of {len(checks)} data sets are not as published"
            + (f", and {len(wrong)} checksums differ." if wrong else "."),
            fix="See above; `promptot benchmark --suite` runs with complete data only, unless "
            "--unverified is given.",
        )
    console.print(f"All {len(checks)} data sets are complete.")


def shots(
    suite: Suite,
    root: Root,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the lists.")],
    tasks: Annotated[str, typer.Option(help="Some of the data sets, by commas.")] = "",
    shots: Annotated[str, typer.Option(help="Images per class, by commas.")] = "16",
    seeds: Annotated[str, typer.Option(help="By commas.")] = "1,2,3",
    json_path: Json = None,
) -> None:
    """Draw the few-shot images of the published protocol and write them as JSON lists."""
    from promptot.data.catalog.public import load_public
    from promptot.data.shot_lists import (
        read_shot_list,
        shot_list,
        shot_list_name,
        write_shot_list,
    )
    from promptot.data.unreadable import choose_shots
    from promptot.experiments.suite import named_sets
    from promptot.files.writing import output_folder

    output_folder(out)
    console = console_for(json_path)
    counts, numbers = _numbers("--shots", shots), _numbers("--seeds", seeds)
    written = []
    for facts in named_sets(suite, [part.strip() for part in tasks.split(",") if part.strip()]):
        if facts.domain:
            continue
        found = load_public(facts.key, root)
        for count in counts:
            for seed in numbers:
                drawn = choose_shots(found.task, count, seed)
                path = out / shot_list_name(facts.name, count, seed)
                if path.exists():
                    read_shot_list(path)  # or it is somebody else's, and not to be replaced
                write_shot_list(shot_list(drawn, found.place, count, seed), path)
                written.append(str(path))
    console.print(
        f"{len(written)} lists in [bold]{plain(out)}[/]; `promptot benchmark --suite coop "
        f"--shot-lists {plain(out)}` learns from them.",
        soft_wrap=True,
    )
    write_result(written, json_path)


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise PromptotError(
            f"{option} '{text}' are not whole numbers.", fix=f"Write {option} 1,2,3."
        ) from None
