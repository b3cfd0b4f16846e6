"""From a recipe's `prompts` section to a prompt design that fits a backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from promptot.backbones.backbone import Backbone
from promptot.errors import PromptotError
from promptot.prompts.ivlp import IVLPPrompts
from promptot.recipes.schema import PromptsConfig


def build_prompts(
    config: PromptsConfig, backbone: Backbone, classes: int, generator: torch.Generator
) -> IVLPPrompts:
    """Build the prompts of a recipe for a backbone.

    A depth beyond a tower's last block is cut to the number of its blocks.

    Args:
        config: the recipe's `prompts` section; its design must not be "none".
        classes: number of classes, for class-specific context.
        generator: source of the random start.

    Raises:
        PromptotError: `init_words` has another number of tokens than the context.
    """
    image, text = backbone.image_tower, backbone.text_tower
    return IVLPPrompts(
        text_width=text.width,
        vision_width=image.width,
        text_tokens=config.text_tokens,
        text_depth=min(config.text_depth, text.layers),
        vision_tokens=config.vision_tokens,
        vision_depth=min(config.vision_depth, image.layers),
        initial_context=_initial_context(config, backbone),
        classes=classes if config.class_specific else None,
        generator=generator,
    )


def _initial_context(config: PromptsConfig, backbone: Backbone) -> Tensor | None:
    """Embeddings of `init_words`, [n, W]; None where the context starts at random."""
    if not config.init_words or not config.text_tokens:
        return None
    ids = backbone.tokenizer.encode(config.init_words)[1:-1]
    if len(ids) != config.text_tokens:
        raise PromptotError(
            f"'{config.init_words}' has {len(ids)} tokens for this backbone, "
            f"and prompts.text_tokens is {config.text_tokens}.",
            fix=f"Set prompts.text_tokens={len(ids)}, or prompts.init_words=null for a random "
            "start.",
        )
    embedding: nn.Embedding = backbone.text_tower.token_embedding
    return embedding(torch.tensor(ids, device=embedding.weight.device)).detach().cpu()
