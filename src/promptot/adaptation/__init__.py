"""What learns: prompt tokens for the towers of a frozen CLIP."""

from promptot.adaptation.build_prompts import DESIGNS, build_prompts
from promptot.adaptation.cocoop import CoCoOpPrompts
from promptot.adaptation.ivlp import IVLPPrompts
from promptot.adaptation.maple import MaPLePrompts
from promptot.adaptation.prompt_design import PromptDesign
from promptot.adaptation.prompt_tokens import PromptTokens

__all__ = [
    "DESIGNS",
    "CoCoOpPrompts",
    "IVLPPrompts",
    "MaPLePrompts",
    "PromptDesign",
    "PromptTokens",
    "build_prompts",
]
