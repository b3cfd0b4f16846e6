"""The public benchmarks: where their files lie, their splits, names and templates."""

from __future__ import annotations

from promptot.tasks.public.check import SetCheck, check_set, check_sums
from promptot.tasks.public.facts import PublicSet, find_set, public_sets
from promptot.tasks.public.loading import PublicTask, load_public

__all__ = [
    "PublicSet",
    "PublicTask",
    "SetCheck",
    "check_set",
    "check_sums",
    "find_set",
    "load_public",
    "public_sets",
]
