"""An adapter belongs to a function, not to weights alone; old ones load, wrong ones are told of."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg

import promptot
from promptot.adaptation import IVLPPrompts
from promptot.backbones import Backbone
from promptot.backbones.loaders.bundled_clip import EARLIER_WEIGHTS
from promptot.errors import PromptotError, PromptotWarning
from promptot.runs.adapter import _had_wrong_activation, build_model, load_adapter, save_adapter
from promptot.runs.card import CARD, BackboneIdentity

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = ("cat", "hot dog")
WRONG = "open_clip:ViT-B-16/openai"
RIGHT = ("open_clip:ViT-B-16-quickgelu/openai", "open_clip:ViT-B-16/laion2b_s34b_b88k")
OLD = {
    1: FIXTURES / "format-1" / "shared",
    2: FIXTURES / "format-2" / "ivlp",
    3: FIXTURES / "format-3" / "synonyms",
}


def make_prompts() -> IVLPPrompts:
    generator = torch.Generator().manual_seed(0)
    return IVLPPrompts(64, 128, 2, 2, 2, 2, generator=generator)


@pytest.fixture
def adapter(backbone: Backbone, tmp_path: Path) -> Path:
    save_adapter(tmp_path / "adapter", make_prompts(), backbone, NAMES, "a {}.")
    return tmp_path / "adapter"


@pytest.fixture
def other(backbone: Backbone) -> Backbone:
    backbone.weight_hash()
    return copy.deepcopy(backbone)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    card = json.loads((folder / CARD).read_text())
    change(card)
    (folder / CARD).write_text(json.dumps(card))
    return folder


def old_adapter(place: Path, version: int, name: str) -> Path:
    """An adapter as an older promptot wrote it, of a backbone of this name."""
    shutil.copytree(OLD[version], place)
    return edit(place, lambda card: card["backbone"].update(name=name))


def test_a_new_card_says_what_the_backbone_does(adapter: Path, backbone: Backbone) -> None:
    written = json.loads((adapter / CARD).read_text())
    assert written["format_version"] == 4
    function = written["backbone"]["function"]
    assert function == dict(backbone.identity().function)
    assert function["image.activation"] == function["text.activation"] == "quick_gelu"
    assert function["image.pool"] == "class"
    assert function["preprocess.resolution"] == 32
    card, learned = load_adapter(adapter)
    assert card.backbone == BackboneIdentity.of(backbone)
    assert build_model(card, learned, backbone).learned is learned


def gelu(backbone: Backbone) -> None:
    for block in backbone.image_tower.transformer.blocks:
        block.mlp.activation = "gelu"


def heads(backbone: Backbone) -> None:
    backbone.image_tower.transformer.blocks[2].attn.heads = 4


def context(backbone: Backbone) -> None:
    backbone.text_tower.context_length = 70


def pool(backbone: Backbone) -> None:
    backbone.image_tower.pool = "mean"


def eps(backbone: Backbone) -> None:
    backbone.image_tower.ln_post.eps = 1e-6


def preprocess(backbone: Backbone) -> None:
    backbone.preprocess = replace(backbone.preprocess, interpolation="bilinear")


def mean(backbone: Backbone) -> None:
    backbone.preprocess = replace(backbone.preprocess, mean=(0.5, 0.5, 0.5))


def tokenizer(backbone: Backbone) -> None:
    class Shouting:
        def encode(self, text: str, own: Any = backbone.tokenizer) -> list[int]:
            return [*own.encode(text)[:-1], 7, 49407]

    backbone.tokenizer = Shouting()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (gelu, 'image.activation was "quick_gelu" and is "gelu" here'),
        (heads, "image.heads was 2 and is [2, 2, 4] here"),
        (context, "text.context_length was 77 and is 70 here"),
        (pool, 'image.pool was "class" and is "mean" here'),
        (eps, "image.norm_eps was 1e-05 and is [1e-05, "),
        (tokenizer, "tokenizer.words was"),
    ],
)
def test_equal_weights_that_do_something_else_are_refused_with_what_differs(
    adapter: Path, other: Backbone, change: Callable[[Backbone], None], said: str
) -> None:
    change(other)
    with pytest.raises(PromptotError) as refused:
        promptot.load(adapter, other)
    assert said in str(refused.value)
    assert "something else with the same weights" in str(refused.value)
    assert refused.value.fix is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (preprocess, 'preprocess.interpolation was "bicubic" and is "bilinear" here'),
        (mean, "preprocess.mean was [0.48145466, 0.4578275, 0.40821073] and is [0.5, 0.5, 0.5]"),
    ],
)
def test_images_prepared_in_another_way_are_told_of(
    adapter: Path, other: Backbone, change: Callable[[Backbone], None], said: str
) -> None:
    change(other)
    with pytest.warns(PromptotWarning) as told:
        promptot.load(adapter, other)
    assert said in str(told[0].message)
    gelu(other)
    with pytest.raises(PromptotError) as refused:
        promptot.load(adapter, other)
    assert "image.activation" in str(refused.value)
    assert "preprocess" not in str(refused.value)


def test_other_weights_are_refused_as_ever(adapter: Path, backbone: Backbone) -> None:
    edit(adapter, lambda card: card["backbone"].update(weight_hash="a" * 64))
    with pytest.raises(PromptotError, match=r"\(weights aaaaaaaaaaaa\)"):
        promptot.load(adapter, backbone)


def test_one_of_an_earlier_bundled_model_is_refused_in_a_sentence(
    adapter: Path, backbone: Backbone
) -> None:
    (earlier,) = EARLIER_WEIGHTS
    edit(adapter, lambda card: card["backbone"].update(weight_hash=earlier))
    with pytest.raises(PromptotError) as refused:
        promptot.load(adapter, backbone)
    assert f"'{backbone.name}' of promptot 0.2.0 or before" in str(refused.value)
    assert "Train it again" in str(refused.value)


def test_another_precision_or_cleaning_or_an_unknown_setting_is_no_other_model(
    adapter: Path, backbone: Backbone, clip_file: Path
) -> None:
    half = promptot.load_backbone(f"openai:{clip_file}", precision="bf16")
    assert promptot.load(adapter, half).model.backbone is half

    def differ(card: dict[str, Any]) -> None:
        function = card["backbone"]["function"]
        function["tokenizer.cleaning"] = "0" * 64  # as another library does it
        function["image.cut"] = 3  # of a version to come
        del function["text.heads"]  # a version before did not know it

    edit(adapter, differ)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert promptot.load(adapter, backbone).class_names == NAMES


@pytest.mark.parametrize(
    "function",
    [
        {"image.activation": {"deep": [float("nan")]}},
        {str(number): 1 for number in range(2000)},
        "gelu",
        [1],
    ],
)
def test_a_damaged_description_is_no_crash(
    adapter: Path, backbone: Backbone, function: Any
) -> None:
    edit(adapter, lambda card: card["backbone"].update(function=function))
    with pytest.raises(PromptotError, match="damaged"):
        promptot.load(adapter, backbone)


def test_a_strange_value_is_shown_short(adapter: Path, backbone: Backbone) -> None:
    edit(adapter, lambda c: c["backbone"]["function"].update({"image.pool": "x" * 10**6}))
    with pytest.raises(PromptotError) as refused:
        promptot.load(adapter, backbone)
    assert len(str(refused.value)) < 600


# ---- adapters of before ---------------------------------------------------------------------


@pytest.mark.parametrize("version", OLD)
def test_old_adapters_load_without_a_word(backbone: Backbone, tmp_path: Path, version: int) -> None:
    for number, name in enumerate(("openai:clip.safetensors", "hf:openai/x", *RIGHT)):
        folder = old_adapter(tmp_path / str(number), version, name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = promptot.load(folder, backbone)
        assert loaded.card.backbone.function is None


@pytest.mark.parametrize("version", OLD)
def test_one_of_a_wrong_activation_loads_and_is_told_so(
    backbone: Backbone, tmp_path: Path, version: int
) -> None:
    folder = old_adapter(tmp_path / "old", version, WRONG)
    with pytest.warns(PromptotWarning, match="wrong activation.*QuickGELU.*Train it again"):
        loaded = promptot.load(folder, backbone)
    images = torch.zeros(1, 3, 32, 32)
    assert loaded.model.encode_images(images).shape == (1, 32)


def test_what_is_trained_now_is_not_told_so(tmp_path: Path, backbone: Backbone) -> None:
    named = BackboneIdentity.of(backbone, WRONG)
    save_adapter(tmp_path / "new", make_prompts(), named, NAMES, "a {}.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        promptot.load(tmp_path / "new", backbone)


def test_which_tags_had_the_wrong_activation() -> None:
    """Those whose own configuration needs QuickGELU on an architecture that has it not."""
    wrong = {
        (architecture, tag)
        for architecture, tag in open_clip.list_pretrained()
        if _had_wrong_activation(f"open_clip:{architecture}/{tag}")
    }
    assert {
        ("ViT-B-16", "openai"),
        ("ViT-B-32", "laion400m_e31"),
        ("ViT-B-32", "laion400m_e32"),
        ("ViT-L-14", "metaclip_400m"),
        ("ViT-H-14", "dfn5b"),
    } <= wrong
    assert not any("quickgelu" in architecture for architecture, _ in wrong)
    transformers_alone = {pair for pair in wrong if pair[0].startswith("ViT-")}
    assert len(transformers_alone) >= 19  # of the tags that load, with open_clip 3.3
    for architecture, tag in wrong:
        assert get_pretrained_cfg(architecture, tag)["quick_gelu"]
    for name in NO_TAGS:
        assert not _had_wrong_activation(name)


NO_TAGS = (
    "open_clip:ViT-B-16/nothing", "open_clip:none/openai", "open_clip:local-dir:/a/b",
    "open_clip:hf-hub:me/it", "openai:/ViT-B-16/openai", "open_clip:", "",
)  # fmt: skip


# ---- merge, hub, export, manifest, cards ----------------------------------------------------


def test_only_adapters_of_one_function_are_merged(
    adapter: Path, other: Backbone, tmp_path: Path
) -> None:
    gelu(other)
    save_adapter(tmp_path / "gelu", make_prompts(), other, NAMES, "a {}.")
    with pytest.raises(PromptotError, match=r"image\.activation.*quick_gelu.*gelu"):
        promptot.merge([adapter, tmp_path / "gelu"], tmp_path / "out")
    half = copy.deepcopy(other)
    save_adapter(tmp_path / "same", make_prompts(), half, NAMES, "a {}.")
    promptot.merge([tmp_path / "gelu", tmp_path / "same"], tmp_path / "merged")
    card, _ = load_adapter(tmp_path / "merged" / "adapter")
    assert card.backbone.function is not None
    assert card.backbone.function["image.activation"] == "gelu"


def test_an_old_adapter_is_not_merged_with_a_new_one_and_two_old_ones_stay_old(
    backbone: Backbone, tmp_path: Path
) -> None:
    names = ["one", "two"]
    old = [old_adapter(tmp_path / name, 2, WRONG) for name in names]
    card, learned = load_adapter(old[0])
    new = tmp_path / "new"
    save_adapter(new, learned, backbone, card.class_names, card.template)
    with pytest.warns(PromptotWarning), pytest.raises(PromptotError, match="older promptot"):
        promptot.merge([old[0], new], tmp_path / "out")
    with pytest.warns(PromptotWarning, match="wrong activation"):
        promptot.merge(old, tmp_path / "merged")
    with pytest.warns(PromptotWarning, match="wrong activation"):
        promptot.load(tmp_path / "merged", backbone)


def test_the_hub_tells_too_and_its_card_says_what_the_backbone_does(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")

    class Hub:
        class HfApi:
            def __init__(self, token: str | None = None) -> None:
                pass

            def create_repo(self, *given: Any, **named: Any) -> None:
                pass

            def upload_folder(self, repo_id: str, folder_path: str, **named: Any) -> None:
                shutil.copytree(folder_path, tmp_path / "hub" / repo_id)

        @staticmethod
        def snapshot_download(name: str, **named: Any) -> str:
            return str(tmp_path / "hub" / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub.HfApi)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub.snapshot_download)
    old = old_adapter(tmp_path / "old", 3, WRONG)
    with pytest.warns(PromptotWarning, match="wrong activation"):
        promptot.push(old, "me/old")
    with pytest.warns(PromptotWarning, match="wrong activation"):
        promptot.pull("me/old", tmp_path / "pulled")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        promptot.push(adapter, "me/new")
        promptot.pull("me/new", tmp_path / "new")
    text = (tmp_path / "hub" / "me" / "new" / "README.md").read_text(encoding="utf-8")
    assert '| image.activation | "quick\\_gelu" |' in text
    assert "| preprocess.resolution | 32 |" in text
    assert "image.activation" not in (tmp_path / "hub/me/old/README.md").read_text(encoding="utf-8")
    assert load_adapter(tmp_path / "new")[0] == load_adapter(adapter)[0]


def test_a_run_s_manifest_and_page_say_it(backbone: Backbone, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    promptot.fit(
        photos, out, backbone=backbone, recipe="zero-shot", shots=1, device="cpu", report=True
    )
    written = json.loads((out / "manifest.json").read_text())["backbone"]
    assert written["identity"] == backbone.identity().digest
    assert written["function"] == dict(backbone.identity().function)
    assert written["weight_hash"] == backbone.weight_hash()
    page = (out / "report.html").read_text(encoding="utf-8").replace("<wbr>", "")
    assert "image.activation" in page
    assert "quick_gelu" in page
    # a run folder of before has neither, and its page is made all the same
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["backbone"]["function"], manifest["backbone"]["identity"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    promptot.report(out, photos, backbone=backbone)
    assert "image.activation" not in (out / "report.html").read_text(encoding="utf-8")


def test_an_export_says_what_the_backbone_did_with_its_weights(
    backbone: Backbone, tmp_path: Path
) -> None:
    old = old_adapter(tmp_path / "old", 2, "openai:clip.safetensors")
    promptot.export(old, tmp_path / "export", format="torchscript", backbone=backbone)
    about = json.loads((tmp_path / "export" / "classifier.json").read_text())
    assert about["backbone"]["name"] == "openai:clip.safetensors"
    assert about["backbone"]["function"]["image.activation"] == "quick_gelu"
