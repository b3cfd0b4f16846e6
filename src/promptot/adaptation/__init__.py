"""What learns, and the student: a frozen CLIP with an adaptation and a read-out."""

from promptot.adaptation.adaptation import Adaptation
from promptot.adaptation.build_prompts import DESIGNS, build_prompts
from promptot.adaptation.cocoop import CoCoOpPrompts
from promptot.adaptation.ivlp import IVLPPrompts
from promptot.adaptation.maple import MaPLePrompts

__all__ = [
    "DESIGNS",
    "Adaptation",
    "CoCoOpPrompts",
    "IVLPPrompts",
    "MaPLePrompts",
    "build_prompts",
]
