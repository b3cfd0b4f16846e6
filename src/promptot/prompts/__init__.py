"""What learns: prompt tokens for the towers of a frozen CLIP."""

from promptot.prompts.build import build_prompts
from promptot.prompts.ivlp import IVLPPrompts
from promptot.prompts.tokens import PromptTokens

__all__ = ["IVLPPrompts", "PromptTokens", "build_prompts"]
