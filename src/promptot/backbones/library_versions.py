"""Versions of the libraries that numbers depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("promptot", "torchvision", "timm", "open_clip_torch", "transformers", "pot")


def versions() -> dict[str, str]:
    """Versions of Python, PyTorch and of those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
