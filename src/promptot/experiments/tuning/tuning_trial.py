"""One trial: learn a setting as a cell of a benchmark, and see what it gets right and keeps."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from promptot.adaptation.student import Student
from promptot.data import ImageTask
from promptot.errors import PromptotError
from promptot.evaluation.retention import measure_retention
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.experiments.cells import VERSION, Cell, digest_of
from promptot.experiments.methods import Method
from promptot.experiments.run_cell import CellContext, Drawn, learn_cell
from promptot.experiments.tuning.search import Settings, change, describe_settings
from promptot.experiments.tuning.trial_points import Point
from promptot.recipes import Recipe, complete_values
from promptot.recipes.templates import teacher_templates

FIT, NOVEL = "validation", "novel"
"""The parts: validation images of the classes that are trained on, and of held-out ones."""


@dataclass(frozen=True, eq=False)
class TuningTrials:
    """What all trials share.

    Attributes:
        context: has the images.
        drawn: what is learnt from, and the parts `FIT` and perhaps `NOVEL` to test on.
        recipe: to start from.
    """

    context: CellContext
    drawn: Drawn
    recipe: Recipe

    @property
    def layers(self) -> int:
        """Blocks of the deeper tower."""
        backbone = self.context.backbone
        return max(backbone.image_tower.layers, backbone.text_tower.layers)

    @property
    def fit_part(self) -> ImageTask:
        return self.drawn.scenario.parts[FIT]

    @property
    def novel_part(self) -> ImageTask | None:
        return self.drawn.scenario.parts.get(NOVEL)

    @property
    def retention(self) -> str:
        if self.novel_part is not None:
            return f"accuracy on {len(self.novel_part.class_names)} held-out classes"
        return "same answer as the frozen model among anchor words"

    def key(self, settings: Settings) -> str:
        """What a trial's figures depend on, as one hash."""
        decides: list[Any] = [complete_values(self.recipe), settings, self.drawn.seed]
        decides += [VERSION, self.context.backbone.identity().digest, self._images]
        return digest_of(decides)

    @cached_property
    def _images(self) -> list[Any]:
        """Class names, and images by their content, of what is trained and tested on."""
        train = self.drawn.train
        parts = [(train.class_names, train.train)]
        parts += [(part.class_names, part.test) for part in self.drawn.scenario.parts.values()]
        return [[names, [(e.hash(), e.label) for e in examples]] for names, examples in parts]

    def zero_shot(self) -> Point:
        """The frozen model as a point."""
        names, data = self.fit_part.class_names, self.recipe.data
        templates = teacher_templates(data.templates, self.fit_part.template)
        frozen = Student(
            self.context.backbone,
            None,
            names,
            templates,
            synonyms=self.fit_part.synonyms,
            template_mean=data.template_mean,
        )
        return self._point({}, frozen)

    def run(self, settings: Settings, number: int) -> Point:
        """Learn and test one setting; the number is for who is told how it goes."""
        began = time.perf_counter()
        label = f"trial {number}: {describe_settings(settings, self.recipe)}"
        recipe, scenario = change(self.recipe, settings), self.drawn.scenario
        method = Method(label, self.recipe.name, recipe, own_template=True)
        cell = Cell(
            self.key(settings), "tuning", *scenario.unit, self.drawn.seed, "validation", "", method
        )
        point = self._point(settings, learn_cell(cell, self.context).model)
        return replace(point, seconds=time.perf_counter() - began)

    def _point(self, settings: Settings, model: Student) -> Point:
        scores = self._score(model, self.fit_part)
        right = "".join("1" if r else "0" for r in scores.student.argmax(1) == scores.labels)
        if self.novel_part is not None:
            novel = self._score(
                model.for_classes(self.novel_part.class_names, synonyms=self.novel_part.synonyms),
                self.novel_part,
            )
            return Point(settings, right, novel.student_accuracy, len(novel.labels))
        anchors = measure_retention(model, {FIT: scores}, {FIT: self.fit_part.class_names}).anchors
        if anchors is None or anchors.agreement is None:
            raise PromptotError(
                f"What '{self.recipe.name}' learns says nothing of other words (it is specific to "
                "its classes, or its text depends on the image), so no retention is known.",
                fix="Use --classes base, or another recipe.",
            )
        return Point(settings, right, anchors.agreement.value, anchors.agreement.total)

    def _score(self, model: Student, part: ImageTask) -> Scores:
        try:
            frozen = not model.adapts_images
            images = self.context.images.batches(part.test, frozen=frozen)
            return score(model, images, keep_features=True)
        except NothingToScore:
            raise PromptotError(
                f"None of the validation images of '{part.name}' could be read.",
                fix="Repair the images.",
            ) from None
