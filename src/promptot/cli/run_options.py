"""Options of the commands that train or test."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class ReadAt(StrEnum):
    """Which epoch's prompts a benchmark tests."""

    last = "last"
    published = "published"


class Classes(StrEnum):
    """Which classes to train on."""

    all = "all"
    base = "base"
    novel = "novel"


class Precision(StrEnum):
    """Of the towers' matrices."""

    fp32 = "fp32"
    bf16 = "bf16"


Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of shots, start and order.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:<index> or mps.")]
PrecisionName = Annotated[
    Precision, typer.Option("--precision", help="Of the matrices in both towers.")
]
BackboneName = Annotated[str, typer.Option("--backbone", "-b", help="See `promptot backbones`.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that load images.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a recipe's value; repeatable."),
]
