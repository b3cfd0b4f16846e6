"""What learns: prompt tokens for the towers of a frozen CLIP."""

from promptot.prompts.build import DESIGNS, build_prompts
from promptot.prompts.cocoop import CoCoOpPrompts
from promptot.prompts.design import PromptDesign
from promptot.prompts.ivlp import IVLPPrompts
from promptot.prompts.maple import MaPLePrompts
from promptot.prompts.tokens import PromptTokens

__all__ = [
    "DESIGNS",
    "CoCoOpPrompts",
    "IVLPPrompts",
    "MaPLePrompts",
    "PromptDesign",
    "PromptTokens",
    "build_prompts",
]
