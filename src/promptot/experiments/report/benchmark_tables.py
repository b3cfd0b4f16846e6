"""A benchmark's tables, and all its figures as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from promptot.files.writing import write_text
from promptot.reports.table_formats import (
    csv_table,
    escape_latex,
    escape_markdown,
    latex_table,
    markdown_table,
)
from promptot.reports.tables import Column, Measure, Row, Table, write_measure

if TYPE_CHECKING:
    from promptot.evaluation.statistics import Difference
    from promptot.experiments.protocols import Metric
    from promptot.experiments.settings_listing import SettingsRow
    from promptot.experiments.summary import Figure, Summary

TABLES = ("tables.md", "tables.tex", "tables.csv")
DIAGNOSTICS = {
    "off_diagonal_mass": "Off-diagonal mass",
    "plan_entropy": "Plan entropy",
    "vocabulary_off_diagonal_mass": "Vocabulary off-diagonal",
    "vocabulary_plan_entropy": "Vocabulary entropy",
    "image_drift": "Image drift",
    "text_drift": "Text drift",
    "seconds": "Seconds",
}
_PUBLISHED_AT = "for CLIP ViT-B/16 and 16 shots"
_PERCENT = Column("mean", "Mean", "percent", better=None)
_PUBLISHED = replace(_PERCENT, digits=2)
_POINTS = Column("gap", "Gap", "points", better=None)
_SETTINGS = (
    Column("where", "Trained on", "text"),
    Column("state", "Settings", "text"),
    Column("epoch", "Epoch", "text"),
    Column("differs", "Values that are not the recipe's", "list"),
)
_CSV_KEYS = (
    "split", "task", "method", "metric", "mean", "sd", "rank", "control", "difference", "low",
    "high", "over",
)  # fmt: skip


def benchmark_tables(summary: Summary) -> list[Table]:
    """All tables: those over all tasks, and then one a task."""
    return [*main_tables(summary), *task_tables(summary).values()]


def main_tables(summary: Summary) -> list[Table]:
    """The main table, the differences to the control and to what was published, what else was
    published, the settings of a suite, and what the plans did.
    """
    tables = [_main_table(summary)]
    if any(method.differences for method in summary.methods):
        tables.append(_difference_table(summary))
    if summary.published:
        tables.append(_published_table(summary))
    if summary.elsewhere:
        tables.append(_elsewhere_table(summary))
    if summary.settings:
        print_here = not summary.elsewhere
        small_print = " ".join(summary.small_print) if print_here else ""
        tables.append(settings_table(summary.settings, small_print))
    return [*tables, _diagnostic_table(summary)]


def task_tables(summary: Summary) -> dict[str, Table]:
    """Task -> its figures; nothing where there is one task alone."""
    if len(summary.tasks) == 1:
        return {}
    head = "Trained on" if summary.tested else "Task"
    return {
        task: _table(
            f"{head}: {task}",
            "Accuracy in percent.",
            _figure_columns(summary),
            {m.label: _measures(m.by_task.get(task, {})) for m in summary.methods},
        )
        for task in summary.tasks
    }


def format_figure(figure: Figure) -> str:
    """Percent, with the standard deviation where there is one.

    Example:
        >>> from promptot.experiments.summary import Figure
        >>> format_figure(Figure(0.7843, 0.0061)), format_figure(Figure(0.5, float("nan")))
        ('78.4 ± 0.6', '50.0')
    """
    return write_measure(Measure(figure.mean, sd=figure.sd), _PERCENT).line


def format_gap(gap: Difference) -> str:
    """Percentage points and their interval.

    Example:
        >>> from promptot.evaluation.statistics import Difference
        >>> format_gap(Difference(0.012, -0.003, 0.027))
        '+1.2 [−0.3, +2.7]'
    """
    return write_measure(_gap(gap), _POINTS).line


def figures_table(summary: Summary) -> Table:
    """Every figure, one a line; shares in 0..1. Task "all": over all tasks; `over`: what the
    interval from `low` to `high` is over. Published figures of the same tasks are called so in the
    place of the split.
    """
    lines: list[tuple[object, ...]] = []

    def add(*values: object) -> None:
        lines.append((summary.protocol, *values, *[None] * (len(_CSV_KEYS) - len(values))))

    for method in summary.methods:
        for task, figures in {"all": method.figures, **method.by_task}.items():
            for metric in summary.metrics:
                figure = figures.get(metric.key)
                if figure is None:
                    continue
                rank = method.rank if task == "all" and metric is summary.metrics[0] else None
                gap = method.differences.get(metric.key) if task == "all" else None
                more: tuple[object, ...] = ()
                if gap is not None:
                    over = "seeds and images" if gap.over_seeds else "images"
                    more = (summary.control, gap.value, gap.low, gap.high, over)
                add(
                    summary.split,
                    task,
                    method.label,
                    metric.key,
                    figure.mean,
                    figure.sd,
                    rank,
                    *more,
                )
        for key, value in method.diagnostics.items():
            add(summary.split, "all", method.label, key, value)
    theirs = [*summary.published.items(), *((row.name, row.figures) for row in summary.elsewhere)]
    for name, published in theirs:
        for key, value in published.items():
            add("published", "all", name, key, value)
    return Table.of([Column(key, key, "number") for key in _CSV_KEYS], lines, corner="protocol")


def write_tables(summary: Summary, folder: Path) -> list[Path]:
    """Write `tables.md`, `tables.tex` and `tables.csv`; gives their paths.

    Raises:
        PromptotError: the folder can't be written to.
    """
    tables = benchmark_tables(summary)
    markdown = [f"## {summary.protocol}", *map(markdown_table, tables)]
    markdown += map(escape_markdown, summary.notes)
    latex = [*map(latex_table, tables)]
    latex += [rf"\noindent {escape_latex(note)}" for note in summary.notes]
    texts = (
        "\n\n".join(markdown) + "\n",
        "% needs \\usepackage{booktabs}\n" + "\n\n".join(latex) + "\n",
        csv_table(figures_table(summary)),
    )
    for name, text in zip(TABLES, texts, strict=True):
        write_text(folder / name, text)
    return [folder / name for name in TABLES]


def _over(summary: Summary) -> str:
    """What the figures are over."""
    seeds = ", ".join(map(str, summary.seeds))
    shots = ", ".join(map(str, summary.shots))
    tasks, text = ", ".join(summary.tasks), "Accuracy in percent"
    if summary.tested:
        images = "" if summary.split == "test" else f"{summary.split} images of "
        text = f"{text}; trained on {tasks}, tested on {images}{', '.join(summary.tested)}"
    else:
        text = f"{text} on {summary.split} images of {tasks}"
    text = f"{text}; K = {shots}"
    if len(summary.seeds) > 1:
        return (
            f"{text}; mean over tasks and seeds {seeds} ± standard deviation over seeds; bold: the "
            "best mean."
        )
    return f"{text}; seed {seeds} only, so nothing is bold."


def _table(
    title: str,
    caption: str,
    columns: Sequence[Column],
    values: Mapping[str, Mapping[str, Measure | float | str | None]],
) -> Table:
    """A row a method, of the columns that any of them has a value for."""
    present = [column for column in columns if any(column.key in own for own in values.values())]
    rows = [Row(label, own) for label, own in values.items()]
    return Table(rows, present, caption, title, compared=False)


def _of_metrics(column: Column, metrics: Sequence[Metric]) -> list[Column]:
    return [replace(column, key=metric.key, label=metric.label) for metric in metrics]


def _measures(figures: Mapping[str, Figure]) -> dict[str, Measure | float | str | None]:
    return {key: Measure(figure.mean, sd=figure.sd) for key, figure in figures.items()}


def _figure_columns(summary: Summary) -> list[Column]:
    """The metrics; with several seeds the best of each, as shown, is bold."""
    best = replace(_PERCENT, better="higher") if len(summary.seeds) > 1 else _PERCENT
    return _of_metrics(best, summary.metrics)


def _main_table(summary: Summary) -> Table:
    columns = [*_figure_columns(summary), Column("rank", "Rank", "decimal", better=None)]
    values = {m.label: {**_measures(m.figures), "rank": m.rank} for m in summary.methods}
    rank = f"Rank: by {summary.metrics[0].label}, averaged over tasks."
    return _table("All tasks", f"{_over(summary)} {rank}", columns, values)


def _difference_table(summary: Summary) -> Table:
    return _table(
        f"Difference to {summary.control}",
        f"Percentage points, paired by task, seed and image, with {interval_note(summary)}.",
        _of_metrics(_POINTS, summary.metrics),
        {
            method.label: {key: _gap(gap) for key, gap in method.differences.items()}
            for method in summary.methods
            if method.label != summary.control
        },
    )


def _gap(gap: Difference) -> Measure:
    return Measure(gap.value, (gap.low, gap.high), marked=gap.is_clear)


def interval_note(summary: Summary) -> str:
    """What the intervals of a summary's differences are over, and what is bold."""
    count = len(summary.seeds)
    if count == 1:
        return (
            "95 % intervals over images only: one seed tells nothing of others, so nothing is bold"
        )
    from scipy.stats import t

    quantile = f"t = {t.ppf(0.975, count - 1):.1f}"
    few = ", so wide that they tell little; three seeds or more are better" if count == 2 else ""
    return (
        f"95 % intervals over seeds and images (for the seeds Student's {quantile}{few}); bold "
        "where the interval leaves zero out"
    )


def _published_table(summary: Summary) -> Table:
    """Own figures beside published ones, of the methods that have both."""
    keys = list(dict.fromkeys(key for row in summary.published.values() for key in row))
    values = {}
    for method in summary.methods:
        if method.label in summary.published:
            own, theirs = method.figures, summary.published[method.label]
            gaps = {f"{k} gap": own[k].mean - theirs[k] for k in keys if k in own}
            published = {f"{key} published": theirs[key] for key in keys}
            values[method.label] = {**_measures(own), **published, **gaps}
    columns: list[Column] = []
    for metric in _in_order(summary.metrics, keys):
        columns += [
            replace(_PERCENT, key=metric.key, label=metric.label),
            replace(_PUBLISHED, key=f"{metric.key} published", label=f"{metric.label} published"),
            replace(_POINTS, key=f"{metric.key} gap", label="Gap"),
        ]
    shots, seeds = (", ".join(map(str, numbers)) for numbers in (summary.shots, summary.seeds))
    caption = (
        f"Published: averages over the same tasks, from their papers, {_PUBLISHED_AT}. Here: "
        f"{summary.backbone}, K = {shots}, seeds {seeds}. Gap: percentage points, here less "
        "published."
    )
    return _table("Beside the published averages", caption, columns, values)


def _elsewhere_table(summary: Summary) -> Table:
    """Published figures of methods that take no part."""
    keys = list(dict.fromkeys(key for row in summary.elsewhere for key in row.figures))
    texts = [
        f"Averages over the same tasks {_PUBLISHED_AT}, as papers, repositories or later papers "
        "give them; none was measured here.",
        *(f"{row.name}: {row.note}." for row in summary.elsewhere if row.note),
        *summary.small_print,
    ]
    columns = _of_metrics(_PUBLISHED, _in_order(summary.metrics, keys))
    values = {row.name: dict(row.figures) for row in summary.elsewhere}
    return _table("Published averages of other methods", " ".join(texts), columns, values)


def _in_order(metrics: Sequence[Metric], keys: Sequence[str]) -> list[Metric]:
    return sorted((m for m in metrics if m.key in keys), key=lambda metric: keys.index(metric.key))


def settings_table(settings: Sequence[SettingsRow], small_print: str = "") -> Table:
    """Which settings ran where, and whether they were published."""
    from promptot.experiments.settings_listing import epoch_text, state_text

    caption = (
        "Published: for this method, protocol, data set and number of shots. Not published: the "
        "recipe's own values. Changed: published ones with values of one's own. Epoch: whose "
        f"prompts are tested, the last one unless it says of how many. {small_print}"
    )
    lines = [
        (
            row.method,
            row.where,
            state_text(row),
            epoch_text(row),
            "; ".join(f"{key} = {_setting(value)}" for key, value in row.differs.items()),
        )
        for row in settings
    ]
    return Table.of(_SETTINGS, lines, caption=caption.strip(), title="Settings")


def _setting(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _diagnostic_table(summary: Summary) -> Table:
    columns = [
        Column(key, label, "decimal", None, digits=1 if key == "seconds" else 3)
        for key, label in DIAGNOSTICS.items()
    ]
    caption = (
        "Mean over all cells. Off-diagonal mass and entropy of the transport plans: over all steps "
        "(0: point-wise). Drift from the frozen model's features: in the last epoch. Seconds: of "
        "training one cell."
    )
    values = {method.label: dict(method.diagnostics) for method in summary.methods}
    return _table("What training did", caption, columns, values)
