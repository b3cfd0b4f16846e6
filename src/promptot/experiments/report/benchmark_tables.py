"""A benchmark's tables: in Markdown, LaTeX and the terminal, and all figures as CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from promptot.files.csv_text import Number, csv_line
from promptot.files.writing import write_text
from promptot.reports.tables import MISSING, format_difference, printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from promptot.evaluation.statistics import Difference
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
        task: the task that it is about, if it is about one.
        prose: whether the cells are words, not figures.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: Collection[tuple[int, int]] = ()
    caption: str = ""
    task: str = ""
    prose: bool = False


def benchmark_tables(summary: Summary) -> list[TextTable]:
    """The main table, the differences to the control and to what was published, what else was
    published, the settings of a suite, what the plans did, and one table a task.
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
    if summary.elsewhere:
        tables.append(_elsewhere_table(summary))
    if summary.settings:
        print_here = not summary.elsewhere
        small_print = " ".join(summary.small_print) if print_here else ""
        tables.append(settings_table(summary.settings, small_print))
    tables.append(_diagnostic_table(summary))
    if len(summary.tasks) > 1:
        tables += [
            replace(
                _figure_table(
                    f"Trained on: {task}" if summary.tested else f"Task: {task}",
                    summary,
                    labels,
                    [method.by_task.get(task, {}) for method in summary.methods],
                    "Accuracy in percent.",
                ),
                task=task,
            )
            for task in summary.tasks
        ]
    return tables


def format_figure(figure: Figure | None) -> str:
    """Percent, with the standard deviation where there is one.

    Example:
        >>> from promptot.experiments.summary import Figure
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
    lines.append("|---|" + ("---|" if table.prose else "---:|") * (len(table.header) - 1))
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


def _latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def _latex_note(text: str) -> str:
    return rf"\noindent {_latex(text)}"


def to_latex(table: TextTable) -> str:
    """The table for LaTeX with the package booktabs."""
    escape = _latex

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
            rf"  \begin{{tabular}}{{l{('l' if table.prose else 'r') * (len(table.header) - 1)}}}",
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
        if table.prose:
            shown.add_column(Text(printable(label)), overflow="fold")
            continue
        narrow = printable(label).replace(" ", "\n")  # so that as much as can be fits 80 columns
        shown.add_column(Text(narrow), justify="right", overflow="fold")
    for number, row in enumerate(table.rows):
        cells = [Text(printable(row[0]).replace("[", "\n[", 1))]
        for column, text in enumerate(row[1:], start=1):
            if table.prose:
                last = column == len(row) - 1  # a list of values
                cells.append(Text(printable(text).replace("; ", "\n" if last else "; ")))
                continue
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
    """Every figure, one a line; shares in 0..1. Task "all": over all tasks; `over`: what the
    interval from `low` to `high` is over. Published figures of the same tasks are called so in the
    place of the split.
    """
    header = "protocol,split,task,method,metric,mean,sd,rank,control,difference,low,high,over"
    lines = [csv_line(header.split(","))]

    def number(value: float | None) -> str:
        return Number("" if value is None or math.isnan(value) else f"{value:.6g}")

    for method in summary.methods:
        for task, figures in {"all": method.figures, **method.by_task}.items():
            for metric in summary.metrics:
                figure = figures.get(metric.key)
                if figure is None:
                    continue
                gap = method.differences.get(metric.key) if task == "all" else None
                main = task == "all" and metric is summary.metrics[0]
                line = [summary.protocol, summary.split, task, method.label, metric.key]
                line += [number(figure.mean), number(figure.sd)]
                line += [number(method.rank) if main else "", summary.control if gap else ""]
                line += [number(v) for v in (gap.value, gap.low, gap.high)] if gap else [""] * 3
                line += [("seeds and images" if gap.over_seeds else "images") if gap else ""]
                lines.append(csv_line(line))
        for key, value in method.diagnostics.items():
            line = [summary.protocol, summary.split, "all", method.label, key, number(value)]
            lines.append(csv_line(line + [""] * 7))
    theirs = [*summary.published.items(), *((row.name, row.figures) for row in summary.elsewhere)]
    for name, published in theirs:
        for key, value in published.items():
            line = [summary.protocol, "published", "all", name, key, number(value)]
            lines.append(csv_line(line + [""] * 7))
    return "".join(lines)


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
        "% needs \\usepackage{booktabs}\n"
        + "\n\n".join([*map(to_latex, tables), *map(_latex_note, summary.notes)])
        + "\n",
        to_csv(summary),
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


def _figure_table(
    title: str,
    summary: Summary,
    labels: Sequence[str],
    figures: Sequence[Mapping[str, Figure]],
    caption: str,
) -> TextTable:
    """Methods by metrics; with several seeds the best of each column, as shown, in bold."""
    present = [m for m in summary.metrics if any(m.key in found for found in figures)]
    strong = set()
    for column, metric in enumerate(present, start=1):
        shown = [round(1000 * f[metric.key].mean) if metric.key in f else -1 for f in figures]
        if len(summary.seeds) > 1 and len({value for value in shown if value >= 0}) > 1:
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
        f"Percentage points, paired by task, seed and image, with {interval_note(summary)}.",
    )


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


def _elsewhere_table(summary: Summary) -> TextTable:
    """Published figures of methods that take no part."""
    keys = list(dict.fromkeys(key for row in summary.elsewhere for key in row.figures))
    metrics = [metric for metric in summary.metrics if metric.key in keys]
    metrics.sort(key=lambda metric: keys.index(metric.key))
    rows = [
        [
            row.name,
            *(f"{100 * f:.2f}" if (f := row.figures.get(m.key)) else MISSING for m in metrics),
        ]
        for row in summary.elsewhere
    ]
    noted = [f"{row.name}: {row.note}." for row in summary.elsewhere if row.note]
    return TextTable(
        "Published averages of other methods",
        ["", *(metric.label for metric in metrics)],
        rows,
        (),
        " ".join(
            [
                "Averages over the same tasks for CLIP ViT-B/16 and 16 shots, as papers, "
                "repositories or later papers give them; none was measured here.",
                *noted,
                *summary.small_print,
            ]
        ),
    )


def settings_table(settings: Sequence[SettingsRow], small_print: str = "") -> TextTable:
    """Which settings ran where, and whether they were published."""
    from promptot.experiments.settings_listing import epoch_text, state_text

    return TextTable(
        "Settings",
        ["", "Trained on", "Settings", "Epoch", "Values that are not the recipe's"],
        [
            [
                row.method,
                row.where,
                state_text(row),
                epoch_text(row) or MISSING,
                "; ".join(f"{key} = {_setting(v)}" for key, v in row.differs.items()) or MISSING,
            ]
            for row in settings
        ],
        (),
        "Published: for this method, protocol, data set and number of shots. Not published: the "
        "recipe's own values. Changed: published ones with values of one's own. Epoch: whose "
        f"prompts are tested, the last one unless it says of how many. {small_print}".strip(),
        prose=True,
    )


def _setting(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


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
