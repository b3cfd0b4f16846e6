"""Choosing settings on validation images: a few trials, their trade-off, one recommendation."""

from __future__ import annotations

from promptot.tuning.points import Point, pareto_front, recommend
from promptot.tuning.search import next_settings
from promptot.tuning.trials import Tuning, tune

__all__ = ["Point", "Tuning", "next_settings", "pareto_front", "recommend", "tune"]
