"""What the page of a run says first of a model that knows little of the images."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.backbones.first_choice import FIRST_CHOICE, real_clip
from promptot.data import load_bundled
from promptot.evaluation.metrics import wilson_interval
from promptot.evaluation.retention import Retention, Share, measure_retention
from promptot.evaluation.scoring import Scores
from promptot.experiments.tuning import tuning_page as tuning
from promptot.experiments.tuning.trial_points import Point
from promptot.reports import ReportData, render_report
from promptot.runs.report.retention_panel import (
    key_figures,
    key_figures_lead,
    retention_doubt,
    retention_table,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))
from markup import Page


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone("bundled:tiny")


@pytest.fixture(autouse=True)
def few_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptot.runs.evaluating.OTHER_DRAWINGS", 8)


def text_of(run_folder: Path) -> str:
    return Page((run_folder / "report.html").read_text(encoding="utf-8")).text


def test_a_page_of_own_images_on_the_bundled_model_says_what_a_real_clip_is(
    photos: Path, tiny: Backbone, backbone: Backbone, tmp_path: Path
) -> None:
    said = real_clip("bundled:tiny", own_images=True)
    assert said is not None
    run = promptot.fit(photos, tmp_path / "own", backbone=tiny, recipe="zero-shot")
    text = text_of(run.folder)
    assert text.count(said) == 1
    assert text.index("Read this with care") < text.index(said)
    promptot.report(run.folder, backbone=tiny)
    assert text_of(run.folder) == text
    other = promptot.fit(photos, tmp_path / "other", backbone=backbone, recipe="zero-shot")
    assert FIRST_CHOICE.name not in text_of(other.folder)
    untested = promptot.fit(photos, tmp_path / "untested", backbone=tiny, recipe="zero-shot",
                            test_share=0)  # fmt: skip
    assert said in text_of(untested.folder)


def test_a_page_of_drawings_does_not(photos: Path, tiny: Backbone, tmp_path: Path) -> None:
    whole = load_bundled("food").select(range(3))
    task = replace(whole, validation=(), test=whole.test[:3])
    run = promptot.fit(task, tmp_path / "drawings", backbone=tiny, recipe="zero-shot")
    assert FIRST_CHOICE.name not in text_of(run.folder)
    promptot.report(run.folder, backbone=tiny)
    assert FIRST_CHOICE.name not in text_of(run.folder)
    promptot.report(run.folder, photos, backbone=tiny)  # its test images are one's own
    assert FIRST_CHOICE.name in text_of(run.folder)


@pytest.mark.parametrize(
    ("right", "images", "wrong"),
    [(0, 4, True), (1, 4, False), (330, 1000, True), (468, 1000, True), (470, 1000, False),
     (49, 100, False), (41, 100, False), (40, 100, True), (900, 1000, False)],
)  # fmt: skip
def test_mostly_wrong_is_an_interval_below_one_half(right: int, images: int, wrong: bool) -> None:
    retention = Retention(frozen=Share(right, images))
    assert retention.mostly_wrong is (wilson_interval(right, images)[1] < 0.5) is wrong
    assert bool(retention_doubt(retention)) is wrong
    assert retention.as_json()["zero_shot_mostly_wrong"] is wrong
    lead = key_figures_lead(retention, {}, alone=True)
    assert lead.startswith("The frozen model is right on only") is wrong
    if wrong:
        assert f"of the {images} test images" in lead
    assert not Retention().mostly_wrong
    assert "zero_shot_mostly_wrong" not in Retention().as_json()


def made(labels: list[int], frozen_right: int, classes: int, dim: int) -> Scores:
    answers = torch.tensor([y if i < frozen_right else (y + 1) % classes
                            for i, y in enumerate(labels)])  # fmt: skip
    logits = torch.nn.functional.one_hot(answers, classes).float()
    features = torch.nn.functional.normalize(torch.ones(len(labels), dim), dim=1)
    return Scores(
        torch.tensor(labels), logits, logits, torch.arange(len(labels)), features, features
    )


def test_the_frozen_share_counts_every_image_once(backbone: Backbone) -> None:
    from promptot.adaptation.student import Student

    names = ("cat", "dog", "fox", "owl")
    model = Student(backbone, None, names, "a {}.")
    base = made([0, 1, 0, 1, 0], 2, 2, backbone.embed_dim)
    novel = made([0, 1, 1], 1, 2, backbone.embed_dim)
    parts = {"base": base, "novel": novel}
    found = measure_retention(
        model, parts, {"base": names[:2], "novel": names[2:]}, ["tree", "sky"]
    )
    assert found.frozen == Share(3, 8)
    whole = made([0, 1, 2, 3, 0], 1, 4, backbone.embed_dim)
    seen = made([0, 1], 1, 2, backbone.embed_dim)  # a part of the whole: counted there
    parts = {"all classes": whole, "trained classes": seen}
    found = measure_retention(
        model, parts, {"all classes": names, "trained classes": names[:2]}, ["tree"]
    )
    assert found.frozen == Share(1, 5)
    assert measure_retention(model, {}, {}, ["tree"]).frozen is None


@pytest.mark.parametrize("classes", ["all", "base"])
def test_a_page_says_so_before_any_figure_of_retention(
    photos: Path, backbone: Backbone, tmp_path: Path, classes: str
) -> None:
    run = promptot.fit(photos, tmp_path / "run", backbone=backbone, recipe="zero-shot",
                       classes=classes)  # fmt: skip
    doubt = "so retention says little here."
    assert text_of(run.folder).count(doubt) == run.retention.mostly_wrong
    for share, doubted in ((Share(1, 40), True), (Share(39, 40), False)):
        retention = replace(run.retention, frozen=share)
        assert retention.mostly_wrong is doubted
        table = retention_table("zero-shot", retention, run.scores)
        data = ReportData(
            "title",
            "headline",
            retention=table,
            key_figures=key_figures(retention),
            key_figures_lead=key_figures_lead(retention, {}, alone=table is None),
        )
        text = Page(render_report(data)).text
        assert text.count(doubt) == doubted
        if doubted:
            section = text[text.index("What it still knows") :]
            said = section.index("The frozen model is right on only")
            assert said < len("What it still knows") + 4
            assert table is None or table.caption.startswith("The frozen model is right on only")


@pytest.mark.parametrize(("right", "doubted"), [(30, True), (45, False), (90, False)])
def test_a_tuning_doubts_retention_too(right: int, doubted: bool) -> None:
    zero_shot = Point({}, "1" * right + "0" * (100 - right), 1.0, 100)
    better = Point({}, "1" * 99 + "0", 0.5, 100)
    found = SimpleNamespace(
        validation=100, finished=True, zero_shot=zero_shot, points=[better], recommended=0
    )
    said = [text for text in tuning._caveats(found) if "retention says little" in text]
    assert bool(said) is doubted
    assert not doubted or f"{right}.0 %" in said[0]
