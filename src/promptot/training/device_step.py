"""A training step that nobody waits for: on a GPU, replayed as a CUDA graph once it is warm.

What is not finite is masked on the device: from the first such loss or gradient on no parameter
changes, and whoever reads the records finds out. Everything that changes from step to step is a
tensor: the batch, what is drawn, the learning rate, what the loss remembers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptot.data.loader import Batch
from promptot.graphs import GraphedFunction, GraphMaker
from promptot.training.gradients import backpropagate
from promptot.training.loss import Loss
from promptot.training.optimizers import begin_state

WARM_UP = 3
"""Steps of one layout that are launched kernel by kernel before it is recorded."""
MOST_GRAPHS = 4
"""Each has memory of its own; a run has one layout of its batches, or two with a short last one."""


class DeviceStep:
    """Forward, backward, check, update and record of a batch, without waiting for the device.

    Args:
        parameters: all that learn.
        loss: what is minimised.
        optimizer: of `build_optimizer`, deferred.
        graphs: makes CUDA graphs; None launches every step kernel by kernel.
        on_failure: is told in a sentence why steps are not recorded, once.
        loss_scale: see `Trainer`.

    Attributes:
        graphs: None too after a recording has failed.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        graphs: GraphMaker | None,
        on_failure: Callable[[str], None],
        loss_scale: float = 1.0,
    ) -> None:
        self.parameters, self.loss, self.optimizer = parameters, loss, optimizer
        self.device = parameters[0].device
        self.graphs, self._on_failure = graphs, on_failure
        self._scale = loss_scale
        self._unscale = torch.full((), 1 / loss_scale, device=self.device)
        self._bad = torch.zeros((), device=self.device)  # 1 from the first that was not finite on
        self._layouts: dict[Hashable, _Layout] = {}
        self._state: dict[str, Tensor] = {}  # what the loss remembers, where graphs find it
        optimizer.found_inf = self._bad  # type: ignore[attr-defined]  # then the kernel does nothing

    def __call__(self, loaded: Batch, drawn: Tensor | None) -> Tensor:
        """Take a step.

        Args:
            loaded: a batch, on the host or the device; `indices` are not read.
            drawn: see `Loss.draw`.

        Returns:
            what was measured (see `BatchLoss`), whether all was finite so far and whether the
            images were, [F + 2].
        """
        begin_state(self.optimizer)
        if self.graphs is None:
            drawn = None if drawn is None else drawn.to(self.device, non_blocking=True)
            return self._run(loaded.to(self.device), drawn)
        return self._by_graph(self.graphs, loaded, drawn)

    def _run(self, batch: Batch, drawn: Tensor | None) -> Tensor:
        loss = self.loss(batch, drawn)
        self.optimizer.zero_grad()
        backpropagate(loss, self.parameters, self._scale)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        # sets the flag where one is not finite
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, self._bad, self._unscale)
        wrong = loss.total.detach().isfinite().logical_not()
        self._bad.copy_(torch.maximum(self._bad, wrong.to(self._bad)))
        self.optimizer.step()
        flags = torch.stack([1 - self._bad, batch.images.isfinite().all().to(self._bad)])
        return torch.cat([loss.measured, flags.to(loss.measured)])

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Steps may be taken here; afterwards all that they change is as it was."""
        begin_state(self.optimizer)
        known = (value for own in self.optimizer.state.values() for value in own.values())
        tensors = [*self.parameters, *(v for v in known if isinstance(v, Tensor)), self._bad]
        before = [tensor.detach().clone() for tensor in tensors]
        remembered = {name: value.clone() for name, value in self.loss.state_dict().items()}
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
            self.loss.load_state_dict(remembered)

    def _by_graph(self, graphs: GraphMaker, loaded: Batch, drawn: Tensor | None) -> Tensor:
        self._settle_state()
        key = tuple(
            None if part is None else (part.shape, part.dtype)
            for part in (loaded.images, loaded.labels, loaded.teacher, drawn)
        )
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = self._new_layout(graphs, loaded, drawn)
        layout.fill(loaded, drawn)
        if layout.ready:
            return layout.step.replay().clone()
        warm = layout.steps < WARM_UP or self._enough()
        remembered, reason = dict(self._state), None
        try:
            if warm:
                layout.steps += 1
                return layout.step.warm_up()
            layout.step.record()
        except RuntimeError as error:
            if warm and not (isinstance(error, torch.OutOfMemoryError) and self._some_ready()):
                raise
            reason = " ".join(str(error).split())[:300]
        finally:
            if reason is not None or not warm:
                self.loss.load_state_dict(remembered)
        # behind the handler, as the error holds all that the failed step had in memory
        if reason is not None:
            self._give_up(reason)
            return self._run(layout.batch, layout.drawn)
        layout.ready = True
        return layout.step.replay().clone()

    def _new_layout(self, graphs: GraphMaker, loaded: Batch, drawn: Tensor | None) -> _Layout:
        batch = loaded.to(self.device, copy=True)
        drawn = None if drawn is None else self._own(drawn)

        def step() -> Tensor:
            values = self._run(batch, drawn)
            after = self.loss.state_dict()
            for name, kept in self._state.items():
                if after[name].shape == kept.shape:
                    kept.copy_(after[name])
            return values

        return _Layout(batch, drawn, GraphedFunction(step, graphs))

    def _settle_state(self) -> None:
        """Let what the loss remembers be where graphs read and write it.

        Those of another layout of it are given up: a queue that fills up has one after the other.
        """
        current = self.loss.state_dict()
        if current.keys() != self._state.keys() or any(
            value.shape != self._state[name].shape or value.dtype != self._state[name].dtype
            for name, value in current.items()
        ):
            self._forget_layouts()
            self._state = {name: self._own(value) for name, value in current.items()}
        elif all(value is self._state[name] for name, value in current.items()):
            return
        else:
            for name, value in current.items():
                self._state[name].copy_(value)
        self.loss.load_state_dict(self._state)

    def close(self) -> None:
        """Let go of the graphs and their memory, gradients included."""
        self._forget_layouts()
        self.optimizer.zero_grad()

    def _forget_layouts(self) -> None:
        if self.device.type == "cuda" and self._some_ready():
            torch.cuda.synchronize(self.device)  # the last replay may be at work
        self._layouts.clear()

    def _some_ready(self) -> bool:
        return any(layout.ready for layout in self._layouts.values())

    def _enough(self) -> bool:
        return sum(layout.ready for layout in self._layouts.values()) >= MOST_GRAPHS

    def _give_up(self, reason: str) -> None:
        graphs, self.graphs = self.graphs, None
        self.close()
        if graphs is not None:
            graphs.collect()
        self._on_failure(
            f"Steps are not replayed as CUDA graphs, which makes them slower: {reason}"
        )

    def _own(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.device, copy=True)


@dataclass(eq=False)
class _Layout:
    """Steps on batches of one shape.

    Attributes:
        batch, drawn: where the step reads them.
        step: reads them, and changes what learns.
        steps: how many were taken before it was recorded.
        ready: whether it is.
    """

    batch: Batch
    drawn: Tensor | None
    step: GraphedFunction[Tensor]
    steps: int = 0
    ready: bool = False

    def fill(self, loaded: Batch, drawn: Tensor | None) -> None:
        pairs = ("images", "labels", "teacher")  # nobody reads the indices there
        parts = [(getattr(self.batch, name), getattr(loaded, name)) for name in pairs]
        for own, given in (*parts, (self.drawn, drawn)):
            if own is not None and given is not None:
                own.copy_(given, non_blocking=True)
