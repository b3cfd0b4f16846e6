"""The maker of the catalogue reads the right row, and leaves out what has no source."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import make_catalogue
from promptot.backbones.catalogue import read_catalogue

RESULTS = """\
name,pretrained,params (M),FLOPs (B),Average perf. on 38 datasets,ImageNet 1k
ViT-B-32,laion400m_e31,151.28,14.78,0.5077,0.6022
ViT-B-32-quickgelu,laion400m_e31,151.28,14.78,0.5263,0.6294
ViT-B-32,laion2b_e16,151.28,14.78,0.5483,0.6565
roberta-ViT-B-32,laion2b_s12b_b32k,212.72,105.87,0.5411,0.6171
"""
README = """\
| Model    | Training data | Resolution | # of samples seen | ImageNet zero-shot acc. |
| PE-Core-L-14-336 [(PE)](https://x) | MetaCLIP-5.4B | 336px | 58B | 83.5% |
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    repository = tmp_path_factory.mktemp("open_clip")
    (repository / "docs").mkdir()
    (repository / "docs/openclip_results.csv").write_text(RESULTS)
    (repository / "README.md").write_text(README)
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    with pytest.MonkeyPatch.context() as patched:  # building all of them takes long
        for fact, unknown in (("_count", None), ("_takes_tokens", True)):
            real = getattr(make_catalogue, fact)
            known = {name: real(name) for name in ("ViT-B-32", "RN50")}
            patched.setattr(make_catalogue, fact, lambda name, k=known, u=unknown: k.get(name, u))
        content = yaml.safe_load(make_catalogue.catalogue(repository))
    assert content["sources"]["results"].count("docs/openclip_results.csv") == 1
    return {row["name"]: row for row in content["backbones"]}


def test_a_figure_is_of_the_activation_that_the_weights_were_trained_with(rows) -> None:
    for architecture in ("ViT-B-32", "ViT-B-32-quickgelu"):
        assert rows[f"open_clip:{architecture}/laion400m_e31"]["imagenet"] == 62.94
    assert rows["open_clip:ViT-B-32/laion2b_e16"]["imagenet"] == 65.65
    twin = rows["open_clip:ViT-B-32-quickgelu/laion400m_e31"]
    assert twin["same_as"] == "open_clip:ViT-B-32/laion400m_e31"


def test_each_fact_has_its_source(rows) -> None:
    plain = rows["open_clip:ViT-B-32/laion2b_e16"]
    assert plain["parameters"] == 151_277_313
    assert plain["download"] == 4 * 151_277_313
    assert plain["sources"] == {
        "parameters": "configuration",
        "resolution": "configuration",
        "download": "computed",
        "gflops": "results",
        "imagenet": "results",
        "licence": "open_clip",
    }
    counted_there = rows["open_clip:roberta-ViT-B-32/laion2b_s12b_b32k"]
    assert counted_there["parameters"] == 212_720_000
    assert counted_there["sources"]["parameters"] == "results"
    assert rows["open_clip:PE-Core-L-14-336/meta"]["imagenet"] == 83.5
    assert rows["open_clip:PE-Core-L-14-336/meta"]["sources"]["imagenet"] == "readme"


def test_a_convolutional_image_tower_takes_no_prompts(rows) -> None:
    assert "image_prompts" not in rows["open_clip:ViT-B-32/laion2b_e16"]
    assert rows["open_clip:RN50/openai"]["image_prompts"] is False


def test_the_file_in_the_package_is_of_this_tool() -> None:
    catalogue = read_catalogue()
    assert catalogue.purposes == make_catalogue.PURPOSES
    assert catalogue.sources.keys() == make_catalogue.SOURCES.keys()
    recommended = {e.name: (e.purpose, e.reason) for e in catalogue.recommended()}
    assert recommended == make_catalogue.RECOMMENDED
    for key, text in make_catalogue.SOURCES.items():
        assert catalogue.sources[key].startswith(text.partition("{")[0])
    licences = {e.name: e.licence for e in catalogue.entries}
    for pattern, licence, _ in make_catalogue.LICENCES:
        named = [name for name in licences if re.fullmatch(f"open_clip:{pattern}", name)]
        assert named
        assert {licences[name] for name in named} == {licence}


def test_what_has_no_source_is_left_out(rows) -> None:
    unknown = rows["open_clip:ViTamin-S/datacomp1b"]
    assert unknown.keys() == {"name", "resolution", "sources", "verified_by"}
    assert unknown["sources"] == {"resolution": "configuration"}
