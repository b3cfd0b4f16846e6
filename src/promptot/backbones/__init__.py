"""Frozen CLIPs that can be prompted."""

from promptot.backbones.backbone import Backbone
from promptot.backbones.by_name import SOURCES, load_backbone, load_recorded
from promptot.backbones.preprocess import Preprocess

__all__ = ["SOURCES", "Backbone", "Preprocess", "load_backbone", "load_recorded"]
