"""From dataclasses of options to typer's commands and back; and which options there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from promptot.cli.app import app
from promptot.cli.command_options import add_command, typer_function
from promptot.cli.common_options import Options
from promptot.cli.console import Screen


class Where(Options):
    device: Annotated[str, "Where to compute."] = "auto"
    workers: Annotated[int, typer.Option(min=0)] = 0


class Everything(Options):
    context: typer.Context
    name: Annotated[str, typer.Argument(help="What to greet.")]
    out: Annotated[Path, "--out", "-o", "Where it goes."]
    how_loud: Annotated[Literal["low", "high"], "How loud."] = "low"
    where: Where
    keep_all: Annotated[bool, "Keep all."] = False
    report: Annotated[bool, "Write a page."] = True
    limit: Annotated[int | None, "At most."] = None


seen: list[Everything] = []


def greet(options: Everything, screen: Screen) -> None:
    """Greet somebody."""
    seen.append(options)
    screen.say(f"hello {options.name}")
    screen.result({"name": options.name})


def quiet(options: Where) -> None:
    """Say nothing."""


@pytest.fixture
def greeting() -> typer.Typer:
    app = typer.Typer()
    add_command(app, greet, "greet world --out x")
    add_command(app, quiet, "quiet")
    return app


def parameters_of(app: typer.Typer, name: str) -> list[Any]:
    return list(typer.main.get_command(app).commands[name].params)


def test_fields_become_options_in_their_order(greeting: typer.Typer) -> None:
    parameters = parameters_of(greeting, "greet")
    assert [(p.opts, p.secondary_opts) for p in parameters] == [
        (["name"], []),
        (["--out", "-o"], []),
        (["--how-loud"], []),
        (["--device"], []),
        (["--workers"], []),
        (["--keep-all"], []),
        (["--report"], ["--no-report"]),
        (["--limit"], []),
        (["--json"], []),
    ]
    assert [p.help for p in parameters][:4] == [
        *("What to greet.", "Where it goes.", "How loud.", "Where to compute."),
    ]
    assert [p.required for p in parameters] == [True, True] + [False] * 7
    assert "--json" not in str([p.opts for p in parameters_of(greeting, "quiet")])
    help_text = CliRunner().invoke(greeting, ["greet", "--help"]).output
    assert "Greet somebody." in help_text
    assert "Example: promptot greet world --out x" in help_text


def test_values_come_back_typed_and_as_keywords(greeting: typer.Typer) -> None:
    seen.clear()
    arguments = "greet world -o x --how-loud high --workers 2 --keep-all --no-report --json -"
    result = CliRunner().invoke(greeting, arguments.split(), catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"name": "world"}
    assert result.stderr == "hello world\n"
    (options,) = seen
    assert options.where == Where(device="auto", workers=2)
    assert options.keywords("name", out=Path("y"), limit=None, more=1) == {
        "out": Path("y"), "how_loud": "high", "device": "auto", "workers": 2, "keep_all": True,
        "report": False, "more": 1,
    }  # fmt: skip
    with pytest.raises(AttributeError):
        options.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("greet world", "Missing option '--out'"),
        ("greet -o x", "Missing argument"),
        ("greet world -o x --how-loud mid", "'mid' is not one of"),
        ("greet world -o x --workers -1", "--workers"),
        ("greet world -o x --json .", "is a folder"),
    ],
)
def test_wrong_usage(greeting: typer.Typer, arguments: str, message: str) -> None:
    result = CliRunner().invoke(greeting, arguments.split(), env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in result.output


def test_names_and_help_are_the_commands() -> None:
    made = typer_function(greet)
    assert (made.__name__, made.__doc__) == ("greet", "Greet somebody.")


OPTIONS = {
    "demo": "--out --photos --backbone --seed --set --device --precision --json",
    "fit": "data --out --names --template --keep-same-names --backbone --recipe --shots "
    "--classes --test-share --seed --set --device --precision --workers --overwrite "
    "--resume --no-report --log --json",
    "evaluate": "run data --names --keep-same-names --backbone --device --precision --workers "
    "--json",
    "predict": "run images --classes --top-k --format --backbone --device --json",
    "benchmark": "protocol --out --methods --tasks --sources --seeds --shots --set --control "
    "--split --backbone --device --precision --workers --cache --report-only --suite "
    "--root --unverified --shot-lists --split-shares --read-at --settings --jobs "
    "--estimate --json",
    "report": "run data --out --backbone --device --precision --workers --json",
    "tune": "folder --out --budget --choose --backbone --recipe --shots --classes "
    "--validation-share --test-share --seed --set --device --precision --workers "
    "--json",
    "export": "run --out --format --classes --backbone --overwrite --json",
    "merge": "runs --out --weights --overwrite --json",
    "push": "run repository --private --json",
    "pull": "repository --out --revision --overwrite --json",
    "serve": "run --port --host --allow-host --flags --open --backbone --device",
    "recipes": "name --json",
    "info": "run --json",
    "data": "",
    "data check": "suite --root --tasks --checksums --json",
    "data shots": "suite --root --out --tasks --shots --seeds --json",
    "data describe": "data --names --template --backbone --test-share --keep-same-names --device "
    "--workers --json",
    "backbones": "--search --for --max-params --max-download --supported --all --json",
    "backbones check": "name --diagram --json",
}


def test_every_command_has_the_options_it_had() -> None:
    def listed(command: Any, words: tuple[str, ...] = ()) -> dict[str, str]:
        found = {
            " ".join(words): " ".join(
                max((*p.opts, *p.secondary_opts), key=len) if p.param_type_name == "option"
                else p.name for p in command.params
            )
        }  # fmt: skip
        for word, inner in getattr(command, "commands", {}).items():
            found |= listed(inner, (*words, word))
        return found

    found = listed(typer.main.get_command(app))
    assert found.pop("") == "--version --install-completion --show-completion"
    assert found == OPTIONS
