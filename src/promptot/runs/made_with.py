"""What a run is made with: what a resumed run must have in common with the interrupted one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from promptot.backbones.backbone import Backbone
from promptot.data.task import ImageTask
from promptot.recipes.schema import Recipe

SCHEME = 2
"""Of what a run to resume is known by. 1 (not noted) knew the backbone by its weights alone."""
_PARTS = {
    "recipe": "the recipe or its values",
    "seed": "the seed",
    "backbone": "the backbone, its precision or what it does with images and text",
    "classes": "the classes",
    "train": "the training images",
    "vocabulary": "the anchor words",
}


class MadeWith(BaseModel):
    """Everything that decides what a run learns; in its manifest and in its checkpoints.

    Attributes:
        scheme: of the other values.
        recipe: its values, but for what to do about a bad batch, which a resumed run may change.
        seed: of shots, start and order.
        backbone: digest of its identity.
        classes: which half of the classes, or "all".
        train: digest of class names, synonyms, and the training images' bytes and labels.
        vocabulary: digest of the anchor words.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    scheme: int
    recipe: dict[str, Any]
    seed: int
    backbone: str
    classes: str
    train: str
    vocabulary: str

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        recipe: Recipe,
        task: ImageTask,
        *,
        seed: int,
        classes: str,
        hashes: Sequence[str],
        words: Sequence[str],
    ) -> MadeWith:
        """That of a run.

        Args:
            task: with the shots that were drawn, over the classes that are learned.
            hashes: of the training images' bytes.
            words: the anchor words.
        """
        values = recipe.model_dump(mode="json")
        values["optim"].pop("on_nonfinite")
        names = ["\t".join([n, *task.synonyms.get(n, ())]) for n in task.class_names]
        labelled = [f"{h} {e.label}" for h, e in zip(hashes, task.train, strict=True)]
        return cls(
            scheme=SCHEME,
            recipe=values,
            seed=seed,
            backbone=backbone.identity().digest,
            classes=classes,
            train=_digest([*names, *labelled]),
            vocabulary=_digest(words),
        )

    def differences(self, other: MadeWith) -> list[str]:
        """What is not the same, in words."""
        return [w for key, w in _PARTS.items() if getattr(self, key) != getattr(other, key)]


def read_made_with(noted: Any) -> MadeWith | None:
    """What a manifest or a checkpoint noted; None where it was not noted, or not by this scheme."""
    try:
        found = MadeWith.model_validate(noted)
    except ValidationError:
        return None
    return found if found.scheme == SCHEME else None


def _digest(lines: Sequence[str]) -> str:
    """What a run learns from, as one hash."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
