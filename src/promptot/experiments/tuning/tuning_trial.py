"""One trial: train a setting, and test what it gets right and what it keeps."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from promptot.adaptation.student import PromptedModel
from promptot.backbones import Backbone
from promptot.data import ImageTask
from promptot.errors import PromptotError
from promptot.evaluation.retention import measure_retention
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.experiments.cells import VERSION
from promptot.experiments.run_cells import Progress
from promptot.experiments.shared_features import KeptImages, KeptViews
from promptot.experiments.tuning.search import Settings, change, describe_settings
from promptot.experiments.tuning.trial_points import Point
from promptot.recipes import Recipe, complete_values
from promptot.recipes.templates import teacher_templates
from promptot.runs.run import adapt
from promptot.training.trainer import Callbacks
from promptot.training.training_log import Log


@dataclass(frozen=True, eq=False)
class Trials:
    """What all trials share."""

    backbone: Backbone
    recipe: Recipe
    train: ImageTask
    fit_part: ImageTask
    novel_part: ImageTask | None
    images: KeptImages
    views: KeptViews
    seed: int
    workers: int

    @property
    def layers(self) -> int:
        return max(self.backbone.image_tower.layers, self.backbone.text_tower.layers)

    @property
    def retention(self) -> str:
        if self.novel_part is not None:
            return f"accuracy on {len(self.novel_part.class_names)} held-out classes"
        return "same answer as the frozen model among anchor words"

    def key(self, settings: Settings) -> str:
        """What a trial's figures depend on, as one hash."""
        decides: list[Any] = [complete_values(self.recipe), settings, self.seed]
        decides += [VERSION, self.backbone.identity().digest, self._images]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _images(self) -> list[Any]:
        """Class names, and images by their content, of what is trained and tested on."""
        found: list[Any] = []
        for part in (self.train, self.fit_part, self.novel_part):
            if part is not None:
                examples = part.train if part is self.train else part.test
                found.append([part.class_names, [(e.hash(), e.label) for e in examples]])
        return found

    def zero_shot(self) -> Point:
        """The frozen model as a point."""
        names = self.fit_part.class_names
        templates = teacher_templates(self.recipe.data.templates, self.fit_part.template)
        mean = self.recipe.data.template_mean
        frozen = PromptedModel(self.backbone, None, names, templates, template_mean=mean)
        return self._point({}, frozen, 0.0)

    def run(self, settings: Settings, progress: Progress, number: int) -> Point:
        """Train and test one setting."""
        began = time.perf_counter()
        recipe = change(self.recipe, settings)
        epochs = recipe.evaluate_epoch or recipe.optim.epochs
        what = f"trial {number}: {describe_settings(settings, self.recipe)}"
        model = adapt(
            self.backbone,
            self.train,
            recipe,
            Log(),
            seed=self.seed,
            workers=self.workers,
            loader=self.views.loader(recipe),
            held_out=() if self.novel_part is None else self.novel_part.class_names,
            callbacks=Callbacks(on_epoch=lambda record: progress(what, record.epoch, epochs)),
        )
        point = self._point(settings, model, 0.0)
        return replace(point, seconds=time.perf_counter() - began)

    def _point(self, settings: Settings, model: PromptedModel, seconds: float) -> Point:
        scores = self._score(model, self.fit_part)
        right = "".join("1" if r else "0" for r in scores.student.argmax(1) == scores.labels)
        if self.novel_part is not None:
            novel = self._score(
                model.for_classes(self.novel_part.class_names, synonyms=self.novel_part.synonyms),
                self.novel_part,
            )
            return Point(settings, right, novel.student_accuracy, len(novel.labels), seconds)
        names = {"validation": self.fit_part.class_names}
        anchors = measure_retention(model, {"validation": scores}, names).anchors
        if anchors is None or anchors.agreement is None:
            raise PromptotError(
                f"What '{self.recipe.name}' learns says nothing of other words (it is specific to "
                "its classes, or its text depends on the image), so no retention is known.",
                fix="Use --classes base, or another recipe.",
            )
        agreement = anchors.agreement
        return Point(settings, right, agreement.value, agreement.total, seconds)

    def _score(self, model: PromptedModel, part: ImageTask) -> Scores:
        try:
            return score(model, self.images.batches(part.test), keep_features=True)
        except NothingToScore:
            raise PromptotError(
                f"None of the validation images of '{part.name}' could be read.",
                fix="Repair the images.",
            ) from None
