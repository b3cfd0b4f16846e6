"""From a recipe's `prompts` section to a prompt design that fits a backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.adaptation.adaptation import Adaptation, Arguments
from promptot.adaptation.cocoop import CoCoOpPrompts
from promptot.adaptation.ivlp import IVLPPrompts
from promptot.adaptation.lora import LoRA
from promptot.adaptation.maple import MaPLePrompts
from promptot.backbones.backbone import Backbone
from promptot.errors import PromptotError
from promptot.recipes.recipe_files import list_recipes, load_recipe
from promptot.recipes.schema import (
    CoCoOpConfig,
    IVLPConfig,
    LinearProbeConfig,
    LoRAConfig,
    MaPLeConfig,
    NoPromptsConfig,
    PromptsConfig,
)

Context = tuple[Tensor | None, str]
"""The start of the context [n, W], None for a random one, and the words that stay frozen."""


def build_prompts(
    config: PromptsConfig, backbone: Backbone, classes: int, generator: torch.Generator
) -> Adaptation:
    """Build the prompts of a recipe for a backbone.

    A depth beyond a tower's last block is cut to the number of its blocks. The first tokens of
    `init_words` start the context; words that are left over stay frozen between it and the class
    name.

    Args:
        config: the recipe's `prompts` section; its design must be one of `DESIGNS`.
        classes: number of classes, for class-specific context.
        generator: source of the random start.

    Raises:
        PromptotError: `init_words` does not fill the context, the context ends within a word, or
            as `check_prompts` raises it.
    """
    if isinstance(config, LinearProbeConfig | NoPromptsConfig):
        raise ValueError(f"design {config.design} has no prompts to build")
    check_prompts(config, backbone)
    start: dict[str, Any] = {"generator": generator}
    if isinstance(config, LoRAConfig):
        start["dropout"] = config.dropout
    else:
        start["initial_context"], start["fixed_words"] = _read_words(config, backbone)
    build: Callable[..., Adaptation] = DESIGNS[config.design]
    return build(**_SIZES[config.design](config, backbone, classes), **start)


def check_prompts(config: PromptsConfig, backbone: Backbone) -> None:
    """Refuse prompts in an image encoder that takes none, such as a ResNet.

    Raises:
        PromptotError: they are asked for; it names the recipes that the backbone can take.
    """
    if backbone.image_tower.promptable or not changes_images(config):
        return
    others = [name for name in list_recipes() if not changes_images(load_recipe(name).prompts)]
    lora = isinstance(config, LoRAConfig)
    what = "has no blocks to change" if lora else "takes no prompts"
    own = "prompts.towers=text, " if lora else ""
    raise PromptotError(
        f"The image encoder of '{backbone.name}' {what}: it is no Vision Transformer.",
        fix=f"Take {own}a recipe that leaves it as it is ({', '.join(others)}), or another "
        "backbone: `promptot backbones` says what can learn in each.",
    )


def changes_images(config: PromptsConfig) -> bool:
    """Whether something learns in the image encoder."""
    if isinstance(config, IVLPConfig):
        return config.vision_tokens > 0 and config.vision_depth > 0
    if isinstance(config, LoRAConfig):
        return config.towers != "text"
    return isinstance(config, MaPLeConfig)


def _ivlp(config: IVLPConfig, backbone: Backbone, classes: int) -> dict[str, int | None]:
    image, text = backbone.image_tower, backbone.text_tower
    return {
        "text_width": text.width,
        "vision_width": image.width,
        "text_tokens": config.text_tokens,
        "text_depth": min(config.text_depth, text.layers),
        "vision_tokens": config.vision_tokens,
        "vision_depth": min(config.vision_depth, image.layers),
        "classes": classes if config.class_specific else None,
    }


def _maple(config: MaPLeConfig, backbone: Backbone, classes: int) -> dict[str, int | None]:
    image, text = backbone.image_tower, backbone.text_tower
    return {
        "text_width": text.width,
        "vision_width": image.width,
        "tokens": config.text_tokens,
        "depth": min(config.text_depth, text.layers, image.layers),
        "cloned_projections": config.cloned_projections,
    }


def _cocoop(config: CoCoOpConfig, backbone: Backbone, classes: int) -> dict[str, int | None]:
    width, embed_dim = backbone.text_tower.width, backbone.embed_dim
    return {"text_width": width, "embed_dim": embed_dim, "tokens": config.text_tokens}


def _lora(config: LoRAConfig, backbone: Backbone, classes: int) -> Arguments:
    image, text = backbone.image_tower, backbone.text_tower
    return {
        "text_width": text.width,
        "vision_width": image.width,
        "text_hidden": text.mlp_width,
        "vision_hidden": image.mlp_width,
        "text_layers": text.layers if config.towers != "image" else 0,
        "vision_layers": image.layers if config.towers != "text" else 0,
        "rank": config.rank,
        "alpha": config.alpha,
        "targets": ",".join(config.targets),
    }


def _read_words(config: IVLPConfig | MaPLeConfig | CoCoOpConfig, backbone: Backbone) -> Context:
    """`init_words` as the start of the context and the words that stay frozen behind it."""
    if not config.init_words or not config.text_tokens:
        return None, ""
    words = config.init_words.split()
    starts = [" ".join(words[:count]) for count in range(len(words) + 1)]
    tokenizer, first = backbone.tokenizer, backbone.text_tower.starts
    around = len(tokenizer.encode(""))  # [SOS] and [EOS], or what this model has of them
    counts = [len(tokenizer.encode(start)) - around for start in starts]
    zeros = max(0, config.text_tokens - counts[-1]) if config.fill == "zeros" else 0
    tokens = config.text_tokens - zeros
    if tokens not in counts:
        raise PromptotError(
            f"'{config.init_words}' has {counts[-1]} tokens for this backbone, "
            f"and prompts.text_tokens is {config.text_tokens}.",
            fix=f"Set prompts.text_tokens={counts[-1]} (with fewer, down to the end of a word, the "
            "other words stay frozen), or prompts.init_words=null for a random start; with more, "
            "prompts.fill=zeros.",
        )
    learned = counts.index(tokens)
    ids = tokenizer.encode(starts[learned])[first : first + tokens]
    embedding = backbone.text_tower.token_embedding
    start = embedding(torch.tensor(ids, device=embedding.weight.device)).detach().cpu()
    return F.pad(start, (0, 0, zeros, 0)), " ".join(words[learned:])


_SIZES: dict[str, Callable[..., Mapping[str, int | float | str | None]]] = {
    "lora": _lora,
    "ivlp": _ivlp,
    "maple": _maple,
    "cocoop": _cocoop,
}
DESIGNS: dict[str, type[Adaptation]] = {
    design.name: design for design in (IVLPPrompts, MaPLePrompts, CoCoOpPrompts, LoRA)
}
