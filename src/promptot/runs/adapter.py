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
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save

from promptot.adaptation import DESIGNS, Adaptation
from promptot.adaptation.linear_head import LinearHead
from promptot.adaptation.lora import LoRA
from promptot.adaptation.readout import Readout
from promptot.adaptation.student import Student
from promptot.backbones.backbone import Backbone
from promptot.backbones.identity import PREPROCESS, differences
from promptot.backbones.loaders.bundled_clip import EARLIER_WEIGHTS
from promptot.data.class_names import TemplateMean
from promptot.errors import PromptotError, PromptotWarning
from promptot.files.owned import replace_folder, temporary_name, unknown_in
from promptot.files.reading import Unreadable, read_bytes
from promptot.files.weights_file import DAMAGED
from promptot.files.writing import output_folder, system_errors, write_bytes, write_json
from promptot.runs.card import (
    CARD,
    FORMAT_VERSION,
    LARGEST_CARD,
    PROMPTS_VERSION,
    BackboneIdentity,
    Card,
    LearnedShape,
    damaged,
    read_card,
)

TENSORS = "prompts.safetensors"
LONGEST_VALUE = 60  # characters, in a message
LARGEST_TENSORS = 2**32  # bytes
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NOTHING = "none"

Learned = Adaptation | Readout | None

_REBUILD: dict[str, Callable[..., Adaptation | Readout]] = {
    **DESIGNS,
    LinearHead.name: LinearHead.empty,
}


class Adapter(NamedTuple):
    """What was learned and the card that describes it, in memory; it pickles as the two files do.

    Attributes:
        card: everything that is not a tensor.
        learned: prompts or a linear head, as `Student.learned` gives them; None where nothing
            was learned.
    """

    card: Card
    learned: Learned

    def model(self, backbone: Backbone) -> Student:
        """See `build_model`."""
        return build_model(self.card, self.learned, backbone)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write an adapter folder: `prompts.safetensors` and `card.json`.

        The folder appears complete or not at all; an adapter that is there already is replaced.

        Raises:
            PromptotError: the folder holds something else, or can't be written: the disk is full,
                say.
        """
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
                card, tensors = self._written()
                write_bytes(staging / TENSORS, tensors)
                write_json(staging / CARD, card.as_json())
                replace_folder(staging, target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _written(self) -> tuple[Card, bytes]:
        """The card and the tensors as this version writes them, whatever they were read from."""
        tensors = _to_bytes(self.learned)
        digest = hashlib.sha256(tensors).hexdigest()
        version = FORMAT_VERSION if isinstance(self.learned, LoRA) else PROMPTS_VERSION
        changed = {"tensors_sha256": digest, "format_version": version}
        return self.card.model_copy(update=changed), tensors

    def __reduce__(self) -> tuple[Callable[..., Adapter], tuple[bytes, bytes]]:
        card, tensors = self._written()
        return _unpickled, (card.model_dump_json().encode(), tensors)


def make_adapter(
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
) -> Adapter:
    """An adapter of what was learned.

    Args:
        learned: prompts or a linear head, as `Student.learned` gives them.
        backbone, class_names, template, synonyms, template_mean: of the model.
        recipe, metrics, versions: for the card.
    """
    card = Card(
        backbone=BackboneIdentity.of(backbone) if isinstance(backbone, Backbone) else backbone,
        prompts=LearnedShape(design=NOTHING)
        if learned is None
        else LearnedShape(design=learned.name, **learned.arguments),
        class_names=class_names,
        template=template,
        template_mean=template_mean,
        synonyms=dict(synonyms or {}),
        recipe=dict(recipe or {}),
        metrics=dict(metrics or {}),
        versions=dict(versions or {}),
        tensors_sha256=hashlib.sha256(_to_bytes(learned)).hexdigest(),
    )
    return Adapter(card, learned)


def save_adapter(folder: str | os.PathLike[str], *described: Any, **more: Any) -> Card:
    """Write an adapter folder of what `make_adapter` takes, see `Adapter.save`."""
    adapter = make_adapter(*described, **more)
    adapter.save(folder)
    return adapter.card


def load_adapter(folder: str | os.PathLike[str]) -> Adapter:
    """Read an adapter folder; every shape, hash and number is checked, and nothing is unpickled.

    Raises:
        PromptotError: there is no adapter, it is damaged, or a newer promptot wrote it.
    """
    path = Path(folder)
    if not (path / CARD).is_file():
        raise PromptotError(
            f"There is no adapter in '{path}'.",
            fix="Give the folder that `promptot fit --out` wrote; an interrupted run has none yet.",
        )
    card = read_card(_read_file(path, CARD, LARGEST_CARD), path)
    return _read(card, _read_file(path, TENSORS, LARGEST_TENSORS), path)


def _unpickled(card: bytes, tensors: bytes) -> Adapter:
    return _read(read_card(card, "a pickle"), tensors, "a pickle")


def _read(card: Card, tensors: bytes, place: Path | str) -> Adapter:
    """An adapter from its card and the content of its other file."""
    if hashlib.sha256(tensors).hexdigest() != card.tensors_sha256:
        raise damaged(place, f"'{TENSORS}' is not the file that the card describes")
    if card.prompts.design == NOTHING:
        return Adapter(card, None)
    try:
        state = load(tensors)
    except DAMAGED as error:
        raise damaged(place, f"'{TENSORS}' is not readable ({error!s:.200})") from error

    try:
        with torch.device("meta"):  # takes no memory, whatever the sizes
            learned = _REBUILD[card.prompts.design](**card.prompts.arguments)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(place, "its card describes no design that is known") from error
    expected = {key: value.shape for key, value in learned.state_dict().items()}
    if {key: value.shape for key, value in state.items()} != expected:
        raise damaged(place, "the tensors are not those that the card announces")
    for key, value in state.items():
        if value.dtype not in FLOATS or not value.isfinite().all():
            raise damaged(place, f"the tensor '{key}' holds values that are not finite numbers")
    learned.load_state_dict({k: v.float().clone() for k, v in state.items()}, assign=True)
    return Adapter(card, learned)


def _to_bytes(learned: Learned) -> bytes:
    """What was learned, as the content of a safetensors file."""
    state = {} if learned is None else learned.state_dict()
    return save({key: value.detach().cpu().contiguous() for key, value in state.items()})


def _read_file(path: Path, name: str, largest: int) -> bytes:
    """A regular file's bytes; a pipe, a device or more than `largest` bytes are refused."""
    try:
        return read_bytes(path / name, largest)
    except Unreadable as error:
        raise damaged(path, f"'{name}' can't be read ({error})") from error


def build_model(card: Card, learned: Learned, backbone: Backbone) -> Student:
    """The model that an adapter was saved from, on the backbone's device.

    Raises:
        PromptotError: the adapter was trained in another backbone, or its parts don't fit together.
    """
    check_backbone(card, backbone)
    if learned is not None:
        _check_sizes(learned.arguments, backbone)
        learned.to(backbone.device)
    return Student(
        backbone,
        learned,
        card.class_names,
        card.template,
        synonyms=card.synonyms,
        template_mean=card.template_mean,
        fit=card.fit,
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
        last = EARLIER_WEIGHTS.get(card.backbone.weight_hash)
        if last is not None and backbone.name == card.backbone.name:
            raise PromptotError(
                f"This adapter was trained in the '{card.backbone.name}' of promptot {last} or "
                "before, and this promptot has another model of that name.",
                fix=f"Train it again; or use it with promptot {last}.",
            )
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
    for name, tower in (("text", backbone.text_tower), ("vision", backbone.image_tower)):
        if arguments.get(f"{name}_layers"):
            sizes[f"{name}_layers"] = tower.layers
            sizes[f"{name}_hidden"] = tower.mlp_width
    for name, size in sizes.items():
        if arguments.get(name, size) != size:
            raise PromptotError(
                f"The adapter's {name} is {arguments[name]}, and the backbone's {size}.",
                fix="Its card is not to be trusted: copy the adapter again or train it again.",
            )
