"""Our side of a check: a backbone as everything in this package uses it."""

from __future__ import annotations

from importlib.metadata import version

from promptot.backbones.backbone import Backbone
from promptot.backbones.checks.side import (
    IMAGE_POOLING,
    TEXT_POOLING,
    Reading,
    Side,
    TowerSettings,
    each,
    norms_of,
    settings_of,
    turned,
)
from promptot.backbones.encoders import ImageEncoder, TextEncoder
from promptot.backbones.towers.image_tower import ImageTower
from promptot.backbones.towers.padded_text_tower import PaddedTextTower
from promptot.backbones.towers.text_tower import TextTower
from promptot.backbones.towers.transformer import Transformer


def our_side(backbone: Backbone) -> Side:
    """A backbone; what is told of it is read from its modules as they are now."""
    read, tower = backbone.preprocess, backbone.text_tower
    reading = Reading(
        read.resolution, read.mean, read.std, read.interpolation, read.resize_mode, read.resized_to
    )

    image, text = _told_by_image_tower(backbone.image_tower), _told_by_text_tower(tower)

    def tokens(words: str) -> list[int]:
        ids = backbone.tokenizer.encode(words)
        if not isinstance(tower, PaddedTextTower):
            return ids
        return ids + [tower.pad] * (tower.context_length - len(ids))

    return Side(
        f"promptot {version('promptot')}",
        settings_of(image, text, reading),
        float(backbone.logit_scale),
        read.test(),
        tokens,
        backbone.encode_image,
        # As they are: a sentence of which a model reads nothing is compared too.
        lambda texts: backbone.encode_text(tower.pack(list(map(backbone.tokenizer.encode, texts)))),
        None if backbone.logit_bias is None else float(backbone.logit_bias),
    )


def _told_by_image_tower(tower: ImageEncoder) -> TowerSettings:
    """Of a network that is used as it is, nothing: what is in it is not ours."""
    if not isinstance(tower, ImageTower):
        return TowerSettings()
    return TowerSettings(
        *_told_by_blocks(tower.transformer),
        eps=norms_of(tower),
        pooling=IMAGE_POOLING[tower.pool],
        rotation=turned(tower.rotation),
    )


def _told_by_text_tower(tower: TextEncoder) -> TowerSettings:
    if isinstance(tower, TextTower):
        pool, padding = "end", None
    elif isinstance(tower, PaddedTextTower):
        pool, padding = tower.pool, tower.pad
    else:
        return TowerSettings(context=tower.context_length)
    return TowerSettings(
        *_told_by_blocks(tower.transformer),
        eps=norms_of(tower),
        pooling=TEXT_POOLING[pool],
        context=tower.context_length,
        padding=padding,
    )


def _told_by_blocks(transformer: Transformer) -> tuple[str, str]:
    """Activation and heads."""
    blocks = transformer.blocks
    return each(b.mlp.activation for b in blocks), each(b.attn.heads for b in blocks)
