"""Progress: what a run says while it works, and who hears it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from promptot.data.task import ImageTask
from promptot.training.estimate import Estimate
from promptot.training.training_log import EpochRecord, StepRecord


class Listener:
    """Base class of displays, trackers and logs: methods that do nothing.

    Override those that matter, or give functions by their names. A subclass may add events.

    Raises:
        TypeError: a function is given for an event that there is not.

    Example:
        >>> listener = Listener(on_warning=print)
        >>> listener.on_warning("Each epoch leaves out 1 of 317 images.")
        Each epoch leaves out 1 of 317 images.
        >>> listener.hears("on_warning"), listener.hears("on_estimate")
        (True, False)
    """

    def __init__(self, **functions: Callable[..., object] | None) -> None:
        for event, function in functions.items():
            if not (event.startswith("on_") and hasattr(self, event)):
                raise TypeError(f"there is no event '{event}'")
            if function is not None:
                setattr(self, event, function)

    def hears(self, event: str) -> bool:
        """Whether telling it of `event` has an effect; some events cost something to tell."""
        return event in vars(self) or sum(event in vars(kind) for kind in type(self).__mro__) > 1

    def on_run_start(self, settings: Mapping[str, Any]) -> None:
        """A run begins, made with these settings, flat."""

    def on_task(self, task: ImageTask) -> None:
        """The task, with the shots drawn."""

    def on_warning(self, text: str) -> None:
        """A sentence, before training."""

    def on_views(self, views: int, images: int, size: int) -> None:
        """How many fixed views of how many images will be kept, and in how many bytes."""

    def on_decoding(self, images: int, bound: int, device: str) -> None:
        """Training images will be kept decoded: how many, in how many bytes at most, and where."""

    def on_estimate(self, estimate: Estimate) -> None:
        """What training will cost; it takes three timed steps, which change nothing."""

    def on_start(self, done: int, total: int) -> None:
        """Training starts: epochs done, and epochs in all."""

    def on_step(self, record: StepRecord) -> None:
        """A step was taken. On an accelerator this may come some steps later."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch is over, and its checkpoint written."""

    def on_progress(self, what: str, done: int, total: int) -> None:
        """How much of something is done, and how much there is."""

    def on_run_end(self, results: Mapping[str, float], failed: bool) -> None:
        """The run is over, with these accuracies; none if it failed."""


SILENT = Listener()


class Listeners(Listener):
    """Several listeners as one, told in this order; of events that a subclass adds, too."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners
        for event in {name for one in listeners for name in dir(one) if name.startswith("on_")}:
            if any(one.hears(event) for one in listeners):
                setattr(self, event, partial(self._tell, event))

    def _tell(self, event: str, *arguments: object, **named: object) -> None:
        for one in self.listeners:
            if hasattr(one, event):
                getattr(one, event)(*arguments, **named)
