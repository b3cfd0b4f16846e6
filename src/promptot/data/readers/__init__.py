"""Where a user's images and labels come from: one module a format, one function for all."""

from __future__ import annotations

from promptot.data.readers.dispatch import BUNDLED, load_task

__all__ = ["BUNDLED", "load_task"]
