"""`promptot data shots`: the few-shot images of public data sets, as lists."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated

from promptot.cli import common_options as common
from promptot.cli.console import Screen, plain


class ShotsOptions(common.Options):
    """What `promptot data shots` takes."""

    suite: common.Suite
    root: common.SuiteRoot
    out: Annotated[Path, "--out", "-o", "Folder for the lists."]
    tasks: common.SetNames = ""
    shots: Annotated[str, "Images per class, by commas."] = "16"
    seeds: Annotated[str, "By commas."] = "1,2,3"


def shots(options: ShotsOptions, screen: Screen) -> None:
    """Draw the few-shot images of the published protocol and write them as JSON lists."""
    from promptot.data.catalog.public import load_public
    from promptot.data.shot_lists import (
        read_shot_list,
        shot_list,
        shot_list_name,
        write_shot_list,
    )
    from promptot.data.shots import choose_shots
    from promptot.experiments.suite import named_sets
    from promptot.files.writing import output_folder

    out = options.out
    output_folder(out)
    counts = common.integers("--shots", options.shots)
    seeds = common.integers("--seeds", options.seeds)
    written = []
    for public_set in named_sets(options.suite, common.by_commas(options.tasks)):
        if public_set.domain:
            continue
        loaded = load_public(public_set.key, options.root)
        for count, seed in product(counts, seeds):
            drawn = choose_shots(loaded.task, count, seed)
            path = out / shot_list_name(public_set.name, count, seed)
            if path.exists():
                read_shot_list(path)  # or it is somebody else's, and not to be replaced
            write_shot_list(shot_list(drawn, loaded.place, count, seed), path)
            written.append(str(path))
    screen.say(
        f"{len(written)} lists in [bold]{plain(out)}[/]; `promptot benchmark --suite coop "
        f"--shot-lists {plain(out)}` learns from them."
    )
    screen.result(written)
