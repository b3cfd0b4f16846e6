from __future__ import annotations

import json
from pathlib import Path

import pytest

from promptot.errors import PromptotError
from promptot.experiments import parse_methods

ROOT = Path(__file__).parents[2]


def test_brackets_go_before_set_and_make_methods_of_their_own() -> None:
    first, second, third = parse_methods(
        "prompt-ot, prompt-ot[objective.strength=3, optim.lr=0.1],ivlp",
        ["optim.lr=0.02", "optim.epochs=2"],
    )
    assert first.label == "prompt-ot"
    assert (first.recipe.objective.strength, first.recipe.optim.lr) == (10.0, 0.02)
    assert second.label == "prompt-ot[objective.strength=3, optim.lr=0.1]"
    assert (second.recipe.objective.strength, second.recipe.optim.lr) == (3.0, 0.1)
    assert third.recipe.optim.epochs == 2
    assert len({str(method.values()) for method in (first, second, third)}) == 3


def test_a_name_of_its_own_changes_what_it_is_called_and_nothing_else() -> None:
    own = "prompt-ot[objective.strength=3]"
    named, unnamed = parse_methods(f"λ is 3 = {own},{own}")
    assert (named.label, named.written) == ("λ is 3", own)
    assert (unnamed.label, unnamed.written) == (own, own)
    assert named.values() == unnamed.values()
    assert parse_methods("λ=3=prompt-ot")[0].label == "λ=3"


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "lr=1.yaml"
    path.write_text("summary: mine\n")
    plain, named = parse_methods(f"{path},a={path}")
    assert (plain.label, named.label, named.written) == ("lr=1", "a", "lr=1")


def test_a_recipe_file_goes_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("summary: mine\n")
    (method,) = parse_methods(f"{path}[optim.lr=0.1]")
    assert method.label == "mine[optim.lr=0.1]"
    assert "summary" not in method.values()


def test_shots_change_nothing_else() -> None:
    (method,) = parse_methods("ivlp")
    values, changed = method.values(), method.with_shots(2).values()
    assert changed["data"].pop("shots") == 2
    values["data"].pop("shots")
    assert changed == values


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ivlp,,prompt-ot", "can't be read"),
        ("", "can't be read"),
        ("[optim.lr=1]", "can't be read"),
        ("ivlp[optim.lr=1]x", "can't be read"),
        ("ivlp[optim.lr=1", "do not match"),
        ("ivlp]optim.lr=1[", "do not match"),
        ("ivlp, ivlp", "given twice"),
        ("a=ivlp,a=prompt-ot", "'a' is given twice"),
        ("=ivlp", "can't be read"),
        ("a=", "can't be read"),
        ("promt-ot", "Did you mean 'prompt-ot'"),
        ("a=promt-ot", "Did you mean 'prompt-ot'"),
        ("i" * 5000, "No recipe"),
        ("ivlp[data.shots=2]", "Use --shots"),
        ("ivlp[optim.lr=much]", "optim.lr"),
    ],
)
def test_what_can_not_be_read(text: str, complaint: str) -> None:
    with pytest.raises(PromptotError, match=complaint):
        parse_methods(text)


def test_finished_cells_of_older_versions_are_those_of_today() -> None:
    """A new field at its default must not change what a method is known by, or cells run again."""
    lines = ROOT / "benchmarks/results/experiments/compare/base-to-novel/results.jsonl"
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    budget = ["data.views=4", "optim.batch_size=32", "optim.epochs=8", "optim.drop_last=false"]
    assert len(records) == 250
    for record in records:
        (method,) = parse_methods(record["method"], budget)
        assert method.with_shots(record["shots"]).values() == record["recipe"]
