"""What a run is made with: what a resumed run must have in common with the interrupted one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

SCHEME = 2
"""Of what a run to resume is known by. 1 (not noted) knew the backbone by its weights alone."""
_PARTS = {
    "recipe": "the recipe or its values",
    "seed": "the seed",
    "backbone": "the backbone, its precision or what it does with images and text",
    "classes": "the classes",
    "template": "the template",
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
        template: the sentences that the frozen model reads; None where an earlier version did not
            note them.
        train: digest of class names, synonyms, and the training images' bytes and labels.
        vocabulary: digest of the anchor words.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    scheme: int
    recipe: dict[str, Any]
    seed: int
    backbone: str
    classes: str
    template: list[str] | None = None
    train: str
    vocabulary: str

    def differences(self, other: MadeWith) -> list[str]:
        """What is not the same, in words."""
        noted = {key: what for key, what in _PARTS.items() if getattr(self, key) is not None}
        return [what for key, what in noted.items() if getattr(self, key) != getattr(other, key)]


def read_made_with(noted: Any) -> MadeWith | None:
    """What a manifest or a checkpoint noted; None where it was not noted, or not by this scheme."""
    try:
        found = MadeWith.model_validate(noted)
    except ValidationError:
        return None
    return found if found.scheme == SCHEME else None


def digest(lines: Sequence[str]) -> str:
    """What a run learns from, as one hash."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
