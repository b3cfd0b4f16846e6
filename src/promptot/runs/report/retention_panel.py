"""What an adapted model still knows, said for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptot.evaluation.retention import AnchorWords, Cosine, Retention, Share, paired_change
from promptot.evaluation.scoring import Scores
from promptot.reports import Column, Fact, Measure, ResultTable, Row
from promptot.reports.tables import format_difference, format_interval, format_value

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


def retention_facts(retention: Retention) -> list[Fact]:
    """How far features moved, and what that did to words that are no classes."""
    facts = []
    anchors = retention.anchors
    if anchors is not None:
        if anchors.agreement is not None:
            facts.append(Fact(
                "Same answer among anchor words", format_value(anchors.agreement.value, "share"),
                f"Of {anchors.agreement.total} images, asked to choose among {anchors.words} "
                "everyday words: how often both models choose the same.",
            ))  # fmt: skip
        facts.append(Fact(
            "Anchor words still told apart", format_value(anchors.kept.value, "share"),
            f"Of {anchors.words} words: how many are still nearest to their own frozen feature.",
        ))  # fmt: skip
    for label, cosine in (
        ("Image features", retention.image),
        ("Class names", retention.text),
        ("Anchor words", anchors.text if anchors else None),
    ):
        if cosine is not None:
            facts.append(_drift(label, cosine))
    return facts


def retention_lines(retention: Retention) -> dict[str, str]:
    """What was measured and its figures, for a terminal."""
    lines: dict[str, str] = {}
    anchors = retention.anchors
    if anchors is not None and anchors.agreement is not None:
        share = format_value(anchors.agreement.value, "share")
        lines[f"same answer among {anchors.words} anchor words"] = share
    if anchors is not None:
        lines["anchor words still told apart"] = format_value(anchors.kept.value, "share")
    cosines = [
        f"{label} {cosine.mean:.3f}"
        for label, cosine in (
            ("images", retention.image),
            ("class names", retention.text),
            ("anchor words", anchors.text if anchors else None),
        )
        if cosine is not None
    ]
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


def retention_table(
    name: str, retention: Retention, scores: Mapping[str, Scores]
) -> ResultTable | None:
    """Accuracy before and after where the model was not trained, as far as labels exist."""
    columns, before, after = [], {}, {}
    novel = scores.get("novel") or scores.get("other classes")
    for key, label, tested, note in (
        ("novel", "Held-out classes", novel, "Classes of the same folder that it saw no image of."),
        (
            "others",
            "Other drawings",
            retention.others,
            "Drawings of other things, which the bundled model was made for; their names to choose "
            "from.",
        ),
    ):
        if tested is not None:
            columns.append(Column(key, label, note=f"{len(tested.labels)} images. {note}"))
            before[key] = Measure(tested.teacher_accuracy, tested.teacher_interval)
            after[key] = Measure(tested.student_accuracy, tested.student_interval)
    anchors = retention.anchors
    if anchors is not None and anchors.frozen_accuracy and anchors.adapted_accuracy:
        note = f"The test images, with {anchors.words} everyday words competing with their names."
        columns.append(Column("anchors", "Among anchor words", note=note))
        before["anchors"] = _measure(anchors.frozen_accuracy)
        after["anchors"] = _measure(anchors.adapted_accuracy)
    if not columns:
        return None
    return ResultTable(
        [Row(FROZEN, before), Row(name, after)],
        columns,
        caption=f"{retention_doubt(retention)} Accuracy of both models where nothing was learnt, "
        "or where much else competes. Intervals: 95 %, Wilson.".strip(),
    )


def facts_lead(retention: Retention, recipe: Mapping[str, Any], *, alone: bool = False) -> str:
    """What the words stand for, and what they can't tell.

    Args:
        alone: whether no table stands above it that says how good the frozen model is.
    """
    doubt = retention_doubt(retention) if alone else ""
    return f"{doubt} {_facts_lead(retention, recipe)}".strip()


def _facts_lead(retention: Retention, recipe: Mapping[str, Any]) -> str:
    anchors: AnchorWords | None = retention.anchors
    if anchors is None:
        return (
            "What was learned serves its own classes, or its text depends on the image, so there "
            "are no other words to compare."
        )
    text = (
        f"{anchors.words} everyday words that are no classes of this task stand for all that the "
        "model was not tuned on. This needs no labels, so it tells how much changed, not whether "
        "for the better."
    )
    if recipe.get("vocabulary.comparison", "none") != "none":
        text += " The recipe held on to words like these, so they flatter it."
    return text


def _drift(label: str, cosine: Cosine) -> Fact:
    note = f"Cosine to the frozen features, mean; 1 is unmoved. Lowest: {cosine.lowest:.3f}."
    return Fact(label, f"{cosine.mean:.3f}", note)


def _measure(share: Share) -> Measure:
    return Measure(share.value, share.interval)
