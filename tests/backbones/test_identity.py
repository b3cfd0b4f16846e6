"""A backbone's identity covers all that changes its function, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import nn
from weights import openai_state_dict

from promptot.backbones import Backbone, Preprocess, load_backbone
from promptot.backbones.identity import CLEANING, PREPROCESS, describe_tokenizer, differences
from promptot.backbones.layouts import from_openai, to_transformers
from promptot.backbones.tokenizer import ClipTokenizer, FileTokenizer

SIZES = {"vision_width": 64, "vision_layers": 2, "resolution": 16, "text_layers": 2, "embed": 16}
CHANGED = {int: 7, str: "bilinear", tuple: (0.1, 0.2, 0.3), float: 0.25, bool: True}


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = openai_state_dict(5, **SIZES)
    path = tmp_path_factory.mktemp("small") / "clip.safetensors"
    save_file({key: torch.tensor(value) for key, value in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


@pytest.fixture
def other(small: Backbone) -> Backbone:
    """A copy to change; its weights are hashed already."""
    small.weight_hash()
    return copy.deepcopy(small)


def changed(one: Backbone, two: Backbone) -> list[str]:
    """The names that differ; and the digests differ with them."""
    names = differences(one.identity().function, two.identity().function, ignored=())
    assert bool(names) <= (one.identity().digest != two.identity().digest)
    return names


def one_block(backbone: Backbone) -> None:
    backbone.image_tower.transformer.blocks[1].mlp.activation = "gelu"


def all_blocks(backbone: Backbone) -> None:
    for tower in (backbone.image_tower, backbone.text_tower):
        for block in tower.transformer.blocks:
            block.mlp.activation = "gelu"


def more_heads(backbone: Backbone) -> None:
    for block in backbone.text_tower.transformer.blocks:
        block.attn.heads = 2


def mean_pool(backbone: Backbone) -> None:
    backbone.image_tower.pool = "mean"


def another_eps(backbone: Backbone) -> None:
    backbone.text_tower.ln_final.eps = 1e-6


def shorter_context(backbone: Backbone) -> None:
    backbone.text_tower.context_length = 60


def no_pre_norm(backbone: Backbone) -> None:
    backbone.image_tower.ln_pre = nn.Identity()


def projection_bias(backbone: Backbone) -> None:
    del backbone.text_tower.projection_bias  # None, as it is
    backbone.text_tower.projection_bias = nn.Parameter(torch.zeros(16))


def new_setting(backbone: Backbone) -> None:
    backbone.image_tower.cut = 3


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (one_block, ["image.activation"]),
        (all_blocks, ["image.activation", "text.activation"]),
        (more_heads, ["text.heads"]),
        (mean_pool, ["image.pool"]),
        (another_eps, ["text.norm_eps"]),
        (shorter_context, ["text.context_length"]),
        (no_pre_norm, ["image.norm_eps", "image.pre_norm"]),
        (projection_bias, ["text.projection_bias"]),
    ],
)
def test_what_the_towers_do_is_named(
    small: Backbone, other: Backbone, change: Callable[[Backbone], None], names: list[str]
) -> None:
    assert changed(small, other) == []
    assert small.identity() == other.identity()
    change(other)
    found = changed(small, other)
    assert set(found) <= set(names)
    assert found or other.identity().function.keys() != small.identity().function.keys()
    assert other.weight_hash() == small.weight_hash()  # the weights as they were loaded
    assert other.identity().digest != small.identity().digest


def test_a_new_setting_of_a_module_counts_without_a_line_for_it(
    small: Backbone, other: Backbone
) -> None:
    new_setting(other)
    assert other.identity().function["image.cut"] == 3
    assert other.identity().digest != small.identity().digest
    another = copy.deepcopy(other)
    another.image_tower.cut = 4
    assert changed(other, another) == ["image.cut"]


def test_settings_without_a_name_decide_the_digest(small: Backbone, other: Backbone) -> None:
    """Those of modules of other libraries: a stride, a number format, an activation."""
    seen = {small.identity().digest}
    other.image_tower.stem.conv1.padding = (1, 1)
    seen.add(other.identity().digest)
    other.image_tower.transformer.blocks[0].mlp.c_fc.to(torch.bfloat16)
    seen.add(other.identity().digest)
    other.image_tower.stem.act = nn.ReLU()
    seen.add(other.identity().digest)
    assert len(seen) == 4
    assert changed(small, other) == []


def test_every_field_of_the_preprocessing_counts(small: Backbone, other: Backbone) -> None:
    digests = {small.identity().digest}
    for field in fields(Preprocess):
        before = getattr(small.preprocess, field.name)
        new = CHANGED.get(type(before), "something else")
        other.preprocess = copy.copy(small.preprocess)
        object.__setattr__(other.preprocess, field.name, new)  # whether it makes sense or not
        assert changed(small, other) == [f"preprocess.{field.name}"]
        digests.add(other.identity().digest)
    assert len(digests) == 1 + len(fields(Preprocess))


def test_a_field_that_comes_later_counts_too(small: Backbone, other: Backbone) -> None:
    @dataclass(frozen=True)
    class Later(Preprocess):
        blur: tuple[float, ...] = (0.5,)

    other.preprocess = Later(**vars(small.preprocess))
    assert other.identity().function["preprocess.blur"] == [0.5]
    assert other.identity().digest != small.identity().digest
    # an older card does not know it, and is not refused for it
    assert differences(small.identity().function, other.identity().function) == []


def test_precision_counts_and_the_device_and_name_do_not(
    small: Backbone, small_file: Path, tmp_path: Path
) -> None:
    half = load_backbone(f"openai:{small_file}", precision="bf16")
    assert half.identity().weights == small.identity().weights
    assert half.identity().function == small.identity().function
    assert half.identity().digest != small.identity().digest
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(small_file.read_bytes())
    assert load_backbone(f"openai:{moved}").identity() == small.identity()


def test_it_is_what_the_card_and_json_keep(small: Backbone) -> None:
    function = dict(small.identity().function)
    assert json.loads(json.dumps(function)) == function
    assert small.identity().function["image.activation"] == "quick_gelu"
    assert small.identity().function["preprocess.mean"] == list(small.preprocess.mean)


def test_weights_and_tokenizer_are_hashed_once(
    small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(f"openai:{small_file}")
    passes = {"weights": 0, "texts": 0}
    hashed, encode = backbone._hash, backbone.tokenizer.encode

    def count_weights() -> str:
        passes["weights"] += 1
        return hashed()

    def count_texts(text: str) -> list[int]:
        passes["texts"] += 1
        return encode(text)

    monkeypatch.setattr(backbone, "_hash", count_weights)
    monkeypatch.setattr(backbone.tokenizer, "encode", count_texts)
    first = backbone.identity()
    texts = passes["texts"]
    assert backbone.identity() == first
    assert backbone.weight_hash() == first.weights
    assert passes == {"weights": 1, "texts": texts}
    backbone.tokenizer = ClipTokenizer()  # another one is looked at again
    assert backbone.identity() == first


# ---- tokenizers -----------------------------------------------------------------------------


def tokenizers_file(folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """CLIP's vocabulary in the `tokenizers` library's format, changed as asked."""
    from transformers import CLIPTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    write_transformers_tokenizer(folder)
    content = json.loads(CLIPTokenizerFast.from_pretrained(str(folder)).backend_tokenizer.to_str())
    if change is not None:
        change(content)
    path = folder / "changed.json"
    path.write_text(json.dumps(content))
    return path


def write_transformers_tokenizer(folder: Path) -> None:
    bpe = SimpleTokenizer()
    names = {49406: "<|startoftext|>", 49407: "<|endoftext|>"}
    vocabulary = {names.get(index, token): index for token, index in bpe.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", **special})
    )


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same byte-pair encoding in its three classes."""
    transformers = pytest.importorskip("transformers")
    from promptot.backbones.loaders.transformers_tokenizers import TransformersTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    path = tokenizers_file(folder)
    theirs = transformers.CLIPTokenizerFast.from_pretrained(str(folder))
    return {
        "open_clip": ClipTokenizer(),
        "transformers": TransformersTokenizer(theirs),
        "file": FileTokenizer(path),
    }


def test_three_classes_of_one_encoding_agree_on_words_and_vocabulary(three: dict[str, Any]) -> None:
    found = {name: describe_tokenizer(tokenizer) for name, tokenizer in three.items()}
    assert found["transformers"] == found["file"]
    for key in ("words", "vocabulary"):
        assert found["open_clip"][key] == found["file"][key]


def test_where_libraries_clean_text_differently_it_is_told_apart(three: dict[str, Any]) -> None:
    text = "AT&amp;T"
    assert three["open_clip"].encode(text) != three["file"].encode(text)
    found = {name: describe_tokenizer(tokenizer) for name, tokenizer in three.items()}
    assert found["open_clip"]["cleaning"] != found["file"]["cleaning"]


def swap_merges(content: dict[str, Any]) -> None:
    merges = content["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]


def swap_tokens(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    one, two = "cat</w>", "dog</w>"
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]


def keep_case(content: dict[str, Any]) -> None:
    content["normalizer"]["normalizers"] = [
        part for part in content["normalizer"]["normalizers"] if part["type"] != "Lowercase"
    ]


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (swap_merges, {"vocabulary"}),
        (swap_tokens, {"vocabulary", "words"}),
        (keep_case, {"words", "cleaning"}),
    ],
)
def test_another_vocabulary_or_handling_shows(
    three: dict[str, Any],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    keys: set[str],
) -> None:
    before = describe_tokenizer(three["file"])
    after = describe_tokenizer(FileTokenizer(tokenizers_file(tmp_path, change)))
    assert {key for key in before if before[key] != after[key]} == keys


def test_a_tokenizer_of_one_s_own_is_known_by_what_it_does() -> None:
    class Letters:
        def encode(self, text: str) -> list[int]:
            return [0, *map(ord, text), 1]

    class Same(Letters):
        pass

    class Lower(Letters):
        def encode(self, text: str) -> list[int]:
            return super().encode(text.lower())

    class OnlyAscii(Letters):
        def encode(self, text: str) -> list[int]:
            if not text.isascii():
                raise ValueError("no such letter")
            return super().encode(text)

    own = describe_tokenizer(Letters())
    assert "vocabulary" not in own
    assert describe_tokenizer(Same()) == own
    for other in (Lower(), OnlyAscii()):
        assert describe_tokenizer(other)["words"] != own["words"]


# ---- loaders --------------------------------------------------------------------------------


def save_open_clip(folder: Path, state: dict[str, torch.Tensor], quick_gelu: bool) -> str:
    folder.mkdir(parents=True)
    vision = {"image_size": 16, "layers": 2, "width": 64, "head_width": 64, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    config = {"embed_dim": 16, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.CLIP(**config)
    model.load_state_dict(state, strict=False)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    preprocess = {"mean": mean, "std": std, "interpolation": "bicubic"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


def save_hugging_face(folder: Path, state: dict[str, torch.Tensor]) -> str:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder.mkdir(parents=True)
    special = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1}
    sizes |= {"intermediate_size": 256, "hidden_act": "quick_gelu"}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    model = CLIPModel(
        CLIPConfig(text_config={**sizes, **special}, vision_config=vision, projection_dim=16)
    )
    theirs = {key: value.contiguous() for key, value in to_transformers(from_openai(state)).items()}
    missing, unknown = model.load_state_dict(theirs, strict=False)
    assert not unknown
    assert all(name.endswith("position_ids") for name in missing)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(folder)
    write_transformers_tokenizer(folder)
    return f"hf:{folder}"


@pytest.fixture(scope="module")
def loaded(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One CLIP through three loaders, and through one that gives it another activation."""
    pytest.importorskip("transformers")
    state = {key: torch.tensor(value) for key, value in openai_state_dict(5, **SIZES).items()}
    folder = tmp_path_factory.mktemp("loaders")
    names = {
        "openai": f"openai:{small_file}",
        "open_clip": save_open_clip(folder / "quick", state, True),
        "hf": save_hugging_face(folder / "hf", state),
        "gelu": save_open_clip(folder / "gelu", state, False),
    }
    return {key: load_backbone(name) for key, name in names.items()}


def test_one_clip_has_one_identity_through_every_loader(loaded: dict[str, Backbone]) -> None:
    weights = {name: backbone.identity().weights for name, backbone in loaded.items()}
    assert len(set(weights.values())) == 1
    assert loaded["open_clip"].identity() == loaded["openai"].identity()
    # transformers leaves "&amp;" as it is, where open_clip makes it "&": another function, of such
    # names only, so an adapter may be used in both. It may also cut the centre out a pixel further,
    # and then the preprocessing says so.
    names = changed(loaded["openai"], loaded["hf"])
    prepared = [name for name in names if name.startswith(PREPROCESS)]
    assert [name for name in names if name not in prepared] == [CLEANING]
    assert bool(prepared) == (loaded["openai"].preprocess != loaded["hf"].preprocess)
    functions = [loaded[name].identity().function for name in ("openai", "hf")]
    assert differences(*functions) == prepared


def test_the_same_weights_with_another_activation_are_another_function(
    loaded: dict[str, Backbone],
) -> None:
    assert changed(loaded["open_clip"], loaded["gelu"]) == ["image.activation", "text.activation"]
    images = torch.linspace(-2, 2, 3 * 16 * 16).sin().reshape(1, 3, 16, 16)
    with torch.no_grad():
        features = [loaded[name].encode_image(images) for name in ("open_clip", "hf", "gelu")]
    torch.testing.assert_close(features[0], features[1])
    assert (features[0] - features[2]).abs().max() > 1e-4
