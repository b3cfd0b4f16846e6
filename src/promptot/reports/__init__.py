"""Results for people: tables, figures and one self-contained page."""

from __future__ import annotations

from promptot.reports.details import (
    Calibration,
    ClassResult,
    Confusion,
    ConfusionPicture,
    Details,
    Fact,
)
from promptot.reports.figures import write_picture
from promptot.reports.page import render_report, write_report
from promptot.reports.page_values import (
    COMPARISON_COLUMNS,
    Answer,
    Column,
    ExampleImage,
    History,
    Measure,
    PlanPicture,
    ReportData,
    ResultTable,
    Row,
)
from promptot.reports.tables import markdown_table, rich_table

__all__ = [
    "COMPARISON_COLUMNS",
    "Answer",
    "Calibration",
    "ClassResult",
    "Column",
    "Confusion",
    "ConfusionPicture",
    "Details",
    "ExampleImage",
    "Fact",
    "History",
    "Measure",
    "PlanPicture",
    "ReportData",
    "ResultTable",
    "Row",
    "markdown_table",
    "render_report",
    "rich_table",
    "write_picture",
    "write_report",
]
