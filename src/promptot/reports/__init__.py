"""Results for people: tables, figures and self-contained pages."""

from __future__ import annotations

from promptot.reports.figures import write_picture
from promptot.reports.page_values import (
    Answer,
    ExampleImage,
    History,
    PlanPicture,
    ReportData,
)
from promptot.reports.report_page import render_report, write_report
from promptot.reports.table_formats import markdown_table, rich_table
from promptot.reports.tables import Column, Measure, Row, Table

__all__ = [
    "Answer",
    "Column",
    "ExampleImage",
    "History",
    "Measure",
    "PlanPicture",
    "ReportData",
    "Row",
    "Table",
    "markdown_table",
    "render_report",
    "rich_table",
    "write_picture",
    "write_report",
]
