"""Helper modules stand beside the tests that use them."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("backbones", "golden"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
