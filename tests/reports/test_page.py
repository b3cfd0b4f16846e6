from __future__ import annotations

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from markup import Page
from PIL import Image

from promptot import PromptotError
from promptot.reports import (
    Answer,
    ExampleImage,
    History,
    PlanPicture,
    ReportData,
    Row,
    Table,
    render_report,
    write_report,
)
from promptot.reports.page import format_setting
from promptot.reports.report_page import explain_plan, explain_steps, thumbnail
from promptot.reports.tables import cells

HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'&amp;{{ 7*7 }}\x00"


@pytest.fixture
def page(full_report):
    return Page(render_report(full_report))


def test_page_loads_nothing(full_report, page):
    html = render_report(full_report)
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                assert value.startswith(("data:image/webp;base64,", "#")), (tag, name)
    assert set(re.findall(r"https?://[^\s\"'<]*", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"url\((?!#)|@import", html)
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_page_shows_every_number(full_report, page):
    for row, line in zip(full_report.results.rows, cells(full_report.results), strict=True):
        assert row.name in page.text
        for cell in line:
            for text in (cell.text, cell.difference, cell.interval):
                assert text in page.text
    for number in ("51.2 %", "33.3 %", "10.1 %", "87.7 %", "8.4 %", "2.1 %"):
        assert number in page.text
    for settings in (*full_report.recipes.values(), full_report.environment):
        for key, value in settings.items():
            assert key in page.text
            assert format_setting(value) in page.text
    for text in (full_report.title, full_report.headline, full_report.subtitle,
                 *full_report.caveats, *full_report.notes, full_report.results.caption,
                 "Off-diagonal mass 0.060: 6.0 % of the mass",
                 "in 1 of 3 logged steps the plan was not the identity"):  # fmt: skip
        assert text in page.text


def test_page_is_accessible(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.elements[0] == ("html", {"lang": "en"})
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert len(page.all("h1")) == len(page.all("main")) == 1
    for figure in page.all("svg"):
        assert figure.get("aria-label") or figure.get("aria-hidden") == "true"
    for _, attributes in page.elements:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
    assert "✓ right: Prompt-OT" in page.text
    assert "✗ wrong: zero-shot" in page.text


def test_page_marks_the_best_and_the_right(full_report):
    html = render_report(full_report)
    assert html.count('class="best"') == 4
    assert html.count('class="right"') == 2
    bars = [float(width) for width in re.findall(r"width: ([\d.]+)%\"></i>", html)]
    assert bars == [51.2, 33.3, 10.1, 87.7, 8.4, 2.1]


def test_page_has_both_themes_and_print(full_report):
    html = render_report(full_report)
    for text in (
        "prefers-color-scheme: dark",
        "@media print",
        "width=device-width",
        "max-width: 40rem",
    ):
        assert text in html
    for name in set(re.findall(r"var\((--[\w-]+)", html)):
        assert f"{name}: " in html, f"{name} is used and never set"


def test_hostile_text_stays_text():
    image = Image.new("L", (4, 4))
    data = ReportData(
        title=HOSTILE,
        headline=HOSTILE,
        subtitle=HOSTILE,
        results=Table([Row(HOSTILE, {"base": 0.5})], caption=HOSTILE),
        histories=[History(HOSTILE, [1, 2], {"total": [1.0, 0.5], "off_diagonal_mass": [0, 0]})],
        examples=[ExampleImage(image, HOSTILE, [Answer(HOSTILE, [(HOSTILE, 0.5)])], note=HOSTILE)],
        plans=[PlanPicture(np.eye(2), [HOSTILE, HOSTILE], HOSTILE)],
        recipes={HOSTILE: {HOSTILE: HOSTILE}},
        environment={HOSTILE: HOSTILE},
        caveats=[HOSTILE],
        notes=[HOSTILE],
    )
    html = render_report(data)
    hostile = Page(html)
    assert not hostile.all("script")
    assert len(hostile.all("img")) == 1
    assert not any(name.startswith("on") for _, a in hostile.elements for name in a)
    assert HOSTILE.replace("\x00", "�") in hostile.text
    assert "\x00" not in html
    assert "49" not in hostile.text


LEFT_OUT = {
    "results": None, "histories": (), "examples": (), "plans": (), "recipes": {},
    "environment": {}, "caveats": (), "notes": (), "subtitle": "",
}  # fmt: skip
HEADINGS = {
    "results": "Side by side", "examples": "What each model sees", "histories": "While it learned",
}  # fmt: skip


@pytest.mark.parametrize("part", LEFT_OUT)
def test_any_part_can_be_left_out(full_report, part):
    without = Page(render_report(dataclasses.replace(full_report, **{part: LEFT_OUT[part]})))
    for name, heading in HEADINGS.items():
        assert (heading in without.text) == (name != part)


def test_a_title_and_a_headline_are_a_page():
    page = Page(render_report(ReportData(title="T", headline="H")))
    assert not page.all("section")
    assert "None" not in page.text


def test_one_method_alone(full_report):
    table = Table([full_report.results.rows[0]])
    text = Page(render_report(ReportData(title="T", headline="H", results=table))).text
    assert "69.2 %" in text
    assert "Dashed" not in text
    assert "best" not in text.lower().replace("the best of", "")


def test_a_table_without_any_share():
    table = Table([Row("zero-shot", {"base": None, "seconds": 3.0})])
    page = Page(render_report(ReportData(title="T", headline="H", results=table)))
    assert "3.0 s" in page.text
    assert not page.all("figure")


def test_quantities_never_measured_have_no_panel():
    nan = float("nan")
    history = History("ot", [1, 2], {"total": [2.0, nan], "preservation": [nan, nan]})
    page = Page(render_report(ReportData(title="T", headline="H", histories=[history])))
    labels = [figure["aria-label"] for figure in page.all("svg") if "aria-label" in figure]
    assert len(labels) == 1
    assert labels[0].startswith("Total loss")
    assert "What the transport did" not in page.text


def test_a_large_report_stays_small(full_report):
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    example = ExampleImage(Image.fromarray(noise), "noise", full_report.examples[0].answers)
    keys = ("total", "cross_entropy", "preservation", "image_drift", "text_drift")
    steps = range(5000)
    history = History("ot", steps, {key: np.sin(steps) for key in keys})
    plan = PlanPicture(np.full((64, 64), 1.0), [f"name {i}" for i in range(64)])
    data = dataclasses.replace(
        full_report, examples=[example] * 24, histories=[history] * 3, plans=[plan]
    )
    html = render_report(data)
    assert len(html) < 2_000_000
    assert "Drawn: the first 32 of 64 pairs." in Page(html).text


def test_thumbnails_are_small_and_white_behind():
    image = Image.new("RGBA", (900, 300), (0, 0, 0, 0))
    uri = thumbnail(image)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as small:
        assert small.format == "WEBP"
        assert small.size == (168, 56)
        assert min(small.convert("L").tobytes()) > 250
    for mode in ("1", "L", "P", "LA", "I;16", "CMYK", "RGB"):
        assert thumbnail(Image.new(mode, (10, 10))).startswith("data:image/webp;base64,")


def test_sentences_on_plans():
    assert "the plan is the identity" in explain_plan(PlanPicture(np.eye(3) / 3, list("abc")))
    swapped = PlanPicture(np.eye(2)[::-1] / 2, ["a", "b"])
    assert explain_plan(swapped).startswith("Off-diagonal mass 1.000: 100.0 %")
    nan = float("nan")
    history = History("ot", [1, 2, 3], {"off_diagonal_mass": [nan, 0.0, 0.5]})
    assert explain_steps(history).startswith("ot: in 1 of 2 logged steps")
    assert explain_steps(History("ot", [1], {"off_diagonal_mass": [nan]})) == ""


def test_writing_replaces_the_page_as_a_whole(tmp_path, full_report):
    path = tmp_path / "run" / "report.html"
    write_report(ReportData(title="old", headline="old"), path)
    write_report(full_report, path)
    assert path.read_text(encoding="utf-8") == render_report(full_report)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(PromptotError, match="Can't write"):
        write_report(full_report, path / "below-a-file.html")


def test_a_page_without_results_shows_retention(full_report):
    """As of a run that had no image left to test on."""
    data = dataclasses.replace(
        full_report, results=None, retention=full_report.results, examples=[]
    )
    page = Page(render_report(data))
    for row in full_report.results.rows:
        assert row.name in page.text


def test_only_columns_of_tables_are_left_out_on_a_phone(full_report):
    """Whole sections must not vanish there."""
    html = render_report(full_report)
    style = html[html.index("<style>") : html.index("</style>")]
    hidden = re.findall(r"([^{}]*)\{\s*display:\s*none;?\s*\}", style)
    assert all(".numbers" in rule or "svg" in rule for rule in hidden if ".wide" in rule)
    assert any(".wide" in rule for rule in hidden)
    for tag, attributes in Page(html).elements:
        if "wide" in (attributes.get("class") or "").split():
            assert tag in ("th", "td")
