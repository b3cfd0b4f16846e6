"""Every prompt design with every objective, on a very small random CLIP: what the tests share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from weights import openai_state_dict

from promptot.adaptation import build_prompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import Batch, ImageTask
from promptot.objectives import ObjectiveResult
from promptot.recipes import Recipe, load_recipe
from promptot.runs.adapter import build_model, load_adapter, save_adapter
from promptot.runs.learning import adapt, build_objective
from promptot.training.listener import Listener
from promptot.training.training_log import EpochRecord, Log

NAMES = ("cat", "hot dog", "bee")
WORDS = ("apple", "bridge", "cloud", "umbrella")
DESIGNS = ("coop", "coop-class-specific", "cocoop", "vpt", "ivlp", "maple", "clip-lora")
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
    "logits-projected": ["objective=logits", "objective.combine=project"],
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


def some_pairs(*objectives: str) -> list[Any]:
    """Each objective with one design, and each design with these; the others by `-m slow`."""
    return [
        pytest.param(
            *pair.values,
            id=pair.id,
            marks=[]
            if pair.values[0] == "ivlp" or pair.values[1] in objectives
            else pytest.mark.slow,
        )
        for pair in PAIRS
    ]


SOME = some_pairs("cross-entropy", "ot", "ot-budget", "vocabulary-ot", "logits-projected")
"""Each design with an objective of a kind."""


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


def make_batch(count: int = 4, classes: int = 3, side: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = torch.randn(count, 3, side, side, generator=generator) + labels.view(-1, 1, 1, 1)
    return Batch(images, labels, torch.arange(count))


class TwoBatches:
    """The same two batches every epoch: the halves of `batch`."""

    def __init__(self, count: int = 8, side: int = 16) -> None:
        self.batch = make_batch(count, side=side)

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int) -> Iterator[Batch]:
        batch, middle = self.batch, len(self.batch.labels) // 2
        for half in (slice(0, middle), slice(middle, None)):
            yield Batch(batch.images[half], batch.labels[half], batch.indices[half])


def learn(
    backbone: Backbone,
    recipe: Recipe,
    loader: TwoBatches,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Student:
    """What `adapt` learns of the two batches; with a checkpoint the log is written beside it."""
    return adapt(
        backbone,
        ImageTask("made", NAMES),
        recipe,
        Log(None if checkpoint is None else checkpoint.parent),
        loader=loader,
        checkpoint=checkpoint,
        listener=Listener(on_epoch=on_epoch),
    )


def learn_and_resume(
    backbone: Backbone, recipe: Recipe, loader: TwoBatches, folder: Path
) -> Student:
    """What is learned, after checking that an interrupted run ends in the same bits."""

    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 1:
            raise KeyboardInterrupt

    checkpoint = folder / "checkpoint.safetensors"
    model = learn(backbone, recipe, loader)
    with pytest.raises(KeyboardInterrupt):
        learn(backbone, recipe, loader, checkpoint, interrupt)
    resumed = learn(backbone, recipe, loader, checkpoint)
    for a, b in zip(model.prompts.parameters(), resumed.prompts.parameters(), strict=True):
        assert torch.equal(a, b)
    return model


@torch.no_grad()
def check_comes_back(model: Student, backbone: Backbone, images: Tensor, folder: Path) -> None:
    """What is saved and loaded gives the same logits of images."""
    logits = model.logits(model.encode_images(images))
    save_adapter(folder / "adapter", model.learned, backbone, NAMES, model.template)
    loaded = build_model(*load_adapter(folder / "adapter"), backbone)
    found = loaded.logits(loaded.encode_images(images))
    if model.vocabulary and not model.context_tokens:  # names are packed in another way beside it
        torch.testing.assert_close(found, logits)
    else:
        assert torch.equal(found, logits)


@functools.cache
def read_recipe(design: str, objective: str, words: Path, *more: str) -> Recipe:
    anchors = [f"vocabulary.words={words}", "vocabulary.per_step=3"]
    return load_recipe(design, [*OBJECTIVES[objective], *anchors, *SCHEDULE, *more])


def start_model(backbone: Backbone, recipe: Recipe, names: tuple[str, ...] = NAMES) -> Student:
    """The model that `adapt` starts from."""
    generator = torch.Generator().manual_seed(1)
    prompts = build_prompts(recipe.prompts, backbone, len(names), generator).to(backbone.device)
    for own in prompts.parameters():
        if not own.any():  # a start at which the gradient of another part is 0
            torch.nn.init.normal_(own, std=0.02, generator=generator)
    vocabulary = WORDS if recipe.vocabulary.comparison != "none" else ()
    return Student(backbone, prompts, names, vocabulary=vocabulary)


def step(model: Student, recipe: Recipe, batch: Batch) -> ObjectiveResult:
    """One step of a fresh objective, with all anchor words if it compares any."""
    batch = batch.to(model.backbone.device)
    anchors = torch.arange(len(WORDS)).to(batch.images.device) if model.vocabulary else None
    student, teacher = model(batch.images, words=anchors)
    objective, own = build_objective(recipe, steps=8), model.backbone
    return objective(student, teacher, batch.labels, own.logit_scale, own.logit_bias)
