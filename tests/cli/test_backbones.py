"""`promptot backbones` and `promptot backbones check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import typer

from promptot.backbones import load_backbone
from promptot.backbones.catalogue import read_catalogue
from promptot.backbones.checks.compare import check_backbone
from promptot.cli.backbones_check import show_check
from promptot.cli.backbones_command import Purpose
from promptot.cli.console import Screen


def listed(run, *arguments: str) -> tuple[list[str], str]:
    result = run("backbones", *arguments, "--json", "-")
    assert result.code == 0
    assert max(map(len, result.err.splitlines()), default=0) <= 80
    return [row["name"] for row in json.loads(result.out)["backbones"]], result.err


def test_the_recommended_ones_come_first_with_reasons(run) -> None:
    names, shown = listed(run)
    assert names == [entry.name for entry in read_catalogue().recommended()]
    for text in ("bundled:tiny", "Photographs", "many languages", "Medical images", "73.5", "MIT",
                 "needs promptot[hf]", "hf:<repo or dir>", "promptot backbones --all"):  # fmt: skip
        assert text in " ".join(shown.split())
    assert "RN101" not in shown


def test_all_and_filters(run) -> None:
    names, shown = listed(run, "--all")
    assert set(names) == {entry.name for entry in read_catalogue().entries}
    assert "text prompts; MIT" in shown  # a ResNet
    names, _ = listed(run, "--search", "dfn", "--supported")
    assert names
    assert all("dfn" in name for name in names)
    names, _ = listed(run, "--max-params", "155", "--max-download", "0.7", "-s", "openai")
    assert names[0] == "open_clip:ViT-B-16/openai"
    assert "open_clip:ViT-L-14/openai" not in names
    names, shown = listed(run, "--for", "small")
    assert names == ["open_clip:ViT-B-32-SigLIP2-256/webli",
                     "open_clip:ViT-B-32-256/datacomp_s34b_b86k",
                     "open_clip:ViT-B-32/datacomp_xl_s13b_b90k"]  # fmt: skip
    names, shown = listed(run, "--search", "nothing like this")
    assert names == []
    assert "None is like that." in shown
    assert run("backbones", "--for", "dogs").code == 2
    assert run("backbones", "--max-params", "-1").code == 2


def test_every_purpose_can_be_asked_for(run) -> None:
    assert list(get_args(Purpose)) == list(read_catalogue().purposes)
    for purpose in get_args(Purpose):
        assert listed(run, "--for", purpose)[0]


@pytest.mark.parametrize("width", [80, 120])
def test_a_rows_figures_stay_in_one_line_whatever_the_width(
    run, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = run("backbones", "--all")
    lines = (result.out + result.err).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines if len(line.split()) > 1]
    entries = read_catalogue().entries
    for entry in entries:
        figures = {str(entry.resolution)}
        figures |= {f"{entry.parameters / 1e6:.0f}"} if entry.parameters else set()
        figures |= {f"{entry.imagenet:.1f}"} if entry.imagenet else set()
        own = [row for row in rows if entry.name.startswith(row[0])]
        assert any(figures <= {*row} for row in own), entry.name
    prompted = sum(entry.image_prompts for entry in entries)
    assert sum("text and image prompts" in line for line in lines) == prompted


def test_json_names_the_source_of_each_figure(run) -> None:
    found = json.loads(run("backbones", "--search", "ViT-B-16/openai", "--json", "-").out)
    (row,) = found["backbones"]
    assert row["imagenet"] == 68.34
    assert row["adapts"] == ["text prompts", "image prompts", "feature adapters"]
    assert "random weights" in found["verifications"][row["verified_by"]]
    assert "openclip_results.csv" in found["facts"][row["sources"]["imagenet"]]
    assert set(found["sources"]) >= {"bundled", "open_clip", "hf", "openai"}
    assert found["bundled"] == ["tiny"]


def test_check_is_equal_or_names_what_differs_by_exit_code(run, clip_file: Path) -> None:
    equal = run("backbones", "check", f"openai:{clip_file}")
    assert equal.code == 0
    assert "Equal: " in equal.out
    assert max(map(len, equal.out.splitlines())) <= 80
    for text in ("activation, image", "quick_gelu", "0.48145", "image features", "token ids"):
        assert text in equal.out


def test_what_differs_is_named_and_is_exit_code_1(
    clip_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(name: str):
        backbone = load_backbone(name)
        for block in backbone.image_tower.transformer.resblocks:
            block.mlp.activation = "gelu"
        return backbone

    report = check_backbone(f"openai:{clip_file}", load=wrong)
    with pytest.raises(typer.Exit) as stop:
        show_check(report, Screen(Path("-")))
    assert stop.value.exit_code == 1
    printed = capsys.readouterr()
    assert "Different: activation, image; image features;" in printed.err
    found = json.loads(printed.out)
    assert found["equal"] is False
    assert found["differences"][0] == "activation, image"


def test_check_of_what_is_not_there_is_one_error(run, fails, clip_file: Path) -> None:
    assert "knows no architecture" in fails("backbones", "check", "open_clip:ViT-B-17/openai")
    assert "There is no file" in fails("backbones", "check", "openai:none.pt")
    message = fails("backbones", "check", f"openai:{clip_file}", "--diagram", "CLIP.png")
    assert "of another shape" in message
    assert run("backbones", "check").code == 2
    shown = run("backbones", "check", "--help")
    assert "Example: promptot backbones check" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
