"""The reference pages name every command, option and public name, because they are made of them."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import promptot

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import docs_reference  # noqa: E402


def built(page: str) -> str:
    """A page's Markdown as mkdocs goes on with it."""
    text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    return docs_reference.on_page_markdown(text, page=None, config=None, files=None)


def registered(app: typer.Typer, before: str = "") -> Iterator[str]:
    """The commands as typer holds them, groups looked into."""
    for command in app.registered_commands:
        if command.callback is not None and not command.hidden:
            yield before + (command.name or command.callback.__name__)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from registered(group.typer_instance, f"{before}{group.name} ")


def test_every_command_of_the_app_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    from promptot.cli import main
    from promptot.cli.app import app

    text = built("command.md")
    headings = re.findall(r"^## promptot ([^{\n]+?) \{ #([^ ]+) \}$", text, re.MULTILINE)
    assert sorted(words for words, _ in headings) == sorted(registered(app))
    assert len(headings) >= 17
    for words, anchor in headings:
        assert f"(#{anchor})" in text, "the table of commands leads to it"
        with pytest.raises(SystemExit) as stop:
            main([*words.split(), "--help"])
        assert stop.value.code == 0
    assert capsys.readouterr().out.count("Usage") == len(headings)


def test_every_option_is_there() -> None:
    text = built("command.md")
    section = re.compile(r"^## promptot ([^{\n]+?) \{[^\n]+\n(.*?)(?=^## |\Z)", re.M | re.S)
    sections = dict(section.findall(text))
    for words, command in docs_reference.commands().items():
        for parameter in command.params:
            for flag in parameter.opts if parameter.param_type_name == "option" else ():
                if flag not in ("-h", "--help"):
                    assert re.search(rf"`[^`\n]*{flag}\b", sections[words]), f"{words} {flag}"
        assert command.help.split("\n")[0] in text
    assert "Example: `promptot fit photos/ --out runs/photos" in sections["fit"]


def test_every_public_name_is_there() -> None:
    text = built("python.md")
    for name in promptot.__all__:
        if name != "__version__":
            thing = getattr(promptot, name)
            place = f"{thing.__module__}.{thing.__qualname__}"
            assert f"[`promptot.{name}`](#{place})" in text
            assert text.count(f"::: {place}\n") == 1
    assert len(docs_reference.public_names()) == len(promptot.__all__) - 1


def test_marks_are_in_the_pages_and_nowhere_after() -> None:
    marked = {"command.md": "<!-- commands -->", "python.md": "<!-- public names -->"}
    for page, mark in marked.items():
        assert mark in (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
        assert mark not in built(page)
    assert docs_reference.on_page_markdown("nothing of that") == "nothing of that"
    assert "docs_reference.py" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_contributing_names_the_rooms_of_the_import_contract_in_their_order() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("| room |")[1].split("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()[2:]]
    listed = [room for row in rows for room in row]
    assert listed == [room for layer in layers for room in layer.split(" | ")]


def test_files_that_contributing_names_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(named) >= 25
    files = [
        path.as_posix()
        for place in ("src", "tools", "benchmarks")
        for path in (ROOT / place).rglob("*.py")
    ]
    for name in named:
        assert any(path.endswith(f"/{name}") for path in files), name


def test_help_becomes_text_not_tags() -> None:
    assert docs_reference._text("cuda:<index> or `a<b`") == "cuda:&lt;index> or `a<b`"
