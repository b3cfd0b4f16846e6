"""Numbers beyond reason: training stops at the last good state and says why, or leaves them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.data import Batch, ImageTask
from promptot.data.task import Example
from promptot.errors import NotFinite, PromptotError
from promptot.recipes import load_recipe
from promptot.runs.learning import adapt
from promptot.training.checkpoint import read_checkpoint
from promptot.training.listener import Listener
from promptot.training.training_log import Log

NAMES = ("cat", "hot dog", "bee")
TASK = ImageTask("made", NAMES, train=tuple(Example(f"photos/{i}.png", i % 3) for i in range(8)))
QUICK = ("optim.epochs=3", "optim.batch_size=4")


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


class Made:
    """Two batches of four images an epoch, changed by `spoil(epoch, number, images)`."""

    def __init__(self, spoil: Callable[[int, int, torch.Tensor], torch.Tensor]) -> None:
        self.spoil = spoil

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch)
        for number in range(2):
            indices = torch.arange(4 * number, 4 * number + 4)
            labels = indices % 3
            images = torch.randn(4, 3, 16, 16, generator=generator) + labels.view(-1, 1, 1, 1)
            yield Batch(self.spoil(epoch, number, images), labels, indices)


def good(epoch: int, number: int, images: torch.Tensor) -> torch.Tensor:
    return images


def poisoned(epoch: int, number: int, images: torch.Tensor) -> torch.Tensor:
    """One NaN in the second batch of the second epoch."""
    if (epoch, number) == (2, 1):
        images[2, 0, 3, 3] = float("nan")
    return images


def run(
    small: Backbone,
    folder: Path | None,
    *overrides: str,
    recipe: str = "prompt-ot",
    spoil: Callable[[int, int, torch.Tensor], torch.Tensor] = good,
    listener: Listener | None = None,
) -> tuple[Student, Log]:
    log = Log(folder)
    model = adapt(
        small,
        TASK,
        load_recipe(recipe, [*QUICK, *overrides]),
        log,
        loader=Made(spoil),
        checkpoint=None if folder is None else folder / "checkpoint",
        listener=listener,
    )
    return model, log


RECIPES = ("prompt-ot", "ivlp", "prompt-ot-sinkhorn", "promptsrc", "prompt-ot-queue")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_bad_batch_stops_the_run_with_its_images_cause_and_advice(
    small: Backbone, tmp_path: Path, recipe: str
) -> None:
    with pytest.raises(NotFinite) as caught:
        run(small, tmp_path, "data.templates=one", recipe=recipe, spoil=poisoned)
    text = str(caught.value)
    assert "Epoch 2, step 2: " in text
    for part in ("'photos/4.png'", "'photos/7.png'", "The images themselves hold such values"):
        assert part in text
    assert "Look at these images; or leave such batches out with optim.on_nonfinite=skip" in text
    state = read_checkpoint(tmp_path / "checkpoint")
    assert (state.epoch, state.step) == (1, 0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_bad_batch_may_be_left_out_and_is_counted(
    small: Backbone, tmp_path: Path, recipe: str
) -> None:
    """The others are what they would have been: nothing of it gets into a queue or a control."""
    skip = ("optim.on_nonfinite=skip", "data.templates=one", "objective.control=ramp")
    skip = skip[:2] if recipe == "ivlp" else skip
    model, log = run(small, tmp_path, *skip, recipe=recipe, spoil=poisoned)
    assert log.skipped == 1
    assert [epoch.skipped for epoch in log.epochs] == [0, 1, 0]
    assert [(s.epoch, s.step) for s in log.steps] == [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)]
    assert all(p.isfinite().all() for p in model.prompts.parameters())
    assert (tmp_path / "epochs.csv").read_text().splitlines()[2].endswith(",1")

    class Shorter(Made):
        """The same without that batch."""

        def batches(self, epoch: int) -> Iterator[Batch]:
            for number, batch in enumerate(super().batches(epoch)):
                if (epoch, number) != (2, 1):
                    yield batch

    if recipe == "prompt-ot-queue":
        expected = adapt(
            small,
            TASK,
            load_recipe(recipe, [*QUICK, *skip[:2]]),
            Log(),
            loader=Shorter(good),
        )
        found = run(small, None, *skip[:2], recipe=recipe, spoil=poisoned)[0]
        for a, b in zip(expected.prompts.parameters(), found.prompts.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_stopped_run_goes_on_without_the_batch(small: Backbone, tmp_path: Path) -> None:
    with pytest.raises(NotFinite):
        run(small, tmp_path, spoil=poisoned)
    resumed, log = run(small, tmp_path, "optim.on_nonfinite=skip", spoil=poisoned)
    whole, whole_log = run(small, None, "optim.on_nonfinite=skip", spoil=poisoned)
    assert log.skipped == whole_log.skipped == 1
    for a, b in zip(resumed.prompts.parameters(), whole.prompts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_epoch_interrupted_behind_a_skipped_batch(small: Backbone, tmp_path: Path) -> None:
    def first(epoch: int, number: int, images: torch.Tensor) -> torch.Tensor:
        return images * float("nan") if (epoch, number) == (2, 0) else images

    def stop(record) -> None:
        if (record.epoch, record.step) == (2, 2):
            raise KeyboardInterrupt

    skip = "optim.on_nonfinite=skip"
    with pytest.raises(KeyboardInterrupt):
        run(small, tmp_path, skip, spoil=first, listener=Listener(on_step=stop))
    state = read_checkpoint(tmp_path / "checkpoint")
    assert (state.epoch, state.step, state.skipped, len(state.records)) == (1, 2, 1, 1)
    _, log = run(small, tmp_path, skip, spoil=first)
    assert repr(log.steps) == repr(run(small, None, skip, spoil=first)[1].steps)


def test_only_bad_batches_is_an_error(small: Backbone) -> None:
    with pytest.raises(NotFinite, match="All 2 batches of epoch 1 were left out"):
        run(
            small, None, "optim.on_nonfinite=skip", spoil=lambda e, n, images: images * float("nan")
        )


def test_a_gradient_that_is_not_finite(small_file: Path, tmp_path: Path) -> None:
    """The loss is fine, the step is not taken."""

    def hook(norm: object, given: object, features: torch.Tensor) -> None:
        if features.requires_grad:
            features.register_hook(lambda gradient: gradient / 0)

    steep = load_backbone(f"openai:{small_file}")
    steep.image_tower.ln_post.register_forward_hook(hook)
    with pytest.raises(NotFinite, match="The gradient is not finite, though the loss is"):
        run(steep, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_prompts_that_a_step_has_blown_up(small: Backbone, tmp_path: Path) -> None:
    wild = ("optim.lr=1e38", "optim.warmup_epochs=0", "optim.weight_decay=1e30")
    with pytest.raises(NotFinite) as caught:
        run(small, tmp_path, *wild)
    assert "Lower optim.lr" in str(caught.value)
    assert not (tmp_path / "checkpoint").exists()


EXTREMES = [
    ("objective.strength=1e30",),
    ("objective.strength=0",),
    ("objective.strength=1e-30",),
    ("objective.eta=1e30",),
    ("objective.eta=1e-30",),
    ("optim.lr=1e-30", "optim.warmup_lr=1e-30"),
    ("optim.lr=1e6", "optim.warmup_epochs=0"),
    ("optim.lr=1e37", "optim.warmup_epochs=0"),
    ("optim.momentum=0.999999",),
    ("optim.weight_decay=1e30",),
    ("optim.batch_size=1",),
    ("optim.epochs=0",),
    ("objective.solver=sinkhorn", "objective.epsilon=1e-12"),
    ("objective.solver=sinkhorn", "objective.epsilon=1e12"),
    ("objective.solver=sinkhorn-divergence", "objective.epsilon=1e-6"),
    ("objective.solver=unbalanced", "objective.marginal_penalty=1e-9"),
    ("objective.solver=unbalanced", "objective.marginal_penalty=1e9"),
    ("objective.solver=partial", "objective.mass=1e-9"),
    ("objective.control=budget", "objective.budget=1e-30"),
    ("objective.control=budget", "objective.budget=1e30"),
    ("objective.queue=1",),
    ("vocabulary=ot", "vocabulary.per_step=1", "vocabulary.strength=1e20"),
]


CASES = [(case, False) for case in EXTREMES]
CASES += [(case, True) for case in EXTREMES if "solver" in case[0] or "queue" in case[0]]


@pytest.mark.filterwarnings("ignore:.*did not converge")
@pytest.mark.parametrize(("overrides", "duplicates"), CASES)
def test_extremes_end_in_finite_prompts_or_a_clear_error(
    small: Backbone, words: str, overrides: tuple[str, ...], duplicates: bool
) -> None:
    """Also where all the points of the transport are one."""

    def spoil(epoch: int, number: int, images: torch.Tensor) -> torch.Tensor:
        return images[:1].expand_as(images).contiguous() if duplicates else images

    try:
        model, log = run(small, None, *overrides, words, spoil=spoil)
    except PromptotError as error:
        assert error.fix  # noqa: PT017
        return
    if model.prompts is not None:
        assert all(p.isfinite().all() for p in model.prompts.parameters())
    assert all(s.total == s.total for s in log.steps)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("apple\nbridge\ncloud\n", encoding="utf-8")
    return f"vocabulary.words={path}"


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e4, 1e20, float("inf"), float("nan")])
def test_extreme_logit_scales(small_file: Path, scale: float) -> None:
    backbone = load_backbone(f"openai:{small_file}")
    backbone.logit_scale.fill_(scale)
    try:
        model, _ = run(backbone, None)
    except NotFinite as error:
        assert error.fix  # noqa: PT017
        assert not 0 <= scale < 1e19
        return
    assert all(p.isfinite().all() for p in model.prompts.parameters())
