"""What a run learns from: a task with its shots drawn, over the classes that were asked for."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from typing import Any, Literal

from promptot.backbones.backbone import Backbone
from promptot.backbones.library_versions import versions
from promptot.data.class_names import check_task_names
from promptot.data.name_warnings import same_tokens, same_tokens_sentence
from promptot.data.shots import choose_shots
from promptot.data.task import ImageTask
from promptot.errors import PromptotError
from promptot.recipes import describe
from promptot.recipes.schema import Recipe, complete_values
from promptot.recipes.templates import teacher_templates
from promptot.runs.learning import anchor_words
from promptot.runs.made_with import SCHEME, MadeWith, digest
from promptot.runs.manifest import LeftOut, Manifest, Shot, TrainedIn, TrainedOn

Classes = Literal["base", "novel", "all"]


@dataclass(frozen=True, eq=False)
class Draw:
    """What a run learns from, and in.

    Attributes:
        whole: the task with the shots that were drawn, over all classes.
        task: the same over the classes that are learned.
        backbone: on the device to use.
        recipe: the method.
        made_with: what a resumed run must have in common.
        hashes: of the training images' bytes.
    """

    whole: ImageTask
    task: ImageTask
    backbone: Backbone
    recipe: Recipe
    made_with: MadeWith
    hashes: list[str]

    def manifest(self) -> Manifest:
        """That of a run which is about to learn from it."""
        task, identity = self.task, self.backbone.identity()
        return Manifest(
            recipe={key: _listed(value) for key, value in describe(self.recipe).items()},
            seed=self.made_with.seed,
            backbone=TrainedIn(
                name=self.backbone.name,
                weight_hash=identity.weights,
                function=dict(identity.function),
                identity=self.made_with.backbone,
            ),
            task=TrainedOn(
                name=self.whole.name,
                classes=self.made_with.classes,
                class_names=list(task.class_names),
                template=_listed(teacher_templates(self.recipe.data.templates, task.template)),
                synonyms={name: list(others) for name, others in own_synonyms(task).items()},
                shots=[
                    Shot(path=e.path, class_name=task.class_names[e.label], sha256=sha256)
                    for e, sha256 in zip(task.train, self.hashes, strict=True)
                ],
                skipped=[LeftOut(**asdict(item)) for item in self.whole.skipped],
            ),
            made_with=self.made_with.model_dump(),
            device=str(self.backbone.device),
            precision=self.backbone.precision,
            versions=dict(versions()),
            platform=platform.platform(),
        )

    def parts(self) -> dict[str, ImageTask]:
        """What is tested: "test"; or, where half of the classes are learned, "base" and "novel"."""
        if self.made_with.classes == "all":
            return {"test": self.task}
        return {"base": self.whole.base(), "novel": self.whole.novel()}

    def same_names(self) -> list[str]:
        """A sentence for each two classes whose names are one text to the backbone's tokenizer."""
        task, encode = self.whole, self.backbone.tokenizer.encode
        pairs = same_tokens(task.class_names, encode, task.synonyms, task.template)
        return [same_tokens_sentence(*pair) for pair in pairs]


def draw(
    task: ImageTask, backbone: Backbone, recipe: Recipe, *, seed: int = 1, classes: Classes = "all"
) -> Draw:
    """Draw the shots that a recipe asks for.

    Args:
        task: images by split; those to learn from are drawn from its training split.
        backbone: on the device to use.
        seed: of the shots; start and order of training follow from it too.
        classes: which half of the classes to learn, or all.

    Raises:
        PromptotError: the seed is out of range, a class has no readable image, or there are no
            halves.
    """
    if not 0 <= seed < 2**63:
        raise PromptotError(f"The seed {seed} is out of range.", fix="Use one from 0 to 2^63 - 1.")
    whole = choose_shots(task, recipe.data.shots, seed)
    chosen = select_classes(whole, classes)
    check_task_names(chosen.class_names, keep=chosen.same_names)
    hashes = [example.hash() for example in chosen.train]
    values = complete_values(recipe)
    values["optim"].pop("on_nonfinite")  # what to do about a bad batch may change on the way
    names = ["\t".join([n, *chosen.synonyms.get(n, ())]) for n in chosen.class_names]
    labelled = [f"{h} {e.label}" for h, e in zip(hashes, chosen.train, strict=True)]
    templates = teacher_templates(recipe.data.templates, chosen.template)
    made_with = MadeWith(
        scheme=SCHEME,
        recipe=values,
        seed=seed,
        backbone=backbone.identity().digest,
        classes=classes,
        template=[templates] if isinstance(templates, str) else list(templates),
        train=digest([*names, *labelled]),
        vocabulary=digest(anchor_words(recipe, chosen.class_names, whole.class_names)),
    )
    return Draw(whole, chosen, backbone, recipe, made_with, hashes)


def select_classes(task: ImageTask, classes: Classes) -> ImageTask:
    """The base classes of a task, the novel ones, or all.

    Raises:
        PromptotError: there are no novel classes because there is only one class.
    """
    if classes == "all":
        return task
    if len(task.class_names) < 2:
        raise PromptotError(
            "One class can't be divided into base and novel.", fix="Use --classes all."
        )
    return task.base() if classes == "base" else task.novel()


def own_synonyms(task: ImageTask) -> dict[str, tuple[str, ...]]:
    """The synonyms of a task's classes, and of no others."""
    return {name: task.synonyms[name] for name in task.class_names if name in task.synonyms}


def _listed(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
