"""The page of a run: for every kind of method, and with what it must say."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import promptot
from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.reports.tables import format_value
from promptot.runs.report.run_page import headline
from promptot.runs.run import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))
from markup import Page

SECTIONS = {
    "results": "Side by side",
    "retention": "What it still knows",
    "classes": "Class by class",
    "calibration": "Can its probabilities be believed?",
    "curves": "While it learned",
    "how": "How it was made",
}


def fit(photos: Path, out: Path, backbone: Backbone, recipe: str = "prompt-ot", **more) -> Run:
    overrides = [] if recipe.startswith("zero") or "probe" in recipe else ["optim.epochs=1"]
    options = {"recipe": recipe, "shots": 2, "overrides": overrides, "device": "cpu"} | more
    return promptot.fit(photos, out, backbone=backbone, **options)


def page_of(run: Run) -> Page:
    return Page((run.folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, clip_file: Path) -> Run:
    """A run on folders with hostile names, half of whose classes are held out."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("hostile") / "a<b> & 'c'"
    generator = np.random.default_rng(0)
    for label in ("<script>alert(1)<", "b&amp;{{7*7}}", "plain", "wide"):
        folder = root / label
        folder.mkdir(parents=True)
        for index in range(6):
            pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"<i>{index}.png")
    backbone = promptot.load_backbone(f"openai:{clip_file}")
    return fit(root, root.parent / "run", backbone, classes="base")


def test_the_page_shows_the_figures_of_the_run(fitted: Run) -> None:
    page = page_of(fitted)
    for identity, heading in SECTIONS.items():
        assert heading in page.text
        assert {"id": identity} in page.all("h2")
    for scores in fitted.scores.values():
        for value in (scores.teacher_accuracy, scores.student_accuracy):
            assert format_value(value, "share") in page.text
    assert "Held-out classes" in page.text
    anchors = fitted.retention.anchors
    assert anchors is not None
    assert f"{anchors.words} everyday words" in page.text
    assert f"{fitted.retention.image.mean:.3f}" in page.text
    manifest = json.loads((fitted.folder / "manifest.json").read_text())
    assert manifest["backbone"]["weight_hash"] in page.text
    assert manifest["results"]["retention"] == fitted.retention.as_json()


def test_nothing_that_a_user_names_becomes_markup(fitted: Run) -> None:
    page = page_of(fitted)
    assert not page.all("script")
    assert not page.all("i") or all("style" in a for a in page.all("i"))
    assert "<script>alert(1)<" in page.text
    assert "b&amp;{{7*7}}" in page.text
    assert "a<b> & 'c'" in page.text
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), tag
            if name in ("src", "href"):
                assert value.startswith(("data:image/webp;base64,", "#"))


def test_the_page_is_accessible(fitted: Run) -> None:
    page = page_of(fitted)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    for figure in page.all("svg"):
        assert figure.get("aria-label") or figure.get("aria-hidden") == "true"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize(
    ("recipe", "present", "absent"),
    [
        ("zero-shot", ["Side by side"], ["While it learned", "What the transport did"]),
        ("linear-probe", ["serves its own classes"], ["While it learned", "Anchor words"]),
        ("coop-class-specific", ["While it learned", "Class names"], ["Anchor words"]),
        ("cocoop", ["its text depends on the image"], ["Anchor words"]),
        ("promptsrc", ["Preservation term", "Anchor words"], ["Each cell: the share"]),
        ("prompt-ot-queue", ["Off-diagonal mass", "Each cell: the share"], []),
        ("prompt-ot-vocabulary", ["they flatter it"], []),
    ],
)
def test_every_kind_of_method_has_its_page(
    photos: Path, backbone: Backbone, tmp_path: Path, recipe: str, present, absent
) -> None:
    text = page_of(fit(photos, tmp_path / "run", backbone, recipe)).text
    for words in present:
        assert words in text
    for words in absent:
        assert words not in text


def test_report_makes_the_same_page_again(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    run = fit(photos, tmp_path / "run", backbone)
    before = (run.folder / "report.html").read_text(encoding="utf-8")
    (run.folder / "report.html").unlink()
    assert promptot.report(run.folder, backbone=backbone) == run.folder / "report.html"
    assert (run.folder / "report.html").read_text(encoding="utf-8") == before


def test_report_on_other_images_says_so(
    photos: Path, make_photos: Callable[..., Path], backbone: Backbone, tmp_path: Path
) -> None:
    run = fit(photos, tmp_path / "run", backbone, report=False)
    assert not (run.folder / "report.html").exists()
    shutil.copytree(photos, tmp_path / "others")
    page = promptot.report(run.folder, tmp_path / "others", out=tmp_path / "p.html",
                           backbone=backbone)  # fmt: skip
    text = Page(page.read_text(encoding="utf-8")).text
    assert "prompt-ot on others" in text
    assert "8 images were left out: the run was trained on them." in text
    assert not (run.folder / "report.html").exists()


def test_report_says_what_is_missing(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    run = fit(photos, tmp_path / "run", backbone, report=False)
    shutil.move(photos, tmp_path / "elsewhere")
    with pytest.raises(PromptotError, match="or give a folder of others"):
        promptot.report(run.folder, backbone=backbone)
    with pytest.raises(PromptotError, match="is a folder"):
        promptot.report(run.folder, out=tmp_path, backbone=backbone)
    (run.folder / "manifest.json").write_text('{"task": []}')
    with pytest.raises(PromptotError, match="damaged, or an older"):
        promptot.report(run.folder, backbone=backbone)
    (run.folder / "manifest.json").unlink()
    with pytest.raises(PromptotError, match="There is no 'manifest.json'"):
        promptot.report(run.folder, backbone=backbone)


def test_without_test_images_there_is_a_page_too(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    run = fit(photos, tmp_path / "run", backbone, test_share=0.0)
    text = page_of(run).text
    assert "Nothing was tested" in text
    assert "Anchor words still told apart" in text
    assert headline({}) in text
    (run.folder / "report.html").unlink()
    promptot.report(run.folder, backbone=backbone)
    assert "Nothing was tested" in page_of(run).text
