"""Packed class names whose context differs from image to image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from promptot.backbones.towers.packing import LengthGroup, PackedText
from promptot.backbones.towers.tiled_attention import Run


@dataclass(frozen=True, eq=False)
class ImageGroup(LengthGroup):
    """A group of one image's classes; all of them attend to that image's prefix.

    Attributes:
        image: which one.
    """

    image: int = 0

    @property
    def members(self) -> slice:
        return slice(self.image, self.image + 1)


@dataclass(frozen=True, eq=False)
class PerImageText(PackedText):
    """The same C classes for each of B images, for a context [B, n, W].

    The products with the weights run over the tokens of all images at once; each image's prefix is
    computed once and serves its C classes. Features come out as [B, C, D].

    Attributes:
        order: the images, [B]: which context each prefix has.
        class_order: original index of each packed class, [C].
    """

    class_order: Tensor

    @property
    def classes(self) -> int:
        return len(self.class_order)

    def _runs(self) -> tuple[Run, ...]:  # of one image, as each has the same
        own = self.groups[: len(self.groups) // len(self.order)]
        return tuple(Run(group.classes, group.length) for group in own)

    def _sets(self, prefixes: int) -> int | None:
        return prefixes

    def unsort(self, rows: Tensor) -> Tensor:
        """Rows [B · C, ...], each image's in packed order → [B, C, ...], as the class names are."""
        per_image = rows.unflatten(0, (len(self.order), -1))
        return per_image[:, torch.argsort(self.class_order)]


def repeat_for_images(text: PackedText, images: int) -> PerImageText:
    """`text`, packed classes with a context to come, for each of B images."""
    device = text.order.device
    order = torch.arange(images, device=device)
    starts = len(text.suffixes) * order[:, None]  # [B, 1]
    return PerImageText(
        prefix=text.prefix,
        suffixes=text.suffixes.repeat(images),
        offsets=text.offsets.repeat(images),
        order=order,
        ends=(starts + text.ends).flatten(),
        groups=tuple(
            ImageGroup(g.first_class, g.classes, g.length, g.future, g.beyond_end, image)
            for image in range(images)
            for g in text.groups
        ),
        class_order=text.order,
        tiled=text.tiled,
    )
