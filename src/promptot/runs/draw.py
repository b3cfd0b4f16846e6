"""What a run learns from: a task with its shots drawn, over the classes that were asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from promptot.backbones.backbone import Backbone
from promptot.data.class_names import check_task_names
from promptot.data.name_warnings import same_tokens, same_tokens_sentence
from promptot.data.task import ImageTask
from promptot.data.unreadable import choose_shots
from promptot.errors import PromptotError
from promptot.recipes.schema import Recipe
from promptot.runs.learning import anchor_words
from promptot.runs.made_with import MadeWith
from promptot.runs.manifest import Manifest, make_manifest

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
        return make_manifest(
            self.made_with, self.whole, self.task, self.hashes, self.backbone, self.recipe
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
    made_with = MadeWith.of(
        backbone,
        recipe,
        chosen,
        seed=seed,
        classes=classes,
        hashes=hashes,
        words=anchor_words(recipe, chosen.class_names, whole.class_names),
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
