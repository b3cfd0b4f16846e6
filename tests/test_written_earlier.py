"""What earlier versions wrote, read by today's: names of backbones on cards, tables of tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from weights import openai_state_dict

import promptot
from promptot.backbones import load_backbone
from promptot.errors import UnaskedBackbone
from promptot.evaluation.predictions import COLUMNS, read_tested
from promptot.files.csv_text import csv_line, write_cell
from promptot.runs.adapter import save_adapter
from promptot.runs.card import CARD

SAID = "?activation=quick_gelu&heads=2,1&preprocess=openai"


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, str]:
    """An adapter whose card names a file without its settings, and that name."""
    state = {k: torch.tensor(v) for k, v in openai_state_dict(0, sizes=False).items()}
    name = f"openai:{tmp_path / 'clip.safetensors'}"
    save_file(state, tmp_path / "clip.safetensors")
    backbone = load_backbone(f"{name}{SAID}")
    save_adapter(tmp_path / "adapter", None, backbone, ["cat", "dog"], "a photo of a {}.")
    card = json.loads((tmp_path / "adapter" / CARD).read_text(encoding="utf-8"))
    card["backbone"]["name"] = name
    (tmp_path / "adapter" / CARD).write_text(json.dumps(card), encoding="utf-8")
    return tmp_path / "adapter", name


def test_a_yes_to_the_name_on_an_old_card_loads_it_and_is_remembered(
    adapter: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--backbone` with that name, which is also what a yes stands for, was refused."""
    monkeypatch.setenv("PROMPTOT_STATE", str(tmp_path / "state"))
    folder, name = adapter
    with pytest.raises(UnaskedBackbone):
        promptot.load(folder, device="cpu")
    classifier = promptot.load(folder, name, "cpu")
    assert classifier.model.backbone.name == f"{name}{SAID}"
    assert promptot.load(folder, device="cpu").model.backbone.name == f"{name}{SAID}"


def read(path: Path, names: list[str], cells: list[tuple[str, str]]) -> list[tuple[str, int]]:
    lines = [",".join(COLUMNS), *(f"test,{a},{b},x,0.5,x,0.5" for a, b in cells)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read_tested(path, {"test": names}, "t", "a photo of a {}.")
    return [(example.path, example.label) for example in found["test"].test]


def test_a_table_with_names_as_they_are_is_read(tmp_path: Path) -> None:
    """Before cells were escaped, a name that looks like an escape stood there as it is."""
    image = tmp_path / r"\x41.png"
    try:
        image.touch()
    except OSError:
        pytest.skip("a backslash divides folders here")
    names = [r"\x42 side", "'=sum"]
    cells = [(str(image), r"\x42 side"), (str(image), "'=sum")]
    assert read(tmp_path / "old.csv", names, cells) == [(str(image), 0), (str(image), 1)]
    assert read(tmp_path / "long.csv", names, [("\\x41" * 2000, names[0])]) == [("A" * 2000, 0)]


def test_what_is_written_now_goes_before_it(tmp_path: Path) -> None:
    names = ["'=sum", "=sum", r"\x42", "B"]
    cells = [(write_cell("x.png"), write_cell(name)) for name in names]
    read_back = read(tmp_path / "new.csv", names, cells)
    assert read_back == [("x.png", label) for label in range(4)]
    assert csv_line(["=sum"]) == "'=sum\n"
