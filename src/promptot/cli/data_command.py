"""`promptot data`: looking at images before anything is learned from them."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from promptot.cli.command_options import add_command
from promptot.cli.data_check import check
from promptot.cli.data_describe import describe
from promptot.cli.data_shots import shots


class _DescribeByDefault(TyperGroup):
    """`promptot data photos` is short for `promptot data describe photos`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["describe", *args]
        return list(super().parse_args(ctx, args))


data = typer.Typer(
    cls=_DescribeByDefault,
    no_args_is_help=True,
    help="Look at images before learning from them. `promptot data DATA` describes them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_command(data, check, "data check coop --root DATA")
add_command(data, shots, "data shots coop --root DATA --out lists")
add_command(data, describe, "data photos/ --json photos.json")
