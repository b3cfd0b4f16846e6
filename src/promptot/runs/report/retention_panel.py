"""What an adapted model still knows, said for people."""

from __future__ import annotations

from collections.abc import Mapping

from promptot.evaluation.retention import Cosine, Retention, paired_change
from promptot.evaluation.scoring import Scores
from promptot.reports.page_values import KeyFigure
from promptot.reports.tables import (
    Column,
    Measure,
    Row,
    Table,
    format_difference,
    format_interval,
    format_value,
)

FROZEN = "Zero-shot"


def retention_doubt(retention: Retention) -> str:
    """What to say before anything else of retention: that little was there to be kept; or "".

    See `promptot.evaluation.retention.MOSTLY_WRONG` for when.
    """
    frozen = retention.frozen
    if frozen is None or not retention.mostly_wrong:
        return ""
    low, high = frozen.interval
    return (
        f"The frozen model is right on only {format_value(frozen.value, 'share')} of the "
        f"{frozen.total} test images (95 % interval {format_interval((low, high), 'share')}): what "
        "is kept of its answers is mostly wrong, so retention says little here."
    )


def key_figures(retention: Retention) -> list[KeyFigure]:
    """How far features moved, and what that did to words that are no classes."""
    figures = []
    anchors = retention.anchors
    if anchors is not None and anchors.agreement is not None:
        figures.append(KeyFigure(
            "Same answer among anchor words", format_value(anchors.agreement.value, "share"),
            f"Of {anchors.agreement.total} images, asked to choose among {anchors.words} "
            "everyday words: how often both models choose the same.",
        ))  # fmt: skip
    if anchors is not None:
        figures.append(KeyFigure(
            "Anchor words still told apart", format_value(anchors.told_apart.value, "share"),
            f"Of {anchors.words} words: how many are still nearest to their own frozen feature.",
        ))  # fmt: skip
    note = "Cosine to the frozen features, mean; 1 is unmoved. Lowest:"
    return figures + [
        KeyFigure(label, f"{cosine.mean:.3f}", f"{note} {cosine.lowest:.3f}.")
        for label, cosine in _cosines(retention)
    ]


def retention_lines(retention: Retention) -> dict[str, str]:
    """What was measured and its figures, for a terminal."""
    lines: dict[str, str] = {}
    anchors = retention.anchors
    if anchors is not None and anchors.agreement is not None:
        share = format_value(anchors.agreement.value, "share")
        lines[f"same answer among {anchors.words} anchor words"] = share
    if anchors is not None:
        lines["anchor words still told apart"] = format_value(anchors.told_apart.value, "share")
    cosines = [f"{label.lower()} {cosine.mean:.3f}" for label, cosine in _cosines(retention)]
    if cosines:
        lines["cosine to frozen features"] = ", ".join(cosines)
    others = retention.others
    if others is not None:
        change, ends = paired_change(others)
        low, high = (format_difference(end, "share") for end in ends)
        lines[f"{len(others.labels)} other drawings"] = (
            f"{format_value(others.teacher_accuracy, 'share')} → "
            f"{format_value(others.student_accuracy, 'share')} "
            f"({format_difference(change, 'share')}, 95 %: {low} to {high})"
        )
    return lines


def _cosines(retention: Retention) -> list[tuple[str, Cosine]]:
    """Those that were measured."""
    words = retention.anchors.text if retention.anchors else None
    labels = ("Image features", "Class names", "Anchor words")
    cosines = (retention.image, retention.text, words)
    return [(label, c) for label, c in zip(labels, cosines, strict=True) if c is not None]


def retention_table(name: str, retention: Retention, scores: Mapping[str, Scores]) -> Table | None:
    """Accuracy before and after where the model was not trained, as far as labels exist."""
    columns, before, after = [], {}, {}
    for key, label, tested, note in (
        ("novel", "Held-out classes", scores.get("novel") or scores.get("other classes"),
         "Classes of the same folder that it saw no image of."),
        ("others", "Other drawings", retention.others,
         "Drawings of other things, which the bundled model knows too; their names to choose "
         "from."),
    ):  # fmt: skip
        if tested is not None:
            columns.append(Column(key, label, note=f"{len(tested.labels)} images. {note}"))
            before[key] = Measure(tested.teacher_accuracy, tested.teacher_interval)
            after[key] = Measure(tested.student_accuracy, tested.student_interval)
    anchors = retention.anchors
    if anchors is not None and anchors.frozen_accuracy and anchors.adapted_accuracy:
        note = f"The test images, with {anchors.words} everyday words competing with their names."
        columns.append(Column("anchors", "Among anchor words", note=note))
        for measures, share in (
            (before, anchors.frozen_accuracy), (after, anchors.adapted_accuracy)
        ):  # fmt: skip
            measures["anchors"] = Measure(share.value, share.interval)
    if not columns:
        return None
    return Table(
        [Row(FROZEN, before), Row(name, after)],
        columns,
        caption=f"{retention_doubt(retention)} Accuracy of both models where nothing was learnt, "
        "or where much else competes. Intervals: 95 %, Wilson.".strip(),
    )


def key_figures_lead(
    retention: Retention, recipe: Mapping[str, object], *, alone: bool = False
) -> str:
    """What the words stand for, and what they can't tell.

    Args:
        alone: whether no table stands above it that says how good the frozen model is.
    """
    texts = [retention_doubt(retention)] if alone else []
    anchors = retention.anchors
    if anchors is None:
        texts.append(
            "What was learned serves its own classes, or its text depends on the image, so there "
            "are no other words to compare."
        )
    else:
        texts.append(
            f"{anchors.words} everyday words that are no classes of this task stand for all that "
            "the model was not tuned on. This needs no labels, so it tells how much changed, not "
            "whether for the better."
        )
        if recipe.get("vocabulary.comparison", "none") != "none":
            texts.append("The recipe held on to words like these, so they flatter it.")
    return " ".join(filter(None, texts))
