"""Comparing methods: base-to-novel, cross-dataset, domain generalization, few-shot."""

from __future__ import annotations

from promptot.experiments.benchmarking import Benchmark, benchmark_settings, run_benchmark
from promptot.experiments.methods import Method, parse_methods
from promptot.experiments.protocol import PROTOCOLS, Metric, Protocol
from promptot.experiments.run_cells import Observer
from promptot.experiments.summary import Summary

__all__ = [
    "PROTOCOLS",
    "Benchmark",
    "Method",
    "Metric",
    "Observer",
    "Protocol",
    "Summary",
    "benchmark_settings",
    "parse_methods",
    "run_benchmark",
]
