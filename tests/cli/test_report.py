"""`promptot report`, and what `fit` says of retention and its page."""

from __future__ import annotations

import json
from pathlib import Path


def test_fit_says_what_is_retained_and_where_the_page_is(
    run, trained: Path, quick: list[str]
) -> None:
    result = run("fit", "photos", "--out", "second", *quick, "--report")
    assert "anchor words still told apart" in result.out
    assert "cosine to frozen features" in result.out
    assert "Report: second/report.html" in result.out.replace("\\", "/")
    assert Path("second/report.html").is_file()
    assert not Path("run/report.html").exists()


def test_report_writes_the_page_where_it_is_told(run, trained: Path) -> None:
    assert run("report", "run").code == 0
    assert Path("run/report.html").is_file()
    found = run("report", "run", "photos", "--out", "pages/other.html", "--json", "-")
    assert json.loads(found.out) == {"report": str(Path("pages/other.html"))}
    assert "6 images were left out" in Path("pages/other.html").read_text(encoding="utf-8")


def test_report_of_nothing_is_a_short_error(fails, trained: Path) -> None:
    assert "There is no" in fails("report", "photos")
    assert "holds no class folders" in fails("report", "run", "run")
