"""Averaging what several runs learned."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor

from promptot.adaptation import Adaptation
from promptot.adaptation.lora import LoRA
from promptot.adaptation.lora import mean as mean_of_changes
from promptot.adaptation.readout import Readout
from promptot.backbones.identity import differences
from promptot.backbones.library_versions import versions
from promptot.errors import PromptotError
from promptot.files.reading import PathLike
from promptot.runs.adapter import Adapter, Learned, load_adapter, warn_of_activation
from promptot.runs.card import Card, LearnedShape
from promptot.runs.hub import adapter_folder
from promptot.runs.manifest import Manifest, MergedRun, find_manifest
from promptot.runs.run_contents import RunContents
from promptot.runs.run_folder import check_run_folder


@dataclass(frozen=True)
class Merged:
    """A merged run.

    Attributes:
        folder: the run folder that was written.
        weights: of each run, adding up to 1.
        apart: how far a run's tokens lie from the first run's, as a share of the length of these:
            the median over the blocks, of the run that is farthest. Unrelated ones are √2 apart.
    """

    APART: ClassVar[float] = 1.0
    """Beyond this, the runs hardly started from the same place, and an average means little."""

    folder: Path
    weights: tuple[float, ...]
    apart: float

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder), "weights": list(self.weights), "apart": self.apart
        }  # fmt: skip


def merge(
    runs: Sequence[PathLike],
    out: PathLike,
    weights: Sequence[float] | None = None,
    *,
    overwrite: bool = False,
) -> Merged:
    """Write the weighted mean of the parameters of several runs, as a run folder.

    It is meant for runs that started alike, with the same seed and other images (Wortsman et
    al., 2022, "Model soups", arXiv:2203.05482). Tokens of runs with different seeds are far
    apart, and nothing says that their mean is any good; `Merged.apart` tells.

    Args:
        runs: two run folders or more.
        out: the folder to write.
        weights: one for each run, none negative; they are scaled to add up to 1. All alike by
            default.
        overwrite: replace a run in `out`, with all that belongs to it.

    Raises:
        PromptotError: fewer than two runs, weights that don't fit, or runs that differ in backbone,
            prompt design, class names or template.
    """
    if len(runs) < 2:
        raise PromptotError("There is nothing to average.", fix="Give two runs or more.")
    shares = _shares(weights, len(runs))
    folder = Path(out)
    check_run_folder(folder, overwrite)
    loaded = [load_adapter(adapter_folder(run)) for run in runs]
    for own, _ in loaded:
        warn_of_activation(own)
    (card, learned), *others = loaded
    for run, (other, _) in zip(runs[1:], others, strict=True):
        _check_alike(card, other, f"'{os.fspath(runs[0])}' and '{os.fspath(run)}'")
    if learned is None:
        raise PromptotError(
            "These runs learned nothing that could be averaged (zero-shot).",
            fix="Merge runs of a recipe that trains.",
        )
    apart = max(_distance(other, learned) for _, other in others)
    changes = [own for _, own in loaded if isinstance(own, LoRA)]
    if changes:
        learned = mean_of_changes(changes, shares)
        card = card.model_copy(
            update={"prompts": LearnedShape(design=learned.name, **learned.arguments)}
        )
    else:
        parts = [own.state_dict() for _, own in loaded if own is not None]
        mean = {
            key: sum((w * part[key].double() for w, part in zip(shares, parts, strict=True)), 0.0)
            for key in parts[0]
        }
        learned.load_state_dict({key: torch.as_tensor(v).float() for key, v in mean.items()})

    sources = [
        MergedRun(run=os.fspath(run), weight=share, tensors_sha256=own.tensors_sha256)
        for run, share, (own, _) in zip(runs, shares, loaded, strict=True)
    ]
    recipe = {**card.recipe, "merged": [source.model_dump() for source in sources]}
    changed = {"recipe": recipe, "metrics": {}, "versions": versions()}
    adapter = Adapter(card.model_copy(update=changed), learned)
    RunContents(adapter, _manifest(runs, sources)).save(folder, overwrite=overwrite)
    return Merged(folder, shares, apart)


def _shares(weights: Sequence[float] | None, runs: int) -> tuple[float, ...]:
    if weights is None:
        return (1 / runs,) * runs
    if len(weights) != runs:
        raise PromptotError(
            f"There are {runs} runs and {len(weights)} weights.", fix="Give each run one weight."
        )
    total = math.fsum(weights)
    if not (math.isfinite(total) and total > 0 and min(weights) >= 0):
        raise PromptotError(
            f"The weights {', '.join(map(str, weights))} are no shares of a mean.",
            fix="Give numbers that are not negative, one of them above 0.",
        )
    return tuple(weight / total for weight in weights)


def _check_alike(card: Card, other: Card, which: str) -> None:
    """Refuse to average parameters that don't mean the same."""

    def differ(what: str, one: object, two: object) -> PromptotError:
        return PromptotError(
            f"{which} differ in {what}: {one} and {two}.", fix="Merge runs that share it."
        )

    if card.backbone.weight_hash != other.backbone.weight_hash:
        raise differ(
            "the backbone",
            *(f"{c.backbone.name} ({c.backbone.weight_hash[:12]})" for c in (card, other)),
        )
    one, two = card.backbone.function, other.backbone.function
    if (one is None) != (two is None):
        raise PromptotError(
            f"{which} can't be averaged: the card of one does not say what its backbone does with "
            "its weights, because an older promptot wrote it.",
            fix="Train that one again.",
        )
    if one is not None and two is not None and (names := differences(one, two)):
        settings = ({name: function[name] for name in names} for function in (one, two))
        raise differ("what the backbone does with its weights", *settings)
    if card.prompts != other.prompts:
        one, two = card.prompts.model_dump(), other.prompts.model_dump()
        keys = [key for key in {**one, **two} if one.get(key) != two.get(key)]
        raise differ("the prompt design", *({k: c.get(k) for k in keys} for c in (one, two)))
    if card.fit != other.fit:
        raise differ("what the logits are fitted by", card.fit, other.fit)
    if card.class_names != other.class_names:
        ours, theirs = set(card.class_names), set(other.class_names)
        only = [sorted(names)[:3] for names in (ours - theirs, theirs - ours)]
        if not any(only):
            raise differ("the order of the class names", "one order", "another")
        raise differ("the class names", *(", ".join(names) or "no others" for names in only))
    if card.synonyms != other.synonyms:
        raise differ("the synonyms", card.synonyms, other.synonyms)
    if card.template != other.template:
        raise differ("the template", repr(card.template), repr(other.template))
    if card.template_mean != other.template_mean:
        raise differ("the mean over templates", card.template_mean, other.template_mean)


def _distance(other: Learned, first: Learned) -> float:
    assert other is not None
    assert first is not None
    pairs = zip(_compared(first), _compared(other), strict=True)
    return median(float(((a - b).norm() / a.norm().clamp_min(1e-12)).detach()) for a, b in pairs)


def _compared(learned: Adaptation | Readout) -> list[Tensor]:
    """Tokens or, of low-rank changes, the changes themselves."""
    if not isinstance(learned, LoRA):
        return list(learned.parameters())
    injection = learned()
    blocks = (*injection.text_deltas, *injection.image_deltas)
    return [delta.matrix() for block in blocks for delta in block.values()]


def _manifest(runs: Sequence[PathLike], sources: list[MergedRun]) -> Manifest | None:
    """The first run's, with the training images of all, so that a test leaves them out; None where
    a run has none, or a damaged one."""
    try:
        found = [find_manifest(Path(run)) for run in runs]
    except PromptotError:
        return None
    manifests = [manifest for manifest in found if manifest is not None]
    if len(manifests) < len(runs):
        return None
    first = manifests[0]
    shots = {shot.sha256: shot for one in manifests for shot in one.task.shots}
    # The mean itself was tested on nothing, and has no seed of its own.
    own = first.model_dump(include={"recipe", "backbone", "platform", "device", "precision"})
    return Manifest(
        **own,
        task=first.task.model_copy(update={"shots": list(shots.values()), "tested": {}}),
        seeds=[one.seed for one in manifests],
        versions=dict(versions()),
        merged=sources,
    )
