"""What a run will cost, told before it starts: memory from the shapes, time from one trial step."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from promptot.adaptation.student import PromptedModel
from promptot.backbones.towers.packing import PackedText
from promptot.backbones.towers.transformer import Transformer
from promptot.data.memory_bounds import free_bytes
from promptot.errors import PromptotError

GIB = 2**30
# Tensors of one token's width that the backward pass keeps in each block. In fp32: the inputs of
# both norms. In the precision of the matrices: queries, keys, values; the image tower also keeps
# the attended values.
RESIDUAL_TENSORS = 2
IMAGE_TENSORS = 4
TEXT_TENSORS = 3


@dataclass(frozen=True)
class Estimate:
    """Cost of training.

    Attributes:
        step_seconds: one optimiser step, loading of its images included.
        steps: optimiser steps an epoch.
        memory_bytes: peak of the whole process, or of the GPU where that is used.
        available_bytes: what there is of it, this process's part included.
    """

    step_seconds: float
    steps: int
    memory_bytes: int
    available_bytes: int

    @property
    def epoch_seconds(self) -> float:
        return self.step_seconds * self.steps


def activation_bytes(model: PromptedModel, batch_size: int, words: int = 0) -> int:
    """Bytes that one training step keeps for its backward pass.

    The teacher keeps nothing; of the student, the prompted image tower keeps
    B · (1 + N + m) tokens a block, and the text tower the shared prefix once and the own tokens of
    each class and anchor word; all of that B times where the text depends on the image.

    Args:
        words: anchor words a step.
    """
    prompts = model.prompt_tokens()
    total = 0
    if prompts.vision:
        tower = model.backbone.image_tower
        tokens = batch_size * (1 + tower.patches + prompts.vision[0].shape[-2])
        total += _transformer_bytes(tower.transformer, tokens, IMAGE_TENSORS)
    if prompts.text:
        context = prompts.text[0]
        text = _packed_text(model, context.shape[-2], words)
        shared = len(text.prefix) + context.shape[-2]
        tokens = len(text.suffixes) + shared * (context.shape[0] if context.dim() == 3 else 1)
        pairs = sum(g.classes * g.length * (g.length + shared) for g in text.groups)
        passes = 1 if prompts.shift is None else batch_size
        transformer = model.backbone.text_tower.transformer
        total += passes * _transformer_bytes(transformer, tokens, TEXT_TENSORS)
        heads, size = transformer.blocks[0].attn.heads, transformer.blocks[0].element_size
        total += passes * len(transformer.blocks) * pairs * heads * (4 + 2 * size)
    return total


def _packed_text(model: PromptedModel, context_tokens: int, words: int) -> PackedText:
    """The class names and the first `words` of the vocabulary, as a step packs them."""
    names = [*model.read_names, *model.vocabulary[:words]]
    fixed_words = "" if model.prompts is None else model.prompts.fixed_words
    backbone = model.backbone
    return backbone.pack_names(backbone.tokenize_names(names, context_tokens, fixed_words))


def _transformer_bytes(transformer: Transformer, tokens: int, tensors: int) -> int:
    block = transformer.blocks[0]
    width, hidden = block.mlp.c_fc.in_features, block.mlp.c_fc.out_features
    per_token = RESIDUAL_TENSORS * width * 4 + (tensors * width + hidden) * block.element_size
    last = width * 4 + 2 * width * block.element_size  # only keys and values: one query is read
    return tokens * ((len(transformer.blocks) - 1) * per_token + last)


def memory_estimate(model: PromptedModel, batch_size: int, words: int = 0) -> int:
    """Peak bytes of training: what is held now, what backward keeps, and the largest temporary."""
    device = model.backbone.device
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_bytes()
    kept = activation_bytes(model, batch_size, words)
    layers = max(model.backbone.image_tower.layers, model.backbone.text_tower.layers)
    return held + kept + 2 * kept // layers


def available_bytes(device: torch.device) -> int:
    """Memory that this process may use in all: what is free, and what it has already."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return free_bytes() + resident_bytes()


def check_memory(
    model: PromptedModel, batch_size: int, words: int = 0, available: int | None = None
) -> tuple[int, int]:
    """Estimated and available bytes for batches of images and `words` anchor words a step.

    Args:
        available: by default what `available_bytes` says.

    Raises:
        PromptotError: the estimate is more than there is.
    """
    needed = memory_estimate(model, batch_size, words)
    available = available_bytes(model.backbone.device) if available is None else available
    if needed > available:
        more = f" and {words} anchor words" if words else ""
        raise PromptotError(
            f"Training needs about {needed / GIB:.1f} GiB of memory for "
            f"{len(model.class_names)} classes{more} in batches of {batch_size}; "
            f"{available / GIB:.1f} GiB are there.",
            fix="Lower optim.batch_size, prompts.text_depth, prompts.vision_depth or "
            "vocabulary.per_step, use --precision bf16, or train on fewer classes.",
        )
    return needed, available


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0
