"""What `promptot data` prints; it fits a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Column, Table

from promptot.cli.console import plain
from promptot.cli.grid import folded, grid, listing
from promptot.reports.tables import format_interval, format_value

if TYPE_CHECKING:
    from promptot.inspection.survey_result import ClassSummary, Duplicates, Survey

MOST_CLASSES = 20
MOST_LINES = 5
_BAR = 12


def survey_tables(found: Survey) -> Group:
    """The whole description."""
    facts = listing(Column(style="bold", no_wrap=True), folded())
    for label, text in _facts(found):
        facts.add_row(label, text)
    return Group(
        f"[bold]{plain(found.name)}[/]: {_count(len(found.classes), 'class', 'classes')}, "
        f"{_count(sum(found.images.values()), 'image')}",
        "",
        _class_table(found),
        facts,
        *(f"[cyan]i[/] {plain(text)}" for text in found.notes),
        *_problems(found),
        *([""] if found.advice or found.name_warnings else []),
        *(f"[yellow]![/] {plain(text)}" for text in (*found.name_warnings, *found.advice)),
        "",
    )


def _class_table(found: Survey) -> Table:
    images = found.images
    splits = [split for split in images if images[split]]
    accuracy = "" if found.accuracy is None else format_value(found.accuracy, "share")
    table = grid(
        folded("class", footer="all", max_width=26),
        *(Column(split, str(images[split]), justify="right") for split in splits),
        Column("zero-shot", accuracy, justify="right", no_wrap=True),
        Column(no_wrap=True, min_width=_BAR),
        Column("taken for", overflow="ellipsis", no_wrap=True, max_width=18),
        show_footer=True,
    )
    shown = _worth_showing(found.classes)
    for summary in shown:
        table.add_row(*_class_row(summary, splits))
    hidden = len(found.classes) - len(shown)
    if hidden:
        table.caption = f"The {len(shown)} hardest classes; {hidden} more are in --json."
    return table


def _worth_showing(classes: tuple[ClassSummary, ...]) -> list[ClassSummary]:
    """All classes in their order; of too many those that the frozen model knows least."""
    if len(classes) <= MOST_CLASSES:
        return list(classes)
    return sorted(classes, key=lambda c: 2.0 if c.zero_shot is None else c.zero_shot)[:MOST_CLASSES]


def _class_row(summary: ClassSummary, splits: list[str]) -> Iterator[str]:
    synonyms = f"\n[dim]{plain(', '.join(summary.synonyms))}[/]" if summary.synonyms else ""
    yield plain(summary.name) + synonyms
    for split in splits:
        count = getattr(summary, split)
        yield str(count) if count else "[yellow]0[/]"
    if summary.zero_shot is None:
        yield from ("[dim]–[/]", "", "")
        return
    share = summary.zero_shot
    colour = "green" if share >= 0.8 else "yellow" if share >= 0.5 else "red"
    filled = round(_BAR * share)
    yield format_value(share, "share")
    yield f"[{colour}]{'█' * filled}[/][dim]{'·' * (_BAR - filled)}[/]"
    yield f"[dim]{plain(summary.mistaken_for or '')}[/]"


def _facts(found: Survey) -> Iterator[tuple[str, Any]]:
    if found.accuracy is not None and found.interval is not None:
        yield (
            "zero-shot",
            f"{format_value(found.accuracy, 'share')} of {_count(found.tested, 'test image')} "
            f"(95 % interval {format_interval(found.interval, 'share')}), {plain(found.backbone)}",
        )
    if found.probe is not None:
        capped = f", at most {found.probe.most_of_a_class} a class" if found.probe.capped else ""
        yield (
            "linear probe",
            f"{format_value(found.probe.accuracy, 'share')} of the same images (95 % interval "
            f"{format_interval(found.probe.interval, 'share')}), from the image features of "
            f"{_count(found.probe.images, 'training image')}{capped}",
        )
    yield "prompt", f"“{plain(found.template)}”"
    if found.held_out:
        yield "test", "held out of each class as `promptot fit` will do"
    if found.domains:
        listed = ", ".join(f"{plain(name)} {count}" for name, count in found.domains.items())
        yield "domains", listed
    if found.sizes:
        small = f"; {found.small} below the model's {found.resolution}" if found.small else ""
        sizes = {key: f"{width} × {height}" for key, (width, height) in found.sizes.items()}
        same = len(set(sizes.values())) == 1
        text = sizes["median"] if same else ", ".join(f"{k} {v}" for k, v in sizes.items())
        yield "pixels", f"{text}{small}"
    yield "shots", f"use [bold]{found.shots}[/] of each class (--shots {found.shots})"
    clear = "[green]none[/]"
    yield "unreadable", f"[red]{len(found.skipped)}[/]" if found.skipped else clear
    leaks = sum(d.leaks for d in found.duplicates)
    crossed = sum(d.contradicts for d in found.duplicates)
    groups = len(found.duplicates)
    shown = (
        f"[yellow]{_count(groups, 'group')}[/] of images that show the same picture: "
        f"[{'red' if leaks else 'green'}]{leaks} across splits[/], "
        f"[{'red' if crossed else 'green'}]{crossed} across classes[/]"
    )
    yield "duplicates", shown if groups else clear


def _problems(found: Survey) -> Iterator[str]:
    skipped = [f"  '{plain(item.path)}': {plain(item.reason)}" for item in found.skipped]
    yield from _section("[red]Left out:[/]", skipped)
    leaks = [d for d in found.duplicates if d.leaks]
    yield from _section(
        "[red]Leaks:[/] the same picture is trained on and tested, so the test flatters. Keep one "
        "of each.",
        [_group(d) for d in leaks],
    )
    crossed = [d for d in found.duplicates if d.contradicts and not d.leaks]
    yield from _section(
        "[red]Contradictions:[/] the same picture in two classes. One of them is wrong.",
        [_group(d) for d in crossed],
    )


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    """A title and the first few lines, if there are any."""
    if lines:
        yield f"\n{title}"
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"  and {len(lines) - MOST_LINES} more; --json lists all."


def _group(duplicates: Duplicates) -> str:
    kind = "same file" if duplicates.exact else "same picture"
    members = zip(duplicates.paths, duplicates.splits, duplicates.classes, strict=True)
    listed = [
        f"{plain(path)} [dim]({split}{f', {plain(name)}' if duplicates.contradicts else ''})[/]"
        for path, split, name in members
    ]
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return f"  {kind}: {' = '.join(listed[:3])}{more}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
