"""Tuning on a folder: resumable, within its budget, and blind to test images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from PIL import Image

import promptot
from promptot.backbones import Backbone
from promptot.data import load_folder, load_task, split_examples
from promptot.errors import PromptotError
from promptot.experiments.tuning import Point, Tuning
from promptot.experiments.tuning.search import Settings
from promptot.recipes import Recipe, load_recipe

QUICK = ("optim.epochs=1",)


def tune(photos: Path, out: Path, backbone: Backbone, **options) -> Tuning:
    """The page is drawn in one test only."""
    defaults = {"budget": 1e-6, "validation_share": 0.5, "overrides": QUICK, "report": False}
    options = defaults | options
    return promptot.tune(photos, out, backbone=backbone, shots=2, device="cpu", **options)


FEW_SETTINGS = [{}, {"objective.strength": 1.0}, {"optim.lr": 0.02}]


def three(recipe: Recipe, layers: int, done: Sequence[Point]) -> Settings | None:
    """Only three settings to try."""
    return FEW_SETTINGS[len(done)] if len(done) < len(FEW_SETTINGS) else None


def test_the_first_trial_is_always_made_and_more_budget_goes_on(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    first = tune(photos, tmp_path / "out", backbone, search=three)
    assert len(first.points) == 1
    assert not first.finished
    lines = (tmp_path / "out" / "trials.jsonl").read_text().splitlines()
    second = tune(photos, tmp_path / "out", backbone, budget=1e6, search=three)
    assert second.finished
    assert [dict(point.settings) for point in second.points] == FEW_SETTINGS
    assert second.points[0] == first.points[0]
    after = (tmp_path / "out" / "trials.jsonl").read_text().splitlines()
    assert after[:1] == lines  # the first one was not trained again
    assert len(after) == 3
    third = tune(photos, tmp_path / "out", backbone, budget=1e6, search=three)
    assert third.points == second.points
    assert third.seconds == second.seconds
    fresh = tune(photos, tmp_path / "fresh", backbone, budget=1e6, search=three)
    assert [(p.right, p.retention) for p in fresh.points] == [
        (p.right, p.retention) for p in second.points
    ]


def test_another_seed_or_recipe_does_not_reuse_trials(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    tune(photos, tmp_path / "out", backbone)
    for other in ({"seed": 2}, {"recipe": "ivlp"}):
        tune(photos, tmp_path / "out", backbone, **other)
    assert len((tmp_path / "out" / "trials.jsonl").read_text().splitlines()) == 3


def test_the_chosen_recipe_is_what_fit_takes(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    found = tune(photos, tmp_path / "out", backbone, budget=1e6, search=three)
    assert found.chosen == found.recommended
    tune(photos, tmp_path / "out", backbone, budget=1e6, choose=2, search=three)
    recipe = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert recipe.name == "prompt-ot-tuned"
    expected = load_recipe("prompt-ot", [*QUICK, "data.shots=2", "objective.strength=1"])
    assert recipe.model_copy(update={"name": "prompt-ot"}) == expected
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["optim"]["epochs"] == 1
    with pytest.raises(PromptotError, match="Choose one from 1 to 3"):
        tune(photos, tmp_path / "out", backbone, budget=1e6, choose=4, search=three)


def test_test_images_are_never_read(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    task = split_examples(load_folder(photos), seed=0, fractions=(0.7, 0.0, 0.3))
    for example in task.test:
        Path(example.path).write_bytes(b"no image at all")
    before = tune(photos, tmp_path / "out", backbone)
    for example in task.test:
        Image.new("RGB", (40, 40)).save(example.path)
    after = tune(photos, tmp_path / "fresh", backbone)
    assert before.points[0].right == after.points[0].right
    assert before.validation == after.validation


def test_the_test_folder_is_put_aside(
    make_photos: Callable[..., Path], backbone: Backbone, tmp_path: Path
) -> None:
    photos = make_photos("split", images=3, splits=("train", "val", "test"))
    found = tune(photos, tmp_path / "out", backbone)
    assert found.validation == 4 * 3


def test_too_few_validation_images_are_refused(
    make_photos: Callable[..., Path], backbone: Backbone, tmp_path: Path
) -> None:
    few = make_photos("few", images=3)
    with pytest.raises(PromptotError, match=r"There are 4 validation images.*raise --validation"):
        tune(few, tmp_path / "out", backbone)
    with pytest.raises(PromptotError, match="lies in the image folder"):
        tune(few, few / "out", backbone)
    assert not (tmp_path / "out").exists()


def test_held_out_classes_as_retention(
    make_photos: Callable[..., Path], backbone: Backbone, tmp_path: Path
) -> None:
    photos = make_photos("many", images=12)
    found = tune(photos, tmp_path / "out", backbone, classes="base", recipe="cocoop")
    assert found.retention == "accuracy on 2 held-out classes"
    assert found.validation == 8
    assert found.zero_shot.retention_total == 8
    with pytest.raises(PromptotError, match="Use --classes base"):
        tune(photos, tmp_path / "out", backbone, recipe="cocoop")


def test_the_page_and_the_pictures(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))
    from markup import Page

    found = tune(photos, tmp_path / "out", backbone, budget=1e6, search=three, report=True)
    text = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert not text.all("script")
    for words in (
        "Recommended: ",
        "λ = 1",
        "learning rate = 0.02",
        f"{found.validation} validation images",
    ):
        assert words in text.text
    assert "--recipe" in text.text
    picture = Image.open(tmp_path / "out" / "trade-off.png")
    assert picture.size == (1600, 1120)
    assert "var(--" not in (tmp_path / "out" / "trade-off.svg").read_text(encoding="utf-8")
    json.dumps(found.as_json())


def test_a_damaged_line_is_an_error(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    tune(photos, tmp_path / "out", backbone)
    path = tmp_path / "out" / "trials.jsonl"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "right": ""}) + "\n")
    with pytest.raises(PromptotError, match="is damaged"):
        tune(photos, tmp_path / "out", backbone)


def test_the_frozen_model_reads_the_synonyms_that_trials_read(
    photos: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = enumerate(path.name for path in photos.iterdir())
    names = {folder: [f"thing {place}", f"odd {place}"] for place, folder in folders}
    task = load_task(photos, class_names=names)
    read: list[str] = []
    before_trials: list[str] = []
    plain = backbone.tokenizer.encode
    monkeypatch.setattr(backbone.tokenizer, "encode", lambda text: read.append(text) or plain(text))

    def look(recipe: Recipe, layers: int, done: Sequence[Point]) -> Settings | None:
        before_trials.extend(() if done else read)
        return three(recipe, layers, done)

    tune(task, tmp_path / "out", backbone, search=look)
    wanted = {f"a photo of a {name}." for own in names.values() for name in own}
    assert wanted <= set(before_trials)
