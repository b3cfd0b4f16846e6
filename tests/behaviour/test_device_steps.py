"""Every recipe's step as a GPU takes it, on a CPU: nothing is decided by a value, and replays.

`is_host` says no here, so that a CPU is treated as a GPU is; a tape stands in for CUDA graphs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import KINDS, QUICK, WITHOUT_TOKENS, Families
from matrix import (
    read_recipe,
    some_pairs,
    start_model,
)
from stepping import batches, build, take
from tape import WAITS, Tape, TapeGraphs
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from promptot import graphs
from promptot.backbones import Backbone
from promptot.backbones.towers import tiled_blocks
from promptot.data import Batch
from promptot.recipes import Recipe
from promptot.training.device_step import WARM_UP
from promptot.training.loss import BatchLoss
from promptot.training.train_student import StudentLoss

FEW = some_pairs("ot")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "HOST", set())
    monkeypatch.setattr(tiled_blocks, "works_on", lambda *_: True)


@pytest.mark.parametrize(("design", "objective"), FEW)
def test_a_replayed_step_has_the_bits_of_a_launched_one(
    small: Backbone, words: Path, design: str, objective: str
) -> None:
    check_replays(small, read_recipe(design, objective, words))


@pytest.mark.parametrize("name", [n for n in KINDS if n.startswith(QUICK)])
@pytest.mark.parametrize("recomputed", [False, True])
def test_so_it_is_for_other_towers(
    families: Families, words: Path, name: str, recomputed: bool
) -> None:
    """Where there are tokens with prompts among them, and texts that are padded."""
    _, _, backbone = families(name)
    if recomputed and backbone.text_tower.recompute is None:
        pytest.skip("it computes nothing again")
    design = "coop" if name.startswith(WITHOUT_TOKENS) else "ivlp"
    if recomputed:
        backbone.text_tower.recompute = True
    check_replays(backbone, read_recipe(design, "vocabulary-ot", words))
    if recomputed:
        backbone.text_tower.recompute = False


def check_replays(backbone: Backbone, recipe: Recipe) -> None:
    """Records and parameters of replayed steps have the bits of launched ones."""
    side = backbone.preprocess.resolution
    maker = TapeGraphs(forbidden=WAITS)
    launched = take(build(start_model(backbone, recipe), recipe, None), side)
    step = build(start_model(backbone, recipe), recipe, maker)
    replayed = take(step, side)
    assert maker.tapes
    assert step.graphs is maker
    for one, other in zip(*(records for records, _ in (launched, replayed)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    for one, other in zip(launched[1], replayed[1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("objective", ["ot", "ot-queue", "ot-budget", "ot-ramp", "vocabulary-ot"])
def test_a_recording_that_fails_leaves_no_trace(
    small: Backbone, words: Path, objective: str
) -> None:
    """It fails in the optimiser, when a queue and λ have moved on already; then steps go on."""
    recipe, told = read_recipe("ivlp", objective, words), []
    launched = take(build(start_model(small, recipe), recipe, None))
    maker = TapeGraphs(forbidden=("_fused_sgd_",))
    step = build(start_model(small, recipe), recipe, maker, told.append)
    found = take(step)
    assert len(told) == 1
    assert "kernel by kernel" in told[0] or "CUDA graphs" in told[0]
    assert step.graphs is None
    for one, other in zip(launched[0], found[0], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert all(map(torch.equal, launched[1], found[1]))


@pytest.mark.parametrize("objective", ["ot-queue", "ot-budget", "cross-entropy"])
def test_a_rehearsal_leaves_no_trace(small: Backbone, words: Path, objective: str) -> None:
    """Steps that are timed before training, and recorded, and undone."""
    recipe = read_recipe("ivlp", objective, words)
    launched = take(build(start_model(small, recipe), recipe, None))
    step = build(start_model(small, recipe), recipe, TapeGraphs())
    with step.undone():
        for batch, _ in zip(batches(), range(WARM_UP + 3), strict=False):
            step(batch, None)
    found = take(step)
    for one, other in zip(launched[0], found[0], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert all(map(torch.equal, launched[1], found[1]))
    step.close()
    assert all(parameter.grad is None for parameter in step.parameters)


class ShortOfMemory:
    """A loss that is out of memory the first time it is asked for."""

    def __init__(self, loss: StudentLoss) -> None:
        self.loss, self.asked = loss, 0
        self.draw, self.state_dict = loss.draw, loss.state_dict
        self.load_state_dict = loss.load_state_dict

    def __call__(self, batch: Batch, drawn: Tensor | None = None) -> BatchLoss:
        self.asked += 1
        if self.asked == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.loss(batch, drawn)


def test_a_second_shape_without_memory_is_taken_without_graphs(
    small: Backbone, words: Path
) -> None:
    recipe, told = read_recipe("ivlp", "ot", words), []
    last = next(batches())
    last = last._replace(images=last.images[:2], labels=last.labels[:2])
    results = []
    for maker in (None, TapeGraphs()):
        step = build(start_model(small, recipe), recipe, maker, told.append)
        take(step)
        if maker is not None:
            step.loss = ShortOfMemory(step.loss)
        step(last, None)
        results.append([p.detach().clone() for p in step.parameters])
    assert all(map(torch.equal, *results))
    assert len(told) == 1


@pytest.mark.parametrize(("design", "objective"), FEW)
def test_steps_are_the_same_operators_on_the_same_shapes(
    small: Backbone,
    words: Path,
    monkeypatch: pytest.MonkeyPatch,
    design: str,
    objective: str,
) -> None:
    """Whatever the values are: so an allocation of one step is that of the next."""

    def unseen(function: graphs.Outside, *inputs: Tensor) -> tuple[Tensor, ...]:
        with _disable_current_modes():
            return function(*inputs)

    monkeypatch.setattr("promptot.objectives.compare.between_graphs", unseen)
    recipe = read_recipe(design, objective, words)
    step = build(start_model(small, recipe), recipe, None)
    seen = []
    for number, batch in zip(range(5), batches(), strict=False):
        tape = Tape()
        with tape:
            step(batch, step.loss.draw(1, number + 1))
        seen.append([(str(func), [t.shape for t in outputs]) for func, _, _, outputs in tape.calls])
    assert len(seen[2]) > 100
    assert seen[2] == seen[3] == seen[4]
