"""Comparing methods: base-to-novel, cross-dataset, domain generalization, few-shot."""

from __future__ import annotations

from promptot.protocols.benchmark import Benchmark, benchmark_settings, run_benchmark
from promptot.protocols.methods import Method, parse_methods
from promptot.protocols.protocol import PROTOCOLS, Metric, Protocol
from promptot.protocols.runner import Observer
from promptot.protocols.summary import Summary

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
