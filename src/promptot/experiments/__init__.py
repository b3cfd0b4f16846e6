"""Comparing methods: base-to-novel, cross-dataset, domain generalization, few-shot."""

from __future__ import annotations

from promptot.experiments.benchmarking import (
    Benchmark,
    benchmark,
    benchmark_settings,
)
from promptot.experiments.cell_progress import BenchmarkListener
from promptot.experiments.methods import Method, parse_methods
from promptot.experiments.protocols import PROTOCOLS, Metric, Protocol
from promptot.experiments.summary import Summary

__all__ = [
    "PROTOCOLS",
    "Benchmark",
    "BenchmarkListener",
    "Method",
    "Metric",
    "Protocol",
    "Summary",
    "benchmark",
    "benchmark_settings",
    "parse_methods",
]
