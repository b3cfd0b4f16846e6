"""Every recipe that trains: it resumes to the same bits, and its average is the one it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import Batch, ImageTask
from promptot.data.anchor_words import load_vocabulary
from promptot.recipes import list_recipes, load_recipe
from promptot.runs.learning import adapt
from promptot.training.averaging import gaussian_weights
from promptot.training.checkpoint import read_checkpoint
from promptot.training.listener import Listener
from promptot.training.training_log import EpochRecord, Log

NAMES = ("cat", "hot dog", "great white shark")
TASK = ImageTask("made up", NAMES)
QUICK = ("optim.lr=0.02", "optim.batch_size=4")
TRAINED = [name for name in list_recipes() if load_recipe(name).trains]
CASES = [(name,) for name in TRAINED] + [
    ("maple", "objective=ot", "objective.queue=6", "objective.control=budget", "vocabulary=ot"),
    ("cocoop", "objective=ot", "objective.control=ramp", "ensembling=uniform"),
    ("coop-class-specific", "objective=promptsrc", "evaluate_epoch=2", "ensembling=gaussian"),
]


class Made:
    """Two batches an epoch, made of noise and labels."""

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(len(self)):
            labels = torch.randint(0, 3, (4,), generator=generator)
            images = torch.randn(4, 3, 32, 32, generator=generator) + labels.view(-1, 1, 1, 1)
            yield Batch(images, labels, torch.arange(4))


def run(
    backbone: Backbone,
    folder: Path,
    name: str,
    *overrides: str,
    epochs: int = 3,
    listener: Listener | None = None,
) -> tuple[Student, Log]:
    log = Log(folder)
    model = adapt(
        backbone,
        TASK,
        load_recipe(name, [*QUICK, f"optim.epochs={epochs}", *overrides]),
        log,
        loader=Made(),
        checkpoint=folder / "checkpoint",
        listener=listener,
    )
    return model, log


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_an_interrupted_run_ends_as_the_uninterrupted(
    backbone: Backbone, tmp_path: Path, case: tuple[str, ...]
) -> None:
    def interrupt(record: EpochRecord) -> None:
        raise KeyboardInterrupt

    parts = tmp_path / "parts"
    parts.mkdir()
    whole, whole_log = run(backbone, tmp_path, *case, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        run(backbone, parts, *case, epochs=2, listener=Listener(on_epoch=interrupt))
    assert read_checkpoint(parts / "checkpoint").epoch == 1
    # The steps that an estimate tries must leave no trace in a queue or a control either.
    trying = Listener(on_estimate=lambda estimate: None)
    resumed, log = run(backbone, parts, *case, epochs=2, listener=trying)
    assert repr(log.steps) == repr(whole_log.steps)
    for a, b in zip(whole.prompts.parameters(), resumed.prompts.parameters(), strict=True):
        assert torch.equal(a, b)
    # Once more, from the checkpoint of the last epoch: there is no step left, only the average.
    again, _ = run(backbone, parts, *case, epochs=2)
    for a, b in zip(whole.prompts.parameters(), again.prompts.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("stop", [None, 2])
def test_gaussian_aggregation_is_the_published_one(
    backbone: Backbone, tmp_path: Path, stop: int | None
) -> None:
    """Training goes on from unaveraged prompts; the weighted sum over the epochs is kept."""
    given = () if stop is None else (f"evaluate_epoch={stop}",)
    seen: list[list[torch.Tensor]] = []

    def remember(record: EpochRecord) -> None:
        state = read_checkpoint(tmp_path / "plain" / "checkpoint").prompts
        seen.append([state[key].double() for key in sorted(state)])

    for name in ("plain", "averaged"):
        (tmp_path / name).mkdir()
    _, plain_log = run(
        backbone,
        tmp_path / "plain",
        "promptsrc",
        "ensembling=none",
        *given,
        listener=Listener(on_epoch=remember),
    )
    options = ("ensembling.mean=2", "ensembling.sd=0.8", *given)
    model, log = run(backbone, tmp_path / "averaged", "promptsrc", *options)
    assert repr(log.steps) == repr(plain_log.steps)
    weights = gaussian_weights(stop or 3, mean=2, sd=0.8)
    assert len(seen) == len(weights)
    kept = dict(model.prompts.named_parameters())
    for index, key in enumerate(sorted(kept)):
        expected = sum(w * epoch[index] for w, epoch in zip(weights, seen, strict=True))
        torch.testing.assert_close(kept[key].double(), expected, rtol=0, atol=1e-6)


def test_what_the_second_term_and_the_control_log(backbone: Backbone, tmp_path: Path) -> None:
    overrides = ("vocabulary.per_step=5", "objective.control=ramp")
    _, log = run(backbone, tmp_path, "prompt-ot-vocabulary", *overrides)
    assert [round(step.strength, 4) for step in log.steps] == [0, 2, 4, 6, 8, 10]
    for step in log.steps:
        assert step.vocabulary > 0
        assert 0 <= step.vocabulary_off_diagonal_mass <= 1
        assert step.vocabulary_plan_entropy > 0
        terms = step.cross_entropy + step.strength * step.preservation + 10 * step.vocabulary
        assert step.total == pytest.approx(terms, rel=1e-4)
    again = Log(tmp_path)
    again.restore(3)
    assert repr(again.epochs) == repr(log.epochs)


def test_the_anchor_words_leave_out_classes(backbone: Backbone, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("Cat\ntiger\nzebra\n", encoding="utf-8")
    shipped = load_vocabulary()
    others = tuple(word for word in shipped if word not in ("cat", "tiger", "zebra"))
    unnamed = tuple(word for word in shipped if word not in NAMES)

    def vocabulary(*overrides: str, held_out: tuple[str, ...] = ()) -> tuple[str, ...]:
        recipe = load_recipe("ivlp", ["optim.epochs=1", "vocabulary=pointwise", *overrides])
        return adapt(backbone, TASK, recipe, Log(), loader=Made(), held_out=held_out).vocabulary

    assert len(shipped) - len(others) == 3
    assert vocabulary() == unnamed != shipped
    assert set(vocabulary(held_out=others)) == {"tiger", "zebra"}
    assert vocabulary(held_out=(*others, "Tiger")) == ("zebra",)
    assert vocabulary(held_out=shipped) == ()
    given = f"vocabulary.words={words}"  # the user's list says what to hold on to
    assert vocabulary(given, held_out=("tiger",)) == ("tiger", "zebra")
