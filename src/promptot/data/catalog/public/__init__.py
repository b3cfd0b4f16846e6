"""The public benchmarks: where their files lie, their splits, names and templates."""

from __future__ import annotations

from promptot.data.catalog.public.check_data import SetCheck, check_set, check_sums
from promptot.data.catalog.public.load_public import PublicTask, load_public
from promptot.data.catalog.public.public_sets import PublicSet, find_set, public_sets

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
