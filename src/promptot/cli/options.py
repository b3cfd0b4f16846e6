"""Options that several command modules take, and reading their values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptot.errors import PromptotError


def _json_place(path: Path | None) -> Path | None:
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"'{path}' is a folder; give a file, or '-'.")
    return path


def share(value: float) -> float:
    """Refuse NaN, which not every version of the library finds out of range."""
    if value != value:
        raise typer.BadParameter("nan is no share.")
    return value


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
KeepSameNames = Annotated[
    bool,
    typer.Option(
        "--keep-same-names", help="Let two classes have one name, as ImageNet's 'missile'."
    ),
]
Template = Annotated[
    str | None,
    typer.Option("--template", help="What the frozen model reads: 'a photo of a {}, a pet.'."),
]
TestShare = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.9,
        callback=share,
        help="Share held out for testing if DATA has no test split.",
    ),
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
AdapterBackbone = Annotated[
    str | None,
    typer.Option("--backbone", "-b", help="Where the adapter belongs, unless its own name for it."),
]


def by_commas(text: str) -> list[str]:
    """The parts of a list in one argument, blanks removed."""
    return [part.strip() for part in text.split(",") if part.strip()]


def split_names(text: str) -> list[tuple[str, ...]]:
    """Class names in one argument, each with its synonyms: "cat,sofa|couch".

    Raises:
        PromptotError: one is empty.
    """
    names = [tuple(name.strip() for name in part.split("|")) for part in text.split(",")]
    if not all(all(synonyms) for synonyms in names):
        raise PromptotError(
            f"--classes '{text}' holds an empty name.",
            fix='Put one comma between two names, as in --classes "cat,red panda".',
        )
    return names


def three_shares(text: str) -> tuple[float, float, float]:
    """Shares of training, validation and test in one argument.

    Raises:
        PromptotError: there are not three numbers.
    """
    shares = decimals("--split-shares", text)
    if len(shares) != 3:
        raise PromptotError(
            f"--split-shares '{text}' are not three shares.",
            fix="Write those of training, validation and test: --split-shares 0.5,0.2,0.3.",
        )
    return shares[0], shares[1], shares[2]


def decimals(option: str, text: str) -> list[float]:
    """Numbers in one argument.

    Raises:
        PromptotError: one is no number.
    """
    try:
        return [float(part) for part in by_commas(text)]
    except ValueError:
        raise PromptotError(
            f"{option} '{text}' are not numbers.", fix=f"Write {option} 1,0.5."
        ) from None
