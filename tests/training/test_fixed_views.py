"""The teacher's features of K fixed views: what they equal, what they save, what they take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import ImageTask, load_folder
from promptot.errors import PromptotError
from promptot.experiments.training_views import TrainingViews
from promptot.recipes import Recipe, describe, load_recipe
from promptot.runs.learning import adapt
from promptot.training.batches import training_loader, views_bytes, views_used
from promptot.training.listener import Listener
from promptot.training.training_log import Log

EPOCHS = 4


def recipe(*overrides: str, name: str = "prompt-ot") -> Recipe:
    return load_recipe(name, [f"optim.epochs={EPOCHS}", "optim.lr=0.1", *overrides])


def cached(views: int, *more: str) -> Recipe:
    return recipe("data.teacher=cached-views", f"data.views={views}", *more)


@pytest.fixture
def task(photos: Path) -> ImageTask:
    return load_folder(photos).few_shot(3, seed=1)


def trained(backbone: Backbone, task: ImageTask, chosen: Recipe) -> tuple[Student, Log]:
    log = Log()
    return adapt(backbone, task, chosen, log, seed=1), log


def test_as_many_views_as_epochs_are_the_online_teacher(
    backbone: Backbone, task: ImageTask
) -> None:
    online, online_log = trained(backbone, task, recipe())
    kept, log = trained(backbone, task, cached(EPOCHS))
    for one, two in zip(online_log.steps, log.steps, strict=True):
        assert one.total == pytest.approx(two.total, rel=1e-4)
    assert online.prompts is not None
    assert kept.prompts is not None
    for one, two in zip(online.prompts.parameters(), kept.prompts.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    _, fewer_log = trained(backbone, task, cached(2))
    half = len(log.steps) // 2
    assert [s.total for s in fewer_log.steps[:half]] == [s.total for s in log.steps[:half]]
    assert [s.total for s in fewer_log.steps[half:]] != [s.total for s in log.steps[half:]]


def test_features_are_those_of_the_images_they_come_with(
    backbone: Backbone, task: ImageTask
) -> None:
    loader = training_loader(backbone, task, cached(2), seed=1)
    seen = []
    for epoch in (1, 2, 3, 4):
        for batch in loader.batches(epoch):
            assert batch.teacher is not None
            torch.testing.assert_close(batch.teacher, backbone.encode_image(batch.images))
            seen.append((epoch, batch.images))
    first, third = ([i for e, i in seen if e == epoch] for epoch in (1, 3))
    assert not all(map(torch.equal, first, third))  # the same views in another order
    sums = [sorted(float(image.sum()) for batch in b for image in batch) for b in (first, third)]
    assert sums[0] == pytest.approx(sums[1])


def test_the_teacher_reads_each_view_once(backbone: Backbone, task: ImageTask) -> None:
    images = 0
    tower = backbone.image_tower

    def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal images
        batch, length, _ = args[0].shape
        images += batch if length == 1 + tower.patches else 0  # more where there are prompts

    hook = tower.ln_pre.register_forward_pre_hook(count)
    trained(backbone, task, cached(2))
    assert images == 2 * len(task.train)
    images = 0
    trained(backbone, task, recipe())
    assert images == EPOCHS * len(task.train)
    hook.remove()


def test_an_image_that_is_damaged_by_now_is_an_error(
    backbone: Backbone, photos: Path, task: ImageTask
) -> None:
    Path(task.train[0].path).write_bytes(b"no image")
    with pytest.raises(PromptotError, match=Path(task.train[0].path).name):
        trained(backbone, task, cached(2, "optim.drop_last=false"))


def test_how_many_views_and_what_they_take(backbone: Backbone) -> None:
    assert load_recipe("prompt-ot", ["data.teacher=cached-views"]).data.views == 8
    assert load_recipe("prompt-ot").data.views is None
    assert views_used(cached(3)) == 3
    assert views_used(cached(9)) == EPOCHS  # more are never looked at
    assert views_used(recipe("data.views=9")) == 9
    assert views_bytes(backbone, 10, cached(3)) == 10 * 3 * 32 * 4
    assert views_bytes(backbone, 10, recipe("data.views=3")) == 10 * 3 * (32 + 16 * 128) * 4
    assert describe(cached(3))["data.teacher"] == "cached-views"
    with pytest.raises(PromptotError, match=r"data\.teacher"):
        recipe("data.teacher=cached")


def test_the_cost_is_told_before(backbone: Backbone, task: ImageTask) -> None:
    told: list[tuple[int, int, int]] = []
    listener = Listener(on_views=lambda *cost: told.append(cost))
    adapt(backbone, task, cached(2), Log(), seed=1, listener=listener)
    assert told == [(2, 12, 2 * 12 * 32 * 4)]
    with pytest.raises(PromptotError, match="1000000000 views of 12 images"):
        adapt(backbone, task, recipe("data.views=1000000000"), Log(), seed=1)


def test_a_benchmark_keeps_them_on_the_disk(
    backbone: Backbone, task: ImageTask, tmp_path: Path
) -> None:
    made: list[int] = []  # how many images each time
    for _ in range(2):
        views = TrainingViews(tmp_path, backbone, task, 1)
        for chosen in (cached(2), cached(2, "optim.batch_size=2")):
            loader = views.loader(chosen, made.append)
            assert loader is not None
            batches = list(loader.batches(1))
            assert len(batches[0].labels) == chosen.optim.batch_size
            torch.testing.assert_close(batches[0].teacher, backbone.encode_image(batches[0].images))
    assert sum(made) == 2 * len(task.train)
    (file,) = tmp_path.glob("teacher-*")
    file.write_bytes(b"damaged")
    views = TrainingViews(tmp_path, backbone, task, 1)
    assert views.loader(cached(2), made.append) is not None
    assert sum(made) == 4 * len(task.train)


@pytest.mark.parametrize("seed", [0, 1, 2**43, 2**62, 2**63 - 1])
@pytest.mark.parametrize("kept", ["online", "cached", "tokens"])
def test_seeds_of_up_to_63_bits(backbone: Backbone, task: ImageTask, seed: int, kept: str) -> None:
    """The order of kept tokens is that of all others: seed and epoch make it."""
    tokens = recipe("data.views=2", "optim.epochs=1")
    chosen = {"online": recipe("optim.epochs=1"), "cached": cached(2, "optim.epochs=1")}
    log = Log()
    adapt(backbone, task, chosen.get(kept, tokens), log, seed=seed)
    assert log.step_count > 0
