"""Learning: from a task's training images and a recipe to an adapted model in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from promptot.adaptation import build_prompts
from promptot.adaptation.build_prompts import check_prompts
from promptot.adaptation.linear_head import LinearHead, fit_linear_probe
from promptot.adaptation.student import Student
from promptot.backbones.backbone import Backbone
from promptot.data.anchor_words import load_vocabulary
from promptot.data.task import ImageTask
from promptot.errors import PromptotError
from promptot.objectives import Objective, build_control, build_preservation, build_vocabulary
from promptot.recipes.schema import Recipe
from promptot.recipes.templates import teacher_templates
from promptot.training.anchors import AnchorDraws
from promptot.training.averaging import build_averaging
from promptot.training.batches import (
    decoded_bytes,
    frozen_features,
    keeps_decoded,
    training_loader,
    views_bytes,
    views_used,
)
from promptot.training.checkpoint import SAVE_SECONDS, CheckpointFile
from promptot.training.coverage import Ordered, coverage
from promptot.training.estimate import GIB, available_bytes
from promptot.training.listener import Listener
from promptot.training.train_student import train
from promptot.training.trainer import Loader
from promptot.training.training_log import Log


def adapt(
    backbone: Backbone,
    task: ImageTask,
    recipe: Recipe,
    log: Log,
    *,
    seed: int = 1,
    workers: int = 0,
    loader: Loader | None = None,
    held_out: Sequence[str] = (),
    checkpoint: Path | None = None,
    identity: dict[str, Any] | None = None,
    save_seconds: float = SAVE_SECONDS,
    listener: Listener | None = None,
) -> Student:
    """Learn from a task's training images what a recipe says; the heart of every fit.

    Args:
        task: its training images are all used; its validation images only by a linear probe, to
            choose its penalty.
        loader: gives the batches that prompts are trained on; by default `training_loader` of the
            task. A linear probe is fitted to the images as they are for testing instead.
        held_out: names of classes that will be new in a test; the anchor words that ship are used
            without them. Words from a file of the user's are used as they are.
        checkpoint, identity, save_seconds: see `CheckpointFile`.
        listener: hears how it goes.

    Returns:
        the model over the task's classes, on the backbone's device.

    Raises:
        PromptotError: the backbone can't do what the recipe says, see `check_recipe` and
            `build_prompts`; or as `fit_linear_probe` or `train` raise it.
    """
    check_recipe(recipe, backbone)
    names, listener = task.class_names, listener or Listener()
    templates = teacher_templates(recipe.data.templates, task.template)
    if recipe.probes or not recipe.trains:
        return Student(
            backbone,
            _fit_probe(backbone, task, seed, workers) if recipe.probes else None,
            names,
            templates,
            synonyms=task.synonyms,
            template_mean=recipe.data.template_mean,
            fit=recipe.objective.fit,
        )
    model = _untrained(backbone, names, recipe, templates, seed, held_out, task.synonyms)
    vocabulary = model.vocabulary
    if loader is None:
        _tell_of_views(backbone, len(task.train), recipe, listener)
        if keeps_decoded(recipe):
            bound = decoded_bytes(backbone.device)
            listener.on_decoding(len(task.train), bound, str(backbone.device))
        loader = training_loader(backbone, task, recipe, seed, workers)
    epochs = recipe.evaluate_epoch or recipe.optim.epochs
    _warn_of_dropped(loader, task, epochs, listener)
    per_step = recipe.vocabulary.per_step
    place = CheckpointFile(checkpoint, identity or {}, save_seconds) if checkpoint else None
    train(
        model,
        build_objective(recipe, steps=epochs * len(loader)),
        loader,
        recipe.optim,
        log,
        epochs=epochs,
        averaging=build_averaging(recipe.ensembling, epochs),
        anchors=AnchorDraws(len(vocabulary), per_step, seed) if vocabulary else None,
        checkpoint=place,
        images=[example.path for example in task.train],
        listener=listener,
    )
    return model


def _warn_of_dropped(loader: Loader, task: ImageTask, epochs: int, listener: Listener) -> None:
    """Say which images and classes the steps will not see."""
    if not (listener.hears("on_warning") and isinstance(loader, Ordered)):
        return
    said = coverage(loader, task, epochs).sentence()
    if said:
        listener.on_warning(said)


def _tell_of_views(backbone: Backbone, images: int, recipe: Recipe, listener: Listener) -> None:
    """Say what fixed views will take; refuse what does not fit into memory."""
    if recipe.data.views is None:
        return
    needed = views_bytes(backbone, images, recipe)
    free = available_bytes(torch.device("cpu"))
    if needed > free:
        raise PromptotError(
            f"{views_used(recipe)} views of {images} images need {needed / GIB:.1f} GiB of memory; "
            f"{free / GIB:.1f} GiB are there.",
            fix="Lower data.views, or keep features alone: data.teacher=cached-views.",
        )
    listener.on_views(views_used(recipe), images, needed)


def _untrained(
    backbone: Backbone,
    names: tuple[str, ...],
    recipe: Recipe,
    templates: str | tuple[str, ...],
    seed: int,
    held_out: Sequence[str],
    synonyms: Mapping[str, tuple[str, ...]],
) -> Student:
    generator = torch.Generator().manual_seed(seed)
    prompts = build_prompts(recipe.prompts, backbone, len(names), generator).to(backbone.device)
    vocabulary = anchor_words(recipe, names, held_out)
    return Student(
        backbone,
        prompts,
        names,
        templates,
        vocabulary,
        synonyms=synonyms,
        template_mean=recipe.data.template_mean,
        fit=recipe.objective.fit,
    )


def untrained_model(backbone: Backbone, names: tuple[str, ...], recipe: Recipe) -> Student:
    """A model as a recipe that trains starts it, to find out what a step costs."""
    templates = teacher_templates(recipe.data.templates, recipe.data.template)
    return _untrained(backbone, names, recipe, templates, 0, (), {})


def timed_step(model: Student, recipe: Recipe) -> float:
    """Seconds of one forward and backward pass over a batch of noise; nothing learns."""
    count, side = recipe.optim.batch_size, model.backbone.preprocess.resolution
    noise = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = noise.to(model.backbone.device)
    labels = torch.arange(count, device=images.device) % len(model.class_names)
    objective = build_objective(recipe, steps=1)
    words = len(model.vocabulary)
    per_step = recipe.vocabulary.per_step or words
    anchors = AnchorDraws(words, per_step, 0) if words else None
    teacher = model.backbone.encode_image(images) if recipe.data.views is not None else None
    marks = []
    for step in (1, 2, 3):  # the first one warms up
        read = None if anchors is None else anchors.positions(1, step)
        student, frozen = model(images, teacher, read)
        scale, bias = model.backbone.logit_scale, model.backbone.logit_bias
        result = objective(student, frozen, labels, scale, bias)
        result.total.backward()
        result.total.item()  # waits for the device
        marks.append(time.perf_counter())
        model.zero_grad()
    return (marks[-1] - marks[0]) / 2


def build_objective(recipe: Recipe, steps: int) -> Objective:
    """The objective of a recipe, for a run of so many steps."""
    kept, words = recipe.objective, recipe.vocabulary
    return Objective(
        build_preservation(kept.preservation, **kept.options()),
        kept.strength,
        vocabulary=build_vocabulary(words.comparison, **words.options()),
        vocabulary_strength=words.strength,
        control=build_control(kept.control, steps=steps, budget=kept.budget),
        combine=kept.combine,
        fit=kept.fit,
    )


def check_recipe(recipe: Recipe, backbone: Backbone) -> None:
    """Refuse, before anything is computed, what a backbone can't do.

    Raises:
        PromptotError: the recipe puts prompts into an image encoder that takes none, or says
            `objective.fit: sigmoid` and there is no logit bias to make a probability of it.
    """
    check_prompts(recipe.prompts, backbone)
    if recipe.objective.fit != "sigmoid" or backbone.logit_bias is not None:
        return
    raise PromptotError(
        f"The recipe says objective.fit=sigmoid, and '{backbone.name}' has no logit bias: without "
        "one, the sigmoid of a scaled cosine is near 1 for every class.",
        fix="Set objective.fit=softmax, or use a backbone that has one, such as "
        "'open_clip:ViT-B-16-SigLIP2-256/webli'.",
    )


def anchor_words(
    recipe: Recipe, class_names: Sequence[str], held_out: Sequence[str]
) -> tuple[str, ...]:
    """The words that the recipe's vocabulary term draws from; none without that term."""
    config = recipe.vocabulary
    if not recipe.trains or config.comparison == "none":
        return ()
    if config.words is not None:
        return load_vocabulary(Path(config.words), exclude=class_names)
    return load_vocabulary(exclude=[*class_names, *held_out])


def _fit_probe(backbone: Backbone, task: ImageTask, seed: int, workers: int) -> LinearHead:
    """A linear classifier of the frozen features of a task's training images."""
    head = fit_linear_probe(
        *frozen_features(backbone, task.train, workers),
        classes=len(task.class_names),
        validation=frozen_features(backbone, task.validation, workers),
        seed=seed % 2**32,
    )
    return head.to(backbone.device)
