"""A benchmark's tables: in Markdown, LaTeX and the terminal, and all figures as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from promptot.files import write_text
from promptot.reports.tables import MISSING, format_difference, printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from promptot.evaluation.statistics import Difference
    from promptot.protocols.summary import Figure, Summary

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
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": "$-$", "–": "--", "→": r"$\to$", "†": r"$\dagger$", "λ": r"$\lambda$",
}  # fmt: skip


@dataclass(frozen=True)
class TextTable:
    """A table of written cells.

    Attributes:
        title: a few words.
        header: of the columns; the first is the rows' names.
        rows: as long as the header.
        strong: (row, column) of the cells to print bold.
        caption: what the figures are.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: Collection[tuple[int, int]] = ()
    caption: str = ""


def benchmark_tables(summary: Summary) -> list[TextTable]:
    """The main table, the differences to the control and to what was published, what the plans did,
    and one table a task.
    """
    labels = [method.label for method in summary.methods]
    figures = [method.figures for method in summary.methods]
    ranks = [MISSING if m.rank is None else f"{m.rank:.1f}" for m in summary.methods]
    main = _figure_table("All tasks", summary, labels, figures, _over(summary))
    main = TextTable(
        main.title,
        [*main.header, "Rank"],
        [[*row, rank] for row, rank in zip(main.rows, ranks, strict=True)],
        main.strong,
        f"{main.caption} Rank: by {summary.metrics[0].label}, averaged over tasks.",
    )
    tables = [main]
    if any(method.differences for method in summary.methods):
        tables.append(_difference_table(summary))
    if summary.published:
        tables.append(_published_table(summary))
    tables.append(_diagnostic_table(summary))
    if len(summary.tasks) > 1:
        tables += [
            _figure_table(
                f"Task: {task}",
                summary,
                labels,
                [method.by_task.get(task, {}) for method in summary.methods],
                "Accuracy in percent.",
            )
            for task in summary.tasks
        ]
    return tables


def format_figure(figure: Figure | None) -> str:
    """Percent, with the standard deviation where there is one.

    Example:
        >>> from promptot.protocols.summary import Figure
        >>> format_figure(Figure(0.7843, 0.0061)), format_figure(Figure(0.5, float("nan")))
        ('78.4 ± 0.6', '50.0')
    """
    if figure is None:
        return MISSING
    mean = f"{100 * figure.mean:.1f}"
    return mean if math.isnan(figure.sd) else f"{mean} ± {100 * figure.sd:.1f}"


def format_gap(gap: Difference | None) -> str:
    """Percentage points and their interval.

    Example:
        >>> from promptot.evaluation.statistics import Difference
        >>> format_gap(Difference(0.012, -0.003, 0.027))
        '+1.2 [−0.3, +2.7]'
    """
    if gap is None:
        return MISSING
    value, low, high = (format_difference(v, "share") for v in (gap.value, gap.low, gap.high))
    return f"{value} [{low}, {high}]"


def to_markdown(table: TextTable) -> str:
    """The table in Markdown, under its title.

    Example:
        >>> print(to_markdown(TextTable("T", ["", "HM"], [["a_b", "70.0"]], {(0, 1)})))
        ### T
        <BLANKLINE>
        | | HM |
        |---|---:|
        | a\\_b | **70.0** |
    """

    lines = [f"### {_escape(table.title)}", ""]
    lines.append(f"| {' | '.join(map(_escape, table.header))} |".replace("|  |", "| |"))
    lines.append("|---|" + "---:|" * (len(table.header) - 1))
    for number, row in enumerate(table.rows):
        written = [
            f"**{_escape(text)}**" if (number, column) in table.strong else _escape(text)
            for column, text in enumerate(row)
        ]
        lines.append(f"| {' | '.join(written)} |")
    if table.caption:
        lines += ["", _escape(table.caption)]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Text that Markdown takes as it is."""
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", printable(text))


def to_latex(table: TextTable) -> str:
    """The table for LaTeX with the package booktabs."""

    def escape(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in printable(text))

    def line(cells: Sequence[str]) -> str:
        return "    " + " & ".join(cells) + r" \\"

    rows = [
        [
            rf"\textbf{{{escape(text)}}}" if (number, column) in table.strong else escape(text)
            for column, text in enumerate(row)
        ]
        for number, row in enumerate(table.rows)
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape(f'{table.title}. {table.caption}'.strip())}}}",
            rf"  \begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"    \toprule",
            line([escape(text) for text in table.header]),
            r"    \midrule",
            *map(line, rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    )


def to_rich(table: TextTable) -> Table:
    """The table for a terminal; deviations and intervals stand below their figures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(
        title=Text(printable(table.title)),
        caption=Text(printable(table.caption), style="dim"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("", overflow="fold")
    for label in table.header[1:]:
        narrow = printable(label).replace(" ", "\n")  # so that as much as can be fits 80 columns
        shown.add_column(Text(narrow), justify="right", overflow="fold")
    for number, row in enumerate(table.rows):
        cells = [Text(printable(row[0]).replace("[", "\n[", 1))]
        for column, text in enumerate(row[1:], start=1):
            cells.append(_stacked(text, bold=(number, column) in table.strong))
        shown.add_row(*cells)
    return shown


def _stacked(text: str, bold: bool) -> Text:
    """A figure such as "78.4 ± 0.6" on two lines, the second one pale."""
    from rich.text import Text

    value, _, rest = text.partition(" ")
    shown = Text(value, style="bold" if bold else "")
    if rest:
        shown.append("\n" + rest.replace(", ", ",\n"), style="not bold dim")
    return shown


def to_csv(summary: Summary) -> str:
    """Every figure, one a line; shares in 0..1. Task "all": over all tasks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = "protocol,split,task,method,metric,mean,sd,rank,control,difference,low,high"
    writer.writerow(header.split(","))

    def number(value: float | None) -> str:
        return "" if value is None or math.isnan(value) else f"{value:.6g}"

    for method in summary.methods:
        for task, figures in {"all": method.figures, **method.by_task}.items():
            for metric in summary.metrics:
                figure = figures.get(metric.key)
                if figure is None:
                    continue
                gap = method.differences.get(metric.key) if task == "all" else None
                main = task == "all" and metric is summary.metrics[0]
                writer.writerow(
                    [summary.protocol, summary.split, task, method.label, metric.key]
                    + [number(figure.mean), number(figure.sd)]
                    + [number(method.rank) if main else "", summary.control if gap else ""]
                    + ([number(v) for v in (gap.value, gap.low, gap.high)] if gap else [""] * 3)
                )
        for key, value in method.diagnostics.items():
            writer.writerow(
                [summary.protocol, summary.split, "all", method.label, key, number(value)]
                + [""] * 6
            )
    return text.getvalue()


def write_tables(summary: Summary, folder: Path) -> list[Path]:
    """Write `tables.md`, `tables.tex` and `tables.csv`; gives their paths.

    Raises:
        PromptotError: the folder can't be written to.
    """
    tables = benchmark_tables(summary)
    head = f"## {summary.protocol}\n\n"
    notes = "".join(f"\n\n{_escape(note)}" for note in summary.notes)
    texts = (
        head + "\n\n".join(map(to_markdown, tables)) + notes + "\n",
        "% needs \\usepackage{booktabs}\n" + "\n\n".join(map(to_latex, tables)) + "\n",
        to_csv(summary),
    )
    for name, text in zip(TABLES, texts, strict=True):
        write_text(folder / name, text)
    return [folder / name for name in TABLES]


def _over(summary: Summary) -> str:
    """What the figures are over."""
    seeds = ", ".join(map(str, summary.seeds))
    shots = ", ".join(map(str, summary.shots))
    text = (
        f"Accuracy in percent on {summary.split} images of {', '.join(summary.tasks)}; K = {shots}"
    )
    if len(summary.seeds) > 1:
        return f"{text}; mean over tasks and seeds {seeds} ± standard deviation over seeds."
    return f"{text}; seed {seeds}."


def _figure_table(
    title: str,
    summary: Summary,
    labels: Sequence[str],
    figures: Sequence[Mapping[str, Figure]],
    caption: str,
) -> TextTable:
    """Methods by metrics; the best of each column, to the digits shown, in bold."""
    present = [m for m in summary.metrics if any(m.key in found for found in figures)]
    strong = set()
    for column, metric in enumerate(present, start=1):
        shown = [round(1000 * f[metric.key].mean) if metric.key in f else -1 for f in figures]
        if len({value for value in shown if value >= 0}) > 1:
            strong |= {(row, column) for row, v in enumerate(shown) if v == max(shown)}
    rows = [
        [label, *(format_figure(found.get(metric.key)) for metric in present)]
        for label, found in zip(labels, figures, strict=True)
    ]
    return TextTable(title, ["", *(m.label for m in present)], rows, strong, caption)


def _difference_table(summary: Summary) -> TextTable:
    others = [method for method in summary.methods if method.label != summary.control]
    present = [m for m in summary.metrics if any(m.key in o.differences for o in others)]
    rows, strong = [], set()
    for number, method in enumerate(others):
        gaps = [method.differences.get(metric.key) for metric in present]
        rows.append([method.label, *map(format_gap, gaps)])
        strong |= {(number, c) for c, gap in enumerate(gaps, start=1) if gap and gap.is_clear}
    return TextTable(
        f"Difference to {summary.control}",
        ["", *(metric.label for metric in present)],
        rows,
        strong,
        "Percentage points, paired by task, seed and image, with 95 % bootstrap intervals over "
        "seeds and images; bold where the interval leaves zero out.",
    )


def _published_table(summary: Summary) -> TextTable:
    """Own figures beside published ones, of the methods that have both."""
    measured = [method for method in summary.methods if method.label in summary.published]
    keys = list(dict.fromkeys(key for row in summary.published.values() for key in row))
    metrics = [metric for metric in summary.metrics if metric.key in keys]
    metrics.sort(key=lambda metric: keys.index(metric.key))
    rows = []
    for method in measured:
        row = [method.label]
        for metric in metrics:
            own, theirs = (
                method.figures.get(metric.key),
                summary.published[method.label][metric.key],
            )
            gap = MISSING if own is None else format_difference(own.mean - theirs, "share")
            row += [format_figure(own), f"{100 * theirs:.2f}", gap]
        rows.append(row)
    header = [
        text for metric in metrics for text in (metric.label, f"{metric.label} published", "Gap")
    ]
    shots = ", ".join(map(str, summary.shots))
    return TextTable(
        "Beside the published averages",
        ["", *header],
        rows,
        (),
        "Published: averages over the same tasks, from their papers, for CLIP ViT-B/16 and 16 "
        f"shots. Here: {summary.backbone}, K = {shots}, seeds "
        f"{', '.join(map(str, summary.seeds))}. Gap: percentage points, here less published.",
    )


def _diagnostic_table(summary: Summary) -> TextTable:
    def write(key: str, value: float | None) -> str:
        if value is None:
            return MISSING
        return f"{value:.1f}" if key == "seconds" else f"{value:.3f}"

    measured = [key for key in DIAGNOSTICS if any(key in m.diagnostics for m in summary.methods)]
    return TextTable(
        "What training did",
        ["", *(DIAGNOSTICS[key] for key in measured)],
        [
            [m.label, *(write(key, m.diagnostics.get(key)) for key in measured)]
            for m in summary.methods
        ],
        (),
        "Mean over all cells. Off-diagonal mass and entropy of the transport plans: over all steps "
        "(0: point-wise). Drift from the frozen model's features: in the last epoch. Seconds: of "
        "training one cell.",
    )
