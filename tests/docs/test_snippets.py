"""Every sh and python block of the README and of the pages runs, in order, as it stands.

Each page starts in a folder of its own with `photos/` (folders of classes), `more-photos/` and
`new.jpg`. Commands run in this process; what is only a matter of time is made short: recipes train
one epoch, the bundled model is loaded once, a few anchor words and drawings stand for all, and the
page of a run is drawn for docs/report.md alone. The bundled model stands in for one that would be
downloaded. A former name of ours is an error here. A Python block that fits says the same as the
commands before it, and starts without their run. What is left out, and why, is in `LEFT_OUT`.
"""

from __future__ import annotations

import copy
import html
import inspect
import re
import shlex
import shutil
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

import promptot
from promptot.backbones import Backbone
from promptot.backbones.loaders import bundled_clip as bundled
from promptot.files.writing import write_text

LOAD_BUNDLED = bundled.load_bundled
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CLASSES = {"animals": ("bear", "cat"), "food": ("bagel", "banana")}
BLOCK = re.compile(r"^([ ]*)```(sh|python)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
HERE_DOCUMENT = re.compile(r"^cat > (\S+) <<'END'\n(.*?)^END\n", re.MULTILINE | re.DOTALL)
DOWNLOADED = re.compile(r"open_clip:[\w./-]+")
FORMER_NAME = r"'.+' is called '.+' now\."
SITTING = "## How it works, to read in one sitting\n"
LEFT_OUT = {
    "make ": "sets up an environment; `make test` runs this test itself",
    "promptot benchmark": "takes minutes; tests/protocols runs the same on less",
    "promptot demo": "takes half a minute; tests/cli runs it",
    "promptot tune photos --out runs/tuning --budget 10": "choosing-lambda.md runs less of it",
    "promptot serve": "serves until it is stopped",
    "pip install": "changes the environment that the tests run in",
}


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every page starts from."""
    from promptot.data import load_bundled, load_image

    root = tmp_path_factory.mktemp("images")
    for group, names in CLASSES.items():
        task = load_bundled(group)
        for name in names:
            label = task.class_names.index(name)
            found = [
                example
                for example in (*task.train, *task.validation, *task.test)
                if example.label == label
            ]
            for number, example in enumerate(found):
                for place in ("photos",) if number else ("photos", "more-photos"):
                    (root / place / name).mkdir(parents=True, exist_ok=True)
                    picture = load_image(example.path).convert("RGB").resize((96, 96))
                    # In `more-photos` the bytes differ, or they would count as trained on.
                    picture.save(root / place / name / f"{number}.jpg", quality=95 - 9 * (
                        place == "more-photos"))  # fmt: skip
    shutil.copy(root / "more-photos" / "cat" / "0.jpg", root / "new.jpg")
    return root


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of everything that only takes time; see above."""
    from promptot.evaluation import retention
    from promptot.experiments.tuning import tune_task as trials
    from promptot.recipes import load_recipe
    from promptot.runs import fitting as api

    def one_epoch(*arguments):
        recipe = load_recipe(*arguments)
        if not recipe.trains:
            return recipe
        optim = recipe.optim.model_copy(update={"epochs": 1})
        return recipe.model_copy(update={"optim": optim})

    for module in (api, trials):
        monkeypatch.setattr(module, "load_recipe", one_epoch)
    monkeypatch.setattr("promptot.runs.evaluating.OTHER_DRAWINGS", 8)
    words = retention.load_vocabulary()[::25]
    monkeypatch.setattr(retention, "load_vocabulary", lambda: words)
    monkeypatch.setattr(bundled, "load_bundled", lambda name: copy.deepcopy(loaded_once(name)))


@cache
def loaded_once(name: str) -> Backbone:
    return LOAD_BUNDLED(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_runs(
    page: Path, images: Path, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name != "report.md":
        monkeypatch.setattr(
            "promptot.runs.run.write_report", lambda data, path: write_text(path, "")
        )
    shutil.copytree(images, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "snippet"}
    with no_former_name():
        for indent, kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            code = DOWNLOADED.sub("bundled:tiny", textwrap.dedent(text) if indent else text)
            if kind == "python":
                for out in re.findall(r'promptot\.fit\([^,]+, "([^"]+)"', code):
                    shutil.rmtree(out, ignore_errors=True)
                exec(compile(code, str(page), "exec"), names)
            else:
                for name, content in HERE_DOCUMENT.findall(code):
                    write_text(tmp_path / name, content)
                for line in commands(HERE_DOCUMENT.sub("", code)):
                    run(line)


@contextmanager
def no_former_name() -> Iterator[None]:
    """Whatever warns of a name that is called otherwise now fails."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", FORMER_NAME, DeprecationWarning)
        yield


def commands(code: str) -> list[str]:
    """The commands of a block, continued lines joined, without comments."""
    joined = code.replace("\\\n", " ")
    lines = [" ".join(shlex.split(line, comments=True)) for line in joined.splitlines()]
    return [raw for raw, bare in zip(joined.splitlines(), lines, strict=True) if bare]


def run(line: str) -> None:
    """Run one command in this process, as a shell would split it.

    Raises:
        AssertionError: it fails, or it is none that these tests can run.
    """
    from promptot.cli import main

    if any(line.lstrip().startswith(start) for start in LEFT_OUT):
        return
    program, *arguments = shlex.split(line, comments=True)
    assert program == "promptot", f"{line!r}: run it, or say in LEFT_OUT why not"
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0, line


def test_what_is_left_out_is_named_and_nothing_else() -> None:
    with pytest.raises(AssertionError, match="say in LEFT_OUT"):
        run("rm -r photos")
    assert run("make demo    # sets up .venv") is None
    assert commands("promptot fit a \\\n  --out b  # learn\n\n# nothing\n") == [
        "promptot fit a    --out b  # learn"
    ]


def test_a_former_name_in_a_snippet_fails() -> None:
    with no_former_name(), pytest.raises(DeprecationWarning, match=FORMER_NAME):
        promptot.Classifier.predict(None, ["new.jpg"])


def test_the_path_of_a_step_can_be_read_in_one_sitting() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(SITTING)[1].split("\n## ")[0]
    listed = re.findall(r"^\d+\. \[`([^`]+)`\]\(([^)]+)\): ", section, re.MULTILINE)
    assert all(link == f"src/promptot/{name}" for name, link in listed)
    paths = [ROOT / link for _, link in listed]
    assert 10 <= len(set(paths)) == len(paths) <= 12
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths) <= 2000
    beside = re.findall(r"`([\w/]+\.py|transport/)`", section.split("Not on the list")[1])
    assert len(beside) == 10
    for name in beside:
        assert any(path.match(f"*/{name.rstrip('/')}") for path in ROOT.glob("src/promptot/**/*"))


def test_the_readme_starts_in_ten_lines_of_python() -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    (code,) = [text for _, kind, text in blocks if kind == "python"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_every_page_is_in_the_navigation_and_every_link_leads_somewhere() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        if page.name != "README.md":
            assert page.relative_to(ROOT / "docs").as_posix() in navigation
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    import subprocess
    import sys

    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?://[^\"]+)", text)
        assert not loaded, f"{page}: {loaded}"
    reference = (tmp_path / "site" / "reference" / "python" / "index.html").read_text("utf-8")
    assert 'id="promptot.runs.fitting.fit"' in reference
    for name in promptot.__all__:
        thing = getattr(promptot, name)
        if inspect.isfunction(thing) and len(inspect.signature(thing).parameters) > 1:
            _, _, rest = reference.partition(f'id="{thing.__module__}.{name}"')
            rest = html.unescape(re.sub(r"<[^>]+>", "", rest))
            shown = rest.partition(f"{name}(\n")[2].partition("\n)")[0]
            arguments = re.findall(r"^    (\w+):", shown, re.MULTILINE)
            assert arguments == list(inspect.signature(thing).parameters), name
