"""The tables of `promptot backbones` and its check; each fits a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Column, Table

from promptot.backbones.catalogue import BackboneEntry, Catalogue
from promptot.cli.console import plain
from promptot.cli.grid import folded, grid, numbers

if TYPE_CHECKING:
    from promptot.backbones.checks.compare import CheckReport, Comparison

CAPTION = (
    "Linear heads on features learn in all of them; prompts where it says so. "
    "params: of both towers, in millions. size: to download; ≈ is parameters × 4 bytes. px: side "
    "of the input. GFLOP: an image and a text. top-1: zero-shot on ImageNet, %, by open_clip's own "
    "tables or by its makers. What is not known stays empty; --json names the source of each "
    "figure, and what showed that a kind is computed rightly."
)


def catalogue_table(
    entries: Sequence[BackboneEntry], catalogue: Catalogue, *, by_purpose: bool = False
) -> Table:
    """What is known of each backbone, below each purpose if they come sorted so."""
    figures = numbers("params", "size", "px", "GFLOP", "top-1", no_wrap=True)
    table = grid(folded("backbone"), *figures, caption=CAPTION, padding=(0, 1, 0, 0))
    groups = groupby(entries, key=lambda e: e.purpose) if by_purpose else [(None, entries)]
    for purpose, members in groups:
        if by_purpose and purpose is not None:
            table.add_row(f"[bold cyan]{plain(catalogue.purposes[purpose])}[/]")
        for entry in members:
            table.add_row(
                f"[bold]{plain(entry.name)}[/]\n[dim]{plain(_kind(entry))}[/]"
                + (f"\n{plain(entry.reason)}" if entry.reason else ""),
                _figure(entry.parameters, "{:.0f}", 1e6),
                _size(entry),
                _figure(entry.resolution, "{:.0f}"),
                _figure(entry.gflops, "{:.0f}"),
                _figure(entry.imagenet, "{:.1f}"),
            )
        if by_purpose:
            table.add_section()
    return table


def _figure(value: float | None, form: str, unit: float = 1.0) -> str:
    return "" if value is None else form.format(value / unit)


def _kind(entry: BackboneEntry) -> str:
    """What can learn beside adapters, the licence, what it needs, and what has the same weights."""
    refused = entry.refusal
    parts = ["text and image prompts" if entry.image_prompts else "text prompts"]
    parts += [entry.licence] if entry.licence else []
    if refused is not None:
        parts.append(f"not here: {refused.rstrip('.')}")
    elif entry.needs_transformers:
        parts.append("needs promptot[hf]")
    parts += [f"same as {entry.same_as}"] if entry.same_as else []
    return "; ".join(parts)


def _size(entry: BackboneEntry) -> str:
    if entry.download is None:
        return ""
    about = "≈" if entry.sources.get("download") == "computed" else ""
    gigabytes = entry.download / 1e9
    number = f"{gigabytes:.1f} GB" if gigabytes >= 0.1 else f"{1000 * gigabytes:.0f} MB"
    return f"{about}{number}"


def settings_table(report: CheckReport) -> Table:
    """What beside the weights changes the function, as each side has it."""
    sides = [folded(plain(side)) for side in (report.ours, report.library)]
    table = grid(Column("setting", no_wrap=True), *sides, Column(no_wrap=True))
    for setting in report.settings:
        texts = map(plain, (setting.what, setting.ours, setting.library))
        table.add_row(*texts, _verdict(setting.equal))
    return table


def comparison_table(report: CheckReport) -> Table:
    """Each step that both sides computed: the largest difference beside its bound."""
    figures = numbers("measured", "bound", no_wrap=True)
    table = grid(folded("compared"), folded("measure"), *figures, Column(no_wrap=True))
    for item in report.comparisons:
        table.add_row(
            f"{plain(item.what)}\n[dim]{plain(item.on)}[/]",
            plain(item.measure),
            _measured(item),
            f"{item.bound:.0e}" if item.bound else "0",
            _verdict(item.equal),
        )
    return table


def _measured(item: Comparison) -> str:
    if item.measured is None:
        return "not comparable"
    return f"{item.measured:.1e}" if item.bound else f"{item.measured:.0f}"


def _verdict(equal: bool) -> str:
    return "[green]equal[/]" if equal else "[bold red]differs[/]"
