"""Options that several commands take, and reading their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import typer

from promptot.errors import PromptotError

Number = TypeVar("Number", int, float)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Options:
    """What commands take; a subclass is a frozen dataclass, for `typer_function`."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)

    def keywords(self, *without: str, **instead: Any) -> dict[str, Any]:
        """The options that have a value, groups flattened, as keywords of a library's function.

        Args:
            without: options to leave out, beside the context of the command.
            instead: values in place of those of the options.
        """
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            values |= value.keywords() if isinstance(value, Options) else {name: value}
        values |= instead
        left_out = {*without, "context"}
        return {k: value for k, value in values.items() if value is not None and k not in left_out}


def _no_nan(value: float) -> float:
    if value != value:  # which not every version of typer's finds out of range
        raise typer.BadParameter("nan is no share.")
    return value


def share(least: float, text: str) -> Any:
    """An option that takes a share, of at most 0.9; `text` is its help."""
    return typer.Option(min=least, max=0.9, callback=_no_nan, help=text)


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of class folders, a .zip or .tar of one, a table (.csv, .jsonl, .parquet), "
        "WebDataset shards, a saved Hugging Face data set, or a .yaml description.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.", metavar="RUN")]
Repository = Annotated[str, typer.Argument(help="user/name", metavar="USER/NAME")]
Suite = Annotated[str, typer.Argument(help="A suite (coop), or one data set.", metavar="SUITE")]
Names = Annotated[
    Path | None,
    typer.Option("--names", metavar="FILE", help="Names of the class folders, and synonyms."),
]
KeepSameNames = Annotated[bool, "Let two classes have one name, as ImageNet's 'missile'."]
Template = Annotated[str | None, "What the frozen model reads: 'a photo of a {}, a pet.'."]
TestShare = Annotated[float, share(0, "Share held out for testing if DATA has no test split.")]
AdapterBackbone = Annotated[
    str | None, "--backbone", "-b", "Where the adapter belongs, unless its own name for it."
]
BackboneName = Annotated[str, "--backbone", "-b", "See `promptot backbones`."]
Overwrite = Annotated[bool, "Replace what an earlier call wrote."]
SuiteRoot = Annotated[Path, "The folder that holds all data sets."]
SetNames = Annotated[str, "Some of the data sets, by commas."]
Shots = Annotated[
    int | None, typer.Option(min=1, help="Images per class; the recipe's unless given.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of shots, start and order.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a recipe's value; repeatable."),
]
Device = Annotated[str, "auto, cpu, cuda, cuda:<index> or mps."]
Precision = Annotated[Literal["fp32", "bf16", "fp16"], "Of the matrices in both towers."]
Workers = Annotated[int, typer.Option(min=0, help="Processes that load images.")]


class Computing(Options):
    """Where and how to compute."""

    device: Device = "auto"
    precision: Precision = "fp32"
    workers: Workers = 0


class Learning(Options):
    """What a run is made with beside data, recipe and backbone."""

    seed: Seed = 1
    overrides: Overrides = None
    computing: Computing


def by_commas(text: str) -> list[str]:
    """The parts of a list in one argument, blanks removed."""
    return [part.strip() for part in text.split(",") if part.strip()]


def split_names(text: str | None) -> list[tuple[str, ...]] | None:
    """Class names in one argument, each with its synonyms: "cat,sofa|couch"; None if there is none.

    Raises:
        PromptotError: one is empty.
    """
    if text is None:
        return None
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
    return _numbers(float, option, text, "numbers", "1,0.5")


def integers(option: str, text: str) -> list[int]:
    """Whole numbers in one argument.

    Raises:
        PromptotError: one is none.
    """
    return _numbers(int, option, text, "whole numbers", "1,2,3")


def _numbers(
    read: Callable[[str], Number], option: str, text: str, what: str, example: str
) -> list[Number]:
    try:
        return [read(part) for part in by_commas(text)]
    except ValueError:
        raise PromptotError(
            f"{option} '{text}' are not {what}.", fix=f"Write {option} {example}."
        ) from None
