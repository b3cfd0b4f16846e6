"""Which images and classes the steps of a training will see, where last batches are dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from promptot.data.task import ImageTask
from promptot.errors import listed


@runtime_checkable
class Ordered(Protocol):
    """A loader that can say the order of an epoch without reading an image."""

    def order(self, epoch: int) -> Iterator[list[int]]:
        """The indices of each batch of an epoch, counted from 1."""
        ...


@dataclass(frozen=True)
class Coverage:
    """What the epochs of a training leave out.

    Attributes:
        images: how many there are to learn from.
        epochs: how many there are.
        left_out: images that the first epoch has no step with; every epoch leaves out as many.
        without_class: epoch → the class names that no step of it sees an image of; only epochs
            that lack one.
        never: paths of the images that no step of any epoch sees.
        never_classes: names of the classes that no step of any epoch sees an image of.
    """

    images: int
    epochs: int
    left_out: int
    without_class: dict[int, tuple[str, ...]]
    never: tuple[str, ...]
    never_classes: tuple[str, ...]

    def sentence(self) -> str:
        """What to say of it before training; "" if every epoch sees every image."""
        if not self.left_out:
            return ""
        said = [
            f"Each epoch leaves out {self.left_out} of {self.images} images, others each time: an "
            "incomplete last batch is dropped."
        ]
        if self.without_class:
            first, names = next(iter(self.without_class.items()))
            said.append(
                f"{len(self.without_class)} of {self.epochs} epochs see no image of some class "
                f"(epoch {first}: {listed(names, 5)})."
            )
        if self.never_classes:
            said.append(f"No epoch sees an image of {listed(self.never_classes, 5)}.")
        if self.never:
            said.append(f"No epoch sees {listed(self.never, 5)}.")
        said.append("--set optim.drop_last=false sees all.")
        return " ".join(said)


def coverage(loader: Ordered, task: ImageTask, epochs: int) -> Coverage:
    """What the steps of a training see of a task's training images, by the loader's own order.

    Args:
        loader: of these images.
        epochs: of the training, counted from 1.
    """
    everything = set(range(len(task.train)))
    ever: set[int] = set()
    left_out, without = 0, {}
    for epoch in range(1, epochs + 1):
        seen = {index for batch in loader.order(epoch) for index in batch}
        if epoch == 1:
            left_out = len(everything - seen)
            if not left_out:  # batches are as long in every epoch
                return Coverage(len(everything), epochs, 0, {}, (), ())
        if missing := _unseen_classes(task, seen):
            without[epoch] = missing
        ever |= seen
    never = tuple(task.train[index].path for index in sorted(everything - ever))
    lost = _unseen_classes(task, ever)
    return Coverage(len(everything), epochs, left_out, without, never, lost)


def _unseen_classes(task: ImageTask, seen: set[int]) -> tuple[str, ...]:
    """Names of the classes that have training images, and none among these."""
    present = {example.label for example in task.train}
    lost = present - {task.train[index].label for index in seen}
    return tuple(task.class_names[label] for label in sorted(lost))
