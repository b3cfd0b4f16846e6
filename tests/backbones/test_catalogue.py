"""The catalogue of backbones: whole, with sources, and of what the loaders really do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from saved_clips import SMALL, save_open_clip

from promptot.backbones import load_backbone
from promptot.backbones import loadable as support
from promptot.backbones.catalogue import FACTS, PROMPTS, read_catalogue
from promptot.backbones.loadable import refusal
from promptot.errors import PromptotError

ENTRIES = {entry.name: entry for entry in read_catalogue().entries}


def test_every_pretrained_pair_of_open_clip_is_in_it() -> None:
    pairs = {f"open_clip:{model}/{tag}" for model, tag in open_clip.list_pretrained()}
    if open_clip.__version__.startswith("3.1."):
        pairs = {pair for pair in pairs if "ViT-L-14-worldwide" not in pair}  # withdrawn since
    assert pairs <= ENTRIES.keys()
    assert len(ENTRIES) == len(read_catalogue().entries)
    assert "bundled:tiny" in ENTRIES
    assert "hf:openai/clip-vit-base-patch16" in ENTRIES


def test_every_fact_has_a_source_and_every_source_a_text() -> None:
    catalogue = read_catalogue()
    for entry in catalogue.entries:
        known = {name for name in FACTS if getattr(entry, name) is not None}
        assert known == entry.sources.keys(), entry.name
        assert set(entry.sources.values()) <= catalogue.sources.keys()
        assert entry.same_as is None or entry.same_as in ENTRIES
    assert all(len(text) > 20 for text in catalogue.sources.values())
    used = {key for entry in catalogue.entries for key in entry.sources.values()}
    assert used == catalogue.sources.keys()


def test_figures_are_possible_ones() -> None:
    for entry in ENTRIES.values():
        assert entry.parameters is None or 5e6 < entry.parameters < 6e9
        assert entry.resolution in range(160, 513)
        assert entry.imagenet is None or 0 < entry.imagenet < 100
        if entry.sources.get("download") == "computed":
            assert entry.download == 4 * entry.parameters


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("open_clip:ViT-B-16/openai", 68.34),
        ("open_clip:ViT-B-16-quickgelu/openai", 68.34),
        ("open_clip:ViT-B-32/laion400m_e32", 62.93),  # 60.24 is that of the wrong activation
        ("open_clip:ViT-H-14-378-quickgelu/dfn5b", 84.37),
        ("open_clip:PE-Core-bigG-14-448/meta", 85.4),
        ("open_clip:ViTamin-XL-384/datacomp1b", None),
        ("hf:openai/clip-vit-large-patch14", 75.54),
    ],
)
def test_known_accuracies(name: str, accuracy: float | None) -> None:
    assert ENTRIES[name].imagenet == accuracy


@pytest.mark.parametrize("architecture", ["ViT-B-32", "RN50", "coca_ViT-B-32", "ViT-B-16-SigLIP"])
def test_parameters_and_resolution_are_those_of_the_librarys_model(architecture: str) -> None:
    config = open_clip.get_model_config(architecture)
    kind = open_clip.CLIP
    if config.pop("custom_text", False):
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    with torch.device("meta"):
        model = kind(**config)
    for name, entry in ENTRIES.items():
        if name.startswith(f"open_clip:{architecture}/"):
            assert entry.parameters == sum(p.numel() for p in model.parameters())
            size = model.visual.image_size
            assert entry.resolution == (size if isinstance(size, int) else size[0])


def test_the_bundled_model_is_as_it_says() -> None:
    backbone = load_backbone("bundled:tiny")
    entry = ENTRIES["bundled:tiny"]
    assert entry.parameters == sum(p.numel() for p in backbone.parameters())
    assert entry.resolution == backbone.preprocess.resolution
    assert entry.adapts == PROMPTS


@pytest.mark.parametrize(
    "name",
    ["RN50/openai", "ViT-B-16-SigLIP/webli", "EVA02-B-16/merged2b_s8b_b131k",
     "coca_ViT-B-32/laion2b_s13b_b90k", "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
     "ViT-H-14-worldwide-quickgelu/metaclip2_worldwide"],
)  # fmt: skip
def test_what_is_refused_is_refused_by_the_loader_for_the_same_reason(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = refusal(f"open_clip:{name}")
    assert reason is not None
    assert ENTRIES[f"open_clip:{name}"].adapts == ()
    if "worldwide" in name:  # its tokenizer would be fetched first
        return
    with pytest.raises(PromptotError) as raised:
        load_backbone(f"open_clip:{name}")
    assert raised.value.problem == reason


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What was worked out of changed configurations is not kept, nor what was before."""
    for kept in (support.refusal, support._outline):
        kept.cache_clear()
    yield
    for kept in (support.refusal, support._outline):
        kept.cache_clear()


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(
    ("pair", "vision"),
    [("ViT-B-32/openai", {}), ("ViT-L-14-CLIPA/datacomp1b", None)],
)
def test_what_seems_right_by_name_is_judged_as_the_loader_judges_the_weights(
    pair: str, vision: dict | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, tag = pair.split("/")
    own = open_clip.get_model_config(architecture)
    if vision is None:  # what distinguishes it, on a small model
        vision = {**SMALL["vision_cfg"], **{k: v for k, v in own["vision_cfg"].items()
                  if isinstance(v, bool | str)}}  # fmt: skip
        text = {**SMALL["text_cfg"], **{k: v for k, v in own["text_cfg"].items()
                if isinstance(v, bool | str) and k != "hf_tokenizer_name"}}  # fmt: skip
        config = {**SMALL, "vision_cfg": vision, "text_cfg": text}
    else:
        config = SMALL
    quick = bool(open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu"))
    folder = save_open_clip(tmp_path, config, quick_gelu=quick)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, config)
    described = open_clip.pretrained._PRETRAINED[architecture][tag]
    monkeypatch.setitem(described, "file", str(folder / "open_clip_model.safetensors"))
    if refusal(f"open_clip:{pair}") is None:
        assert load_backbone(f"open_clip:{pair}").embed_dim == 48
    else:
        with pytest.raises(PromptotError, match="not supported yet"):
            load_backbone(f"open_clip:{pair}")
    assert (refusal(f"open_clip:{pair}") is None) == (pair == "ViT-B-32/openai")


def test_support_needs_no_network_and_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.socket.connect", fail)
    monkeypatch.setattr("torch.load", fail)
    refused = {name for name, entry in ENTRIES.items() if entry.refusal is not None}
    assert {"open_clip:ViT-B-16/openai", "open_clip:ViT-bigG-14/laion2b_s39b_b160k"}.isdisjoint(
        refused
    )
    assert "open_clip:RN50/openai" in refused
    kinds = {entry.refusal for entry in ENTRIES.values()}
    assert all(kind is None or kind.endswith(".") for kind in kinds)


def test_recommended_ones_can_be_adapted_and_say_why() -> None:
    catalogue = read_catalogue()
    chosen = catalogue.recommended()
    assert {entry.purpose for entry in chosen} == catalogue.purposes.keys()
    order = [list(catalogue.purposes).index(entry.purpose or "") for entry in chosen]
    assert order == sorted(order)
    for entry in chosen:
        assert entry.reason
        assert entry.purpose == "languages" or entry.adapts == PROMPTS


def test_filters() -> None:
    catalogue = read_catalogue()
    openai = catalogue.select(search="OpenAI vit mit")
    assert openai[0].name == "open_clip:ViT-L-14-336/openai"  # the most accurate first
    assert all("openai" in entry.name and entry.licence == "MIT" for entry in openai)
    assert all(entry.same_as is None for entry in openai)
    assert len(catalogue.select(search="OpenAI vit mit", twins=True)) > len(openai)

    small = catalogue.select(max_parameters=120e6)
    assert small
    assert all(entry.parameters <= 120e6 for entry in small)
    assert all(entry.download <= 3e8 for entry in catalogue.select(max_download=3e8))
    assert all(entry.adapts for entry in catalogue.select(search="B-16", supported=True))

    languages = {entry.name for entry in catalogue.select(purpose="languages")}
    assert "open_clip:nllb-clip-base/v1" in languages
    assert "open_clip:ViT-B-16/openai" not in languages
    photographs = {entry.name for entry in catalogue.select(purpose="photographs")}
    recommended = {e.name for e in catalogue.recommended() if e.purpose == "photographs"}
    assert photographs == recommended
    with pytest.raises(PromptotError, match="no purpose 'photos'.*photographs"):
        catalogue.select(purpose="photos")
