"""What is written can be written on Windows and macOS too."""

from __future__ import annotations

import ast
import re
from pathlib import Path, PureWindowsPath

import pytest

import promptot
from promptot.backbones import Backbone
from promptot.experiments import benchmark

SOURCES = Path(promptot.__file__).parent
RESERVED = {"con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10))}
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def problems(paths: list[Path], root: Path) -> list[str]:
    """What Windows would refuse or mix up among the paths below a folder."""
    found = []
    seen: dict[str, str] = {}
    for path in paths:
        relative = path.relative_to(root)
        for part in relative.parts:
            if FORBIDDEN.search(part) or part != part.rstrip(" ."):
                found.append(f"'{part}' is no name on Windows")
            if PureWindowsPath(part).stem.lower() in RESERVED:
                found.append(f"'{part}' is a device on Windows")
            if not part.isascii():
                found.append(f"'{part}' is spelt in two ways by macOS")
        folded = relative.as_posix().casefold()
        if seen.setdefault(folded, relative.as_posix()) != relative.as_posix():
            found.append(f"'{relative}' and '{seen[folded]}' differ in case only")
        if len(str(relative)) > 120:
            found.append(f"'{relative}' is long for a path below a user's folder")
    return found


@pytest.mark.parametrize(
    "name", ["a:b.csv", "con.txt", "end.", "what?.html", "ärger.csv", "x" * 130]
)
def test_the_check_finds_what_it_looks_for(name: str) -> None:
    assert problems([Path("out", name)], Path("out"))


def test_names_that_differ_in_case_only_are_found() -> None:
    assert problems([Path("out/A.csv"), Path("out/a.csv")], Path("out"))
    assert not problems([Path("out/run/report.html"), Path("out/steps.csv")], Path("out"))


def test_fit_tune_and_report_write_such_names_only(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    quick = {"backbone": backbone, "overrides": ["optim.epochs=1"], "shots": 2, "device": "cpu"}
    run = promptot.fit(photos, out / "run", **quick)
    promptot.report(run.folder, photos, out=out / "page.html", backbone=backbone)
    promptot.tune(photos, out / "tuning", budget=1e-6, validation_share=0.5, **quick)
    written = [path for path in out.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert problems(written, out) == []


def test_a_benchmark_writes_such_names_only(photos: Path, clip_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    benchmark(
        "base-to-novel",
        out,
        methods="zero-shot,prompt-ot[objective.strength=3,optim.epochs=1]",
        tasks=[str(photos)],
        seeds=[1],
        shots=[1],
        backbone=f"openai:{clip_file}",
        device="cpu",
    )
    assert problems([path for path in out.rglob("*") if path.is_file()], out) == []


def test_what_ships_has_such_names() -> None:
    shipped = [path for path in SOURCES.rglob("*") if "__pycache__" not in path.parts]
    assert problems(shipped, SOURCES) == []


def test_text_is_read_and_written_as_utf_8() -> None:
    """Without an encoding, Windows would use that of its region."""
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                given = {keyword.arg for keyword in node.keywords}
                if name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute):
                    positional = len(node.args) > (name == "write_text")
                    if "encoding" not in given and not positional:
                        found.append(f"{path.name}:{node.lineno}")
    assert not found
