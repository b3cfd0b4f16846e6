"""The card of an adapter: everything about it that is not a tensor, in `card.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from promptot.backbones.backbone import Backbone
from promptot.data.class_names import TemplateMean, check_template, is_name
from promptot.errors import PromptotError
from promptot.files.owned import head_of
from promptot.files.reading import Unreadable, parse_json
from promptot.objectives.fit import Fit

CARD = "card.json"
FORMAT_VERSION = 5
"""1 (promptot 0.1.0) knew the design "ivlp" only, and one template; 2 knew no synonyms; 3 knew the
backbone by its weights alone; 4 knew no "lora". All are read as they stand."""
PROMPTS_VERSION = 4  # what is written of anything but "lora", for those who read no more
LARGEST_CARD = 16 * 2**20  # bytes; a card holds names and numbers
MOST_CLASSES = 2**20
MOST_SETTINGS = 2**10  # of a backbone's function
LARGEST_SIZE = 2**16  # of a width, a depth, a number of tokens or of classes


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BackboneIdentity(_Part):
    """The frozen model that the prompts were trained in.

    Attributes:
        name: what it was loaded from.
        weight_hash: see `Backbone.weight_hash`.
        function: what is done with the weights, see `FunctionIdentity`; None where an older
            promptot did not note it.
    """

    name: str
    weight_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    function: dict[str, JsonValue] | None = Field(default=None, max_length=MOST_SETTINGS)

    @classmethod
    def of(cls, backbone: Backbone, name: str | None = None) -> BackboneIdentity:
        """That of a loaded backbone, under its own name or another one."""
        identity = backbone.identity()
        return cls.model_validate(
            {
                "name": backbone.name if name is None else name,
                "weight_hash": identity.weights,
                "function": dict(identity.function),
            }
        )


class LearnedShape(BaseModel):
    """A design's name and, beside it, the arguments that rebuild it."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[
        str,
        Annotated[int, Field(ge=0, le=LARGEST_SIZE)]
        | Annotated[float, Field(ge=0, le=LARGEST_SIZE, allow_inf_nan=False)]
        | str
        | None,
    ] = Field(init=False)

    design: str

    @property
    def arguments(self) -> dict[str, int | float | str | None]:
        return dict(self.__pydantic_extra__)


class Card(_Part):
    """Everything about an adapter that is not a tensor."""

    format_version: int = Field(default=PROMPTS_VERSION, ge=1)
    backbone: BackboneIdentity
    prompts: LearnedShape
    class_names: tuple[str, ...] = Field(max_length=MOST_CLASSES)
    template: str | tuple[str, ...]
    template_mean: TemplateMean = "normalised"
    synonyms: dict[str, tuple[str, ...]] = {}
    recipe: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    versions: dict[str, str] = {}
    tensors_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def fit(self) -> Fit:
        """What the logits were fitted by; a softmax where the card does not say."""
        return "sigmoid" if self.recipe.get("objective.fit") == "sigmoid" else "softmax"

    @property
    def recipe_name(self) -> str | None:
        """The recipe that it was made with; None where the card does not say."""
        name = self.recipe.get("name")
        return str(name) if name else None

    def as_json(self) -> dict[str, Any]:
        """The content of the file; older versions read what they know of it."""
        usual = {"template_mean"} if self.template_mean == "normalised" else set()
        return self.model_dump(mode="json", exclude=usual)


def read_card(content: bytes, place: Path | str) -> Card:
    """Check the content of a card.

    Args:
        place: the adapter's folder, for messages.

    Raises:
        PromptotError: it is damaged, or a newer promptot wrote it.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise damaged(place, f"'{CARD}' can't be read") from error
    version = _format_version(text)
    if version is not None and version > FORMAT_VERSION:
        raise PromptotError(
            f"The adapter in '{place}' has format version {version}; this promptot reads up to "
            f"{FORMAT_VERSION}.",
            fix="Update promptot: pip install -U promptot",
        )
    try:
        card = Card.model_validate_json(text)
        for template in (card.template,) if isinstance(card.template, str) else card.template:
            check_template(template)
        if not card.template or not card.class_names or not all(map(is_name, card.class_names)):
            raise ValueError("a class name or the template is empty")
        json.dumps(card.model_dump(mode="json"), ensure_ascii=False, allow_nan=False).encode()
        return card
    except PromptotError as error:
        raise damaged(place, f"'{CARD}' is not valid ({error.problem.rstrip('.')})") from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"
        raise damaged(place, f"'{CARD}' is not valid ({reason})") from error


def is_card(path: Path) -> bool | None:
    """Whether a file is an adapter's card, of any version; None if there is none, or it is
    damaged."""
    try:
        return "tensors_sha256" in parse_json(head_of(path, LARGEST_CARD))
    except (Unreadable, TypeError):
        return None


def damaged(place: Path | str, reason: str) -> PromptotError:
    """The error for an adapter that can't be read."""
    return PromptotError(
        f"The adapter in '{place}' is damaged: {reason}.", fix="Copy it again or train it again."
    )


def _format_version(text: str) -> int | None:
    """The format version of a card that may otherwise be unreadable to this version."""

    class Version(BaseModel):
        format_version: int

    try:
        return Version.model_validate_json(text).format_version
    except (ValidationError, RecursionError):
        return None
