"""The loop, the schedule, the log and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from promptot.adaptation import IVLPPrompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.data import Batch
from promptot.errors import PromptotError
from promptot.objectives import Objective, build_preservation
from promptot.recipes import OptimConfig
from promptot.training import learning_rate, train
from promptot.training.checkpoint import CheckpointFile, read_checkpoint
from promptot.training.estimate import Estimate
from promptot.training.listener import Listener
from promptot.training.training_log import Log
from promptot.training.views import CachedViews, keep_view

NAMES = ["cat", "hot dog", "great white shark"]


def make_model(backbone: Backbone, seed: int = 0) -> Student:
    generator = torch.Generator().manual_seed(seed)
    return Student(backbone, IVLPPrompts(64, 128, 4, 3, 4, 3, generator=generator), NAMES)


def batches(epoch: int, count: int = 3) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(count):
        labels = torch.randint(0, 3, (4,), generator=generator)
        images = torch.randn(4, 3, 32, 32, generator=generator) + labels.view(-1, 1, 1, 1)
        yield Batch(images, labels, torch.arange(4))


class Made:
    """A loader of made-up batches."""

    def __init__(self, batches: Callable[[int], Iterator[Batch]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(list(self.batches(1)))


def run(
    backbone: Backbone, folder: Path | None = None, epochs: int | None = None, **options
) -> tuple[Student, Log]:
    model = make_model(backbone)
    log = Log(folder)
    objective = Objective(build_preservation(options.pop("preservation", "ot")), 1.0)
    config = OptimConfig(lr=options.pop("lr", 0.01), epochs=6)
    train(
        model,
        objective,
        Made(options.pop("batches", batches)),
        config,
        log,
        epochs=epochs,
        checkpoint=None if folder is None else CheckpointFile(folder / "checkpoint.safetensors"),
        listener=Listener(**options),
    )
    return model, log


def test_the_schedule_is_the_published_one() -> None:
    config = OptimConfig(lr=0.005, epochs=40, warmup_lr=1e-4)
    rates = [learning_rate(epoch, config) for epoch in range(1, 41)]
    assert rates[0] == 1e-4
    for epoch in range(2, 41):
        expected = 0.5 * 0.005 * (1 + math.cos(math.pi * (epoch - 2) / 40))
        assert rates[epoch - 1] == pytest.approx(expected, rel=1e-12)
    assert learning_rate(1, OptimConfig(lr=0.1, warmup_epochs=0)) == 0.1


def test_every_epoch_uses_its_rate(backbone: Backbone) -> None:
    _, log = run(backbone)
    config = OptimConfig(lr=0.01, epochs=6)
    assert [row.lr for row in log.epochs] == [learning_rate(e, config) for e in range(1, 7)]
    assert [row.step for row in log.steps[:4]] == [1, 2, 3, 1]


def test_the_loss_falls_and_only_prompts_move(backbone: Backbone) -> None:
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    start = make_model(backbone).prompts.state_dict()
    model, log = run(backbone, batches=lambda epoch: batches(1))
    assert log.epochs[-1].total < log.epochs[0].total
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    assert not any(torch.equal(start[k], v) for k, v in model.prompts.state_dict().items())


def test_what_is_logged(backbone: Backbone, tmp_path: Path) -> None:
    _, log = run(backbone, tmp_path)
    step = log.steps[-1]
    assert step.total == pytest.approx(step.cross_entropy + step.preservation, rel=1e-5)
    assert 0 <= step.off_diagonal_mass <= 1
    assert step.image_drift > 0
    assert step.text_drift > 0
    again = Log(tmp_path)
    again.restore(6)
    assert repr(again.steps) == repr(log.steps)  # NaN equals itself here
    assert repr(again.epochs) == repr(log.epochs)


def test_without_a_preservation_term_there_is_no_plan(backbone: Backbone) -> None:
    _, log = run(backbone, preservation="none")
    assert math.isnan(log.steps[0].off_diagonal_mass)
    assert math.isnan(log.epochs[0].vocabulary_plan_entropy)
    assert log.steps[0].preservation == log.steps[0].vocabulary == 0
    assert log.steps[0].total == pytest.approx(log.steps[0].cross_entropy)


def test_two_runs_give_the_same_bits(backbone: Backbone) -> None:
    first, second = run(backbone)[0].prompts, run(backbone)[0].prompts
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_run_ends_as_the_uninterrupted(
    backbone: Backbone, tmp_path: Path, stop: int
) -> None:
    whole, whole_log = run(backbone)
    run(backbone, tmp_path, epochs=stop)
    assert read_checkpoint(tmp_path / "checkpoint.safetensors").epoch == stop
    resumed, log = run(backbone, tmp_path)
    for a, b in zip(whole.prompts.parameters(), resumed.prompts.parameters(), strict=True):
        assert torch.equal(a, b)
    assert repr(log.steps) == repr(whole_log.steps)


def test_bf16_trains_close_to_fp32_and_prompts_stay_in_fp32(
    backbone: Backbone, clip_file: Path
) -> None:
    half = load_backbone(f"openai:{clip_file}", precision="bf16")
    assert half.weight_hash() == backbone.weight_hash()
    assert half.image_tower.transformer.blocks[0].mlp.c_fc.weight.dtype == torch.bfloat16
    model, log = run(half, batches=lambda epoch: batches(1))
    assert all(p.dtype == torch.float32 for p in model.prompts.parameters())
    assert log.epochs[-1].total < log.epochs[0].total
    _, exact = run(backbone, batches=lambda epoch: batches(1))
    assert log.epochs[0].total == pytest.approx(exact.epochs[0].total, rel=0.02)


def test_a_loss_that_is_not_finite_stops_with_advice(backbone: Backbone, tmp_path: Path) -> None:
    def poisoned(epoch: int) -> Iterator[Batch]:
        for batch in batches(epoch):
            images = batch.images.clone()
            if epoch == 2:
                images[0, 0, 0, 0] = float("nan")
            yield Batch(images, batch.labels, batch.indices)

    with pytest.raises(PromptotError, match=r"not finite|NaN"):
        run(backbone, tmp_path, batches=poisoned)
    state = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert state.epoch == 1
    assert all(tensor.isfinite().all() for tensor in state.prompts.values())


def test_an_epoch_without_a_batch_is_an_error(backbone: Backbone) -> None:
    with pytest.raises(PromptotError, match="Epoch 1 has no batch"):
        run(backbone, batches=lambda epoch: iter(()))


def test_a_damaged_checkpoint_is_an_error(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(PromptotError, match="is damaged"):
        run(backbone, tmp_path)


def test_cached_views_feed_the_same_features(backbone: Backbone) -> None:
    whole = [Batch(b.images, b.labels, b.indices + 4 * i) for i, b in enumerate(batches(1))]
    tokens = keep_view(backbone, reversed(whole))
    assert tokens.labels.tolist() == torch.cat([b.labels for b in whole]).tolist()
    model = make_model(backbone)
    expected, frozen = model(whole[1].images)
    student, teacher = model(tokens.images[4:8], tokens.teacher[4:8])
    torch.testing.assert_close(student.image, expected.image)
    torch.testing.assert_close(teacher.image, frozen.image)

    views = CachedViews([tokens, tokens._replace(images=-tokens.images)], 5, True, seed=1)
    first, second, third = (list(views.batches(epoch)) for epoch in (1, 2, 3))
    assert [len(batch.labels) for batch in first] == [5, 5]
    assert len(views) == 2
    assert all(torch.equal(b.images, tokens.images[b.indices]) for b in first + third)
    assert all(torch.equal(b.images, -tokens.images[b.indices]) for b in second)
    assert first[0].indices.tolist() != third[0].indices.tolist()
    assert torch.equal(first[0].indices, next(iter(views.batches(1))).indices)


def test_an_estimate_changes_nothing(backbone: Backbone) -> None:
    estimates: list[Estimate] = []
    told, log = run(backbone, on_estimate=estimates.append)
    plain, plain_log = run(backbone)
    assert torch.equal(told.prompts.text[0], plain.prompts.text[0])
    assert repr(log.steps) == repr(plain_log.steps)
    assert estimates[0].steps == 3
    assert estimates[0].epoch_seconds > 0
    assert 0 < estimates[0].memory_bytes < estimates[0].available_bytes
