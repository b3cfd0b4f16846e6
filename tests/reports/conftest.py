"""A report with everything in it, small."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptot.reports import (
    Answer,
    ExampleImage,
    History,
    Measure,
    PlanPicture,
    ReportData,
    Row,
    Table,
)

sys.path.insert(0, str(Path(__file__).parent))  # for `markup`


@pytest.fixture
def full_table() -> Table:
    return Table(
        rows=[
            Row("zero-shot", {"base": Measure(0.6917, (0.631, 0.747)), "novel": 0.7203,
                              "harmonic_mean": 0.7057, "retention": 0.7341}),
            Row("IVLP", {"base": Measure(0.8792, (0.832, 0.915)), "novel": 0.6695,
                         "harmonic_mean": 0.7601, "retention": 0.6537, "seconds": 21.4}),
            Row("Prompt-OT", {"base": 0.8583, "novel": 0.7458, "harmonic_mean": 0.7981,
                              "retention": 0.7293, "off_diagonal_mass": 0.0, "seconds": 84.9}),
        ],
        caption="Styles never seen in pretraining.",
    )  # fmt: skip


@pytest.fixture
def full_report(full_table: Table) -> ReportData:
    steps = [1, 2, 3]
    image = Image.new("RGBA", (300, 200), (200, 30, 30, 128))
    names = ["red apple", "tangerine", "grapes"]
    answers = [
        Answer("zero-shot", [("tangerine", 0.512), ("red apple", 0.333), ("grapes", 0.101)]),
        Answer("Prompt-OT", [("red apple", 0.877), ("tangerine", 0.084), ("grapes", 0.021)]),
    ]
    plan = np.array([[0.3, 0.03, 0.0], [0.03, 0.3, 0.0], [0.0, 0.0, 0.34]])
    return ReportData(
        title="promptot demo",
        headline="Prompt-OT gains 16.7 points.",
        subtitle="Food and drink, 16 shots.",
        results=full_table,
        histories=[
            History("IVLP", steps, {"total": [1.5, 1.0, 0.5], "image_drift": [0.0, 0.2, 0.4]}),
            History(
                "Prompt-OT",
                steps,
                {"total": [1.5, 1.1, 0.7], "off_diagonal_mass": [0.0, 0.25, 0.0]},
            ),
        ],
        examples=[ExampleImage(image, "red apple", answers, note="base class")],
        plans=[PlanPicture(plan, names, "The first batch")],
        recipes={
            "ivlp": {"optim.lr": 0.0025, "optim.epochs": 20, "objective.strength": 0.0},
            "prompt-ot": {"optim.lr": 0.005, "optim.epochs": 20, "objective.eta": 0.5},
        },
        environment={"torch": "2.6.0", "seed": 17, "backbone hash": "9f31c0a7", "seconds": 71.25},
        caveats=["The model is tiny."],
        notes=["2 images could not be read."],
    )
