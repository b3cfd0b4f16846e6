"""Choosing settings on validation images: a few trials, their trade-off, one recommendation."""

from __future__ import annotations

from promptot.experiments.tuning.search import next_settings
from promptot.experiments.tuning.trial_points import Point, pareto_front, recommend
from promptot.experiments.tuning.tune_task import tune
from promptot.experiments.tuning.tuning_result import Tuning

__all__ = ["Point", "Tuning", "next_settings", "pareto_front", "recommend", "tune"]
