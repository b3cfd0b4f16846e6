"""Every prompt design with every objective, on a very small random CLIP: what the tests share."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from weights import openai_state_dict

from promptot.adaptation import build_prompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import Batch
from promptot.objectives import ObjectiveResult
from promptot.recipes import Recipe, load_recipe
from promptot.runs.learning import build_objective

NAMES = ("cat", "hot dog", "bee")
WORDS = ("apple", "bridge", "cloud", "umbrella")
DESIGNS = ("coop", "coop-class-specific", "cocoop", "vpt", "ivlp", "maple")
OBJECTIVES = {
    "cross-entropy": ["objective=none"],
    "pointwise": ["objective=pointwise"],
    "pointwise-image": ["objective=pointwise", "objective.rows=image"],
    "ot": ["objective=ot"],
    "ot-separate": ["objective=ot", "objective.rows=separate"],
    "ot-sinkhorn": ["objective=ot", "objective.solver=sinkhorn"],
    "ot-divergence": ["objective=ot", "objective.solver=sinkhorn-divergence"],
    "ot-unbalanced": ["objective=ot", "objective.solver=unbalanced"],
    "ot-partial": ["objective=ot", "objective.solver=partial"],
    "ot-queue": ["objective=ot", "objective.queue=6"],
    "ot-ramp": ["objective=ot", "objective.control=ramp"],
    "ot-budget": ["objective=ot", "objective.control=budget"],
    "ot-averaged": ["objective=ot", "ensembling=gaussian"],
    "text-cosine": ["objective=text-cosine"],
    "promptsrc": ["objective=promptsrc", "objective.strength=0.1"],
    "vocabulary-pointwise": ["objective=none", "vocabulary=pointwise"],
    "vocabulary-ot": ["objective=ot", "vocabulary=ot", "vocabulary.solver=sinkhorn-divergence"],
}
SCHEDULE = ["optim.lr=0.003", "optim.epochs=2", "optim.warmup_epochs=0", "optim.batch_size=4"]
PAIRS = [
    pytest.param(design, objective, id=f"{design}-{objective}")
    for design in DESIGNS
    for objective in OBJECTIVES
    if not (
        "class-specific" in design and "vocabulary" in objective
    )  # there is no context for them
]


def write_small_clip(folder: Path) -> Path:
    """Two blocks of width 64 a tower, 16 px, D = 64."""
    sizes = {"vision_width": 64, "vision_layers": 2, "text_layers": 2, "resolution": 16}
    state = openai_state_dict(3, **sizes, embed=64)
    path = folder / "clip.safetensors"
    save_file({key: torch.tensor(value) for key, value in state.items()}, path)
    return path


def write_words(folder: Path) -> Path:
    """A file of anchor words."""
    path = folder / "words.txt"
    path.write_text("\n".join(WORDS), encoding="utf-8")
    return path


def make_batch(count: int = 4, classes: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = torch.randn(count, 3, 16, 16, generator=generator) + labels.view(-1, 1, 1, 1)
    return Batch(images, labels, torch.arange(count))


class TwoBatches:
    """The same two batches every epoch."""

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int) -> Iterator[Batch]:
        batch = make_batch(8)
        for half in (slice(0, 4), slice(4, 8)):
            yield Batch(batch.images[half], batch.labels[half], batch.indices[half])


@functools.cache
def read_recipe(design: str, objective: str, words: Path, *more: str) -> Recipe:
    anchors = [f"vocabulary.words={words}", "vocabulary.per_step=3"]
    return load_recipe(design, [*OBJECTIVES[objective], *anchors, *SCHEDULE, *more])


def start_model(backbone: Backbone, recipe: Recipe, names: tuple[str, ...] = NAMES) -> Student:
    """The model that `adapt` starts from."""
    generator = torch.Generator().manual_seed(1)
    prompts = build_prompts(recipe.prompts, backbone, len(names), generator).to(backbone.device)
    vocabulary = WORDS if recipe.vocabulary.comparison != "none" else ()
    return Student(backbone, prompts, names, vocabulary=vocabulary)


def step(model: Student, recipe: Recipe, batch: Batch) -> ObjectiveResult:
    """One step of a fresh objective, with all anchor words if it compares any."""
    batch = batch.to(model.backbone.device)
    anchors = torch.arange(len(WORDS)) if model.vocabulary else None
    student, teacher = model(batch.images, words=anchors)
    objective = build_objective(recipe, steps=8)
    return objective(student, teacher, batch.labels, model.backbone.logit_scale)
