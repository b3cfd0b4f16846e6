"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _json_place(path: Path | None) -> Path | None:
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"'{path}' is a folder; give a file, or '-'.")
    return path


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of class folders, a .zip or .tar of one, a table (.csv, .jsonl, .parquet), "
        "WebDataset shards, a saved Hugging Face data set, or a .yaml description.",
    ),
]
Names = Annotated[
    Path | None,
    typer.Option("--names", metavar="FILE", help="Names of the class folders, and synonyms."),
]
Template = Annotated[
    str | None,
    typer.Option("--template", help="What the frozen model reads: 'a photo of a {}, a pet.'."),
]
TestShare = Annotated[
    float,
    typer.Option(min=0, max=0.9, help="Share held out for testing if DATA has no test split."),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="PATH",
        callback=_json_place,
        help="Also write the result as JSON ('-': to standard output, the rest to standard error).",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:<index> or mps.")]
BackboneName = Annotated[str, typer.Option("--backbone", "-b", help="See `promptot backbones`.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that load images.")]
