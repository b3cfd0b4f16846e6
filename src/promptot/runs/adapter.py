"""What was learned, as a small folder: prompts or a linear head, and a card that describes it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors.torch import load, save

from promptot.adaptation import DESIGNS, PromptDesign
from promptot.adaptation.linear_head import LinearHead
from promptot.adaptation.readout import Readout
from promptot.adaptation.student import PromptedModel
from promptot.backbones.backbone import Backbone
from promptot.backbones.identity import PREPROCESS, differences
from promptot.data.class_names import TemplateMean, check_template, is_name
from promptot.errors import PromptotError, PromptotWarning
from promptot.files.owned import replace_folder, temporary_name, unknown_in
from promptot.files.reading import Unreadable, read_bytes
from promptot.files.weights_file import DAMAGED
from promptot.files.writing import output_folder, system_errors, write_bytes, write_json

FORMAT_VERSION = 4
"""1 (promptot 0.1.0) knew the design "ivlp" only, and one template; 2 knew no synonyms; 3 knew the
backbone by its weights alone. All are read as they stand."""
TENSORS = "prompts.safetensors"
CARD = "card.json"
LONGEST_VALUE = 60  # characters, in a message
LARGEST_CARD = 16 * 2**20  # bytes; a card holds names and numbers
LARGEST_TENSORS = 2**32  # bytes
MOST_CLASSES = 2**20
MOST_SETTINGS = 2**10  # of a backbone's function
LARGEST_SIZE = 2**16  # of a width, a depth, a number of tokens or of classes
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NOTHING = "none"

Learned = PromptDesign | Readout | None

_REBUILD: dict[str, Callable[..., PromptDesign | Readout]] = {
    **DESIGNS,
    LinearHead.name: LinearHead.empty,
}


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
    __pydantic_extra__: dict[str, Annotated[int, Field(ge=0, le=LARGEST_SIZE)] | str | None] = (
        Field(init=False)
    )

    design: str

    @property
    def arguments(self) -> dict[str, int | str | None]:
        return dict(self.__pydantic_extra__)


class Card(_Part):
    """Everything about an adapter that is not a tensor."""

    format_version: int = Field(default=FORMAT_VERSION, ge=1)
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


def save_adapter(
    folder: str | os.PathLike[str],
    learned: Learned,
    backbone: Backbone | BackboneIdentity,
    class_names: tuple[str, ...],
    template: str | tuple[str, ...],
    *,
    synonyms: Mapping[str, tuple[str, ...]] | None = None,
    template_mean: TemplateMean = "normalised",
    recipe: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Card:
    """Write an adapter folder: `prompts.safetensors` and `card.json`.

    The folder appears complete or not at all; an adapter that is there already is replaced.

    Args:
        learned: prompts or a linear head, as `PromptedModel.learned` gives them.
        backbone, class_names, template, synonyms, template_mean: of the model.
        recipe, metrics, versions: for the card.

    Raises:
        PromptotError: the folder holds something else, or can't be written: the disk is full, say.
    """
    state = {} if learned is None else learned.state_dict()
    if isinstance(backbone, Backbone):
        backbone = BackboneIdentity.of(backbone)
    tensors = save({key: value.detach().cpu().contiguous() for key, value in state.items()})
    card = Card(
        backbone=backbone,
        prompts=_describe(learned),
        class_names=class_names,
        template=template,
        template_mean=template_mean,
        synonyms=dict(synonyms or {}),
        recipe=dict(recipe or {}),
        metrics=dict(metrics or {}),
        versions=dict(versions or {}),
        tensors_sha256=hashlib.sha256(tensors).hexdigest(),
    )
    target = output_folder(folder)
    unknown = unknown_in(target, (CARD, TENSORS)) if target.exists() else []
    if unknown:
        raise PromptotError(
            f"'{target}' holds other files than an adapter, such as '{unknown[0]}'.",
            fix="Choose another folder for the adapter.",
        )
    staging = target.with_name(temporary_name())
    with system_errors(target):
        try:
            staging.mkdir(parents=True)
            write_bytes(staging / TENSORS, tensors)
            # Older versions read what they know.
            usual = {"template_mean"} if template_mean == "normalised" else set()
            write_json(staging / CARD, card.model_dump(mode="json", exclude=usual))
            replace_folder(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return card


def load_adapter(folder: str | os.PathLike[str]) -> tuple[Card, Learned]:
    """Read an adapter folder; every shape, hash and number is checked, and nothing is unpickled.

    Returns:
        the card and what was learned; `build_model` puts both to use.

    Raises:
        PromptotError: there is no adapter, it is damaged, or a newer promptot wrote it.
    """
    path = Path(folder)
    card = _read_card(path)
    tensors = _read_file(path, TENSORS, LARGEST_TENSORS)
    if hashlib.sha256(tensors).hexdigest() != card.tensors_sha256:
        raise _damaged(path, f"'{TENSORS}' is not the file that the card describes")
    if card.prompts.design == NOTHING:
        return card, None
    try:
        state = load(tensors)
    except DAMAGED as error:
        raise _damaged(path, f"'{TENSORS}' is not readable ({error!s:.200})") from error

    try:
        with torch.device("meta"):  # takes no memory, whatever the sizes
            learned = _REBUILD[card.prompts.design](**card.prompts.arguments)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, "its card describes no design that is known") from error
    expected = {key: value.shape for key, value in learned.state_dict().items()}
    if {key: value.shape for key, value in state.items()} != expected:
        raise _damaged(path, "the tensors are not those that the card announces")
    for key, value in state.items():
        if value.dtype not in FLOATS or not value.isfinite().all():
            raise _damaged(path, f"the tensor '{key}' holds values that are not finite numbers")
    learned.load_state_dict({k: v.float().clone() for k, v in state.items()}, assign=True)
    return card, learned


def build_model(card: Card, learned: Learned, backbone: Backbone) -> PromptedModel:
    """The model that an adapter was saved from, on the backbone's device.

    Raises:
        PromptotError: the adapter was trained in another backbone, or its parts don't fit together.
    """
    check_backbone(card, backbone)
    if learned is not None:
        _check_sizes(learned.arguments, backbone)
        learned.to(backbone.device)
    return PromptedModel(
        backbone,
        learned,
        card.class_names,
        card.template,
        synonyms=card.synonyms,
        template_mean=card.template_mean,
    )


def check_backbone(card: Card, backbone: Backbone) -> None:
    """Refuse to use an adapter in another model than the one it was trained in.

    Another precision is no other model. Neither is another way to clean unusual text before it is
    cut into tokens (see `describe_tokenizer`): so an adapter may be used in the same CLIP whichever
    library loads it. Nor is another way to prepare images: libraries differ by a pixel there, and
    who loads a folder of their own may have reasons; but they should know.

    Raises:
        PromptotError: the weights differ, or what is done with them: activation, heads, pooling,
            norms, context length, tokens.

    Warns:
        PromptotWarning: images are prepared in another way; or see `warn_of_activation`.
    """
    if backbone.weight_hash() != card.backbone.weight_hash:
        raise PromptotError(
            f"This adapter was trained in '{card.backbone.name}' "
            f"(weights {card.backbone.weight_hash[:12]}), not in '{backbone.name}' "
            f"(weights {backbone.weight_hash()[:12]}).",
            fix="Load the backbone that its card names.",
        )
    if card.backbone.function is None:
        warn_of_activation(card)
        return
    here = backbone.identity().function
    differ = differences(card.backbone.function, here)
    prepared = [name for name in differ if name.startswith(PREPROCESS)]
    differ = [name for name in differ if name not in prepared]
    if differ:
        raise PromptotError(
            f"This adapter was trained in '{card.backbone.name}', and '{backbone.name}' does "
            "something else with the same weights: "
            f"{describe_differences(card.backbone.function, here, differ)}.",
            fix="Load the backbone as its card names it; or train again in this one.",
        )
    if prepared:
        how = describe_differences(card.backbone.function, here, prepared)
        warnings.warn(
            f"This adapter was trained in '{card.backbone.name}', and '{backbone.name}' prepares "
            f"images in another way: {how}. It may get less right than its test said.",
            PromptotWarning,
            stacklevel=3,
        )


def describe_differences(
    there: Mapping[str, Any], here: Mapping[str, Any], names: Sequence[str]
) -> str:
    """The settings that differ, each with the value of an adapter and the one here."""

    def shown(value: Any) -> str:
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"

    return "; ".join(f"{n} was {shown(there[n])} and is {shown(here[n])} here" for n in names)


def warn_of_activation(card: Card) -> None:
    """Tell of an adapter that was trained in a model with another activation than it is meant for.

    Up to promptot 0.1.0 the activation of an open_clip model came from its architecture alone,
    where that of the pretrained tag decides. Cards of that time do not note it.

    Warns:
        PromptotWarning: the card names such a tag, and no activation.
    """
    if card.backbone.function is None and _had_wrong_activation(card.backbone.name):
        warnings.warn(
            f"This adapter was trained in '{card.backbone.name}' when promptot gave that model the "
            "wrong activation (GELU; these weights need QuickGELU), so it fits another model than "
            "the one that is loaded now. Train it again.",
            PromptotWarning,
            stacklevel=3,
        )


@cache
def _had_wrong_activation(name: str) -> bool:
    """Whether a name stands for a tag that needs QuickGELU on an architecture that does not."""
    source, _, spec = name.partition(":")
    architecture, _, tag = spec.rpartition("/")
    if source != "open_clip" or not architecture or ":" in architecture:  # "local-dir:", "hf-hub:"
        return False
    from open_clip import get_model_config
    from open_clip.pretrained import get_pretrained_cfg

    asked = get_model_config(architecture) or {}
    needed = get_pretrained_cfg(architecture, tag) or {}
    return bool(needed.get("quick_gelu")) and not asked.get("quick_gelu")


def _check_sizes(arguments: Mapping[str, Any], backbone: Backbone) -> None:
    sizes = {
        "text_width": backbone.text_tower.width,
        "vision_width": backbone.image_tower.width,
        "embed_dim": backbone.embed_dim,
    }
    for name, size in sizes.items():
        if arguments.get(name, size) != size:
            raise PromptotError(
                f"The adapter's {name} is {arguments[name]}, and the backbone's {size}.",
                fix="Its card is not to be trusted: copy the adapter again or train it again.",
            )


def _describe(learned: Learned) -> LearnedShape:
    if learned is None:
        return LearnedShape(design=NOTHING)
    return LearnedShape(design=learned.name, **learned.arguments)


def _read_card(path: Path) -> Card:
    file = path / CARD
    if not file.is_file():
        raise PromptotError(
            f"There is no adapter in '{path}'.",
            fix="Give the folder that `promptot fit --out` wrote; an interrupted run has none yet.",
        )
    try:
        text = _read_file(path, CARD, LARGEST_CARD).decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, f"'{CARD}' can't be read") from error
    version = _format_version(text)
    if version is not None and version > FORMAT_VERSION:
        raise PromptotError(
            f"The adapter in '{path}' has format version {version}; this promptot reads up to "
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
        raise _damaged(path, f"'{CARD}' is not valid ({error.problem.rstrip('.')})") from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"
        raise _damaged(path, f"'{CARD}' is not valid ({reason})") from error


def _read_file(path: Path, name: str, largest: int) -> bytes:
    """A regular file's bytes; a pipe, a device or more than `largest` bytes are refused."""
    try:
        return read_bytes(path / name, largest)
    except Unreadable as error:
        raise _damaged(path, f"'{name}' can't be read ({error})") from error


def _format_version(text: str) -> int | None:
    """The format version of a card that may otherwise be unreadable to this version."""

    class Version(BaseModel):
        format_version: int

    try:
        return Version.model_validate_json(text).format_version
    except (ValidationError, RecursionError):
        return None


def _damaged(path: Path, reason: str) -> PromptotError:
    return PromptotError(
        f"The adapter in '{path}' is damaged: {reason}.", fix="Copy it again or train it again."
    )
