"""Files in the OpenAI layout: what tensors can't tell is said or asked for, never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from test_open_clip_models import check_parity, randomise
from weights import openai_state_dict

from promptot.backbones import load_backbone, load_recorded
from promptot.backbones.loaders.openai_settings import Unstated
from promptot.errors import PromptotError

LAION = {
    "embed_dim": 48,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 36, "layers": 2, "width": 320, "head_width": 80, "patch_size": 12},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2},
}
SAID = (
    "activation=gelu&heads=4,2&mean=0.5&std=0.2,0.3,0.4&interpolation=bilinear&resize_mode=squash"
)


def save(path: Path, sizes: bool = False, **architecture: int) -> Path:
    state = openai_state_dict(0, sizes=sizes, **architecture)
    save_file({key: torch.tensor(value) for key, value in state.items()}, path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights without the sizes that OpenAI's own archives hold."""
    return save(tmp_path / "clip.safetensors")


@pytest.fixture
def laion(tmp_path: Path) -> tuple[Path, Any]:
    """A model like LAION's H/14: heads of 80, GELU, images of its own kind; and its state dict."""
    torch.manual_seed(0)
    model = randomise(open_clip.CLIP(**LAION))
    save_file(model.state_dict(), tmp_path / "laion.safetensors")
    return tmp_path / "laion.safetensors", model


def test_a_file_that_tells_nothing_is_refused_with_what_to_append(laion: tuple[Path, Any]) -> None:
    path, _ = laion
    with pytest.raises(
        Unstated, match="don't tell its activation and its numbers of heads and how"
    ):
        load_backbone(f"openai:{path}")
    with pytest.raises(Unstated, match=r"'\?activation=quick_gelu&heads=5,2&preprocess=openai'"):
        load_backbone(f"openai:{path}")
    with pytest.raises(Unstated, match=r"don't tell its activation\. Append '&activation=quick_g"):
        load_backbone(f"openai:{path}?heads=4,2&preprocess=openai")
    with pytest.raises(Unstated, match=r"how it wants its images\. Append '&preprocess=openai'"):
        load_backbone(f"openai:{path}?heads=4,2&activation=gelu&mean=0.5&std=0.5")


def test_what_is_said_makes_the_library_s_model(laion: tuple[Path, Any]) -> None:
    path, model = laion
    backbone = load_backbone(f"openai:{path}?{SAID}")
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=40)
    check_parity(model, backbone, torch.randn(3, 3, 36, 36), tokenizer)
    preprocess = backbone.preprocess
    assert (preprocess.mean, preprocess.std) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))
    assert (preprocess.interpolation, preprocess.resize_mode) == ("bilinear", "squash")
    assert load_backbone(backbone.name).preprocess == preprocess  # a name says it all


def test_a_file_beside_says_it_too_and_the_name_goes_before_it(laion: tuple[Path, Any]) -> None:
    path, model = laion
    described = {"activation": "gelu", "heads": [4, 2], "preprocess": "openai", "fill": 7}
    (path.parent / "laion.safetensors.json").write_text(json.dumps(described))
    backbone = load_backbone(f"openai:{path}")
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=40)
    check_parity(model, backbone, torch.randn(3, 3, 36, 36), tokenizer)
    assert backbone.preprocess.fill == 7
    changed = load_backbone(f"openai:{path}?heads=5,2&resize_mode=longest")
    assert changed.image_tower.transformer.blocks[0].attn.heads == 5
    assert changed.preprocess.resize_mode == "longest"
    assert changed.image_tower.transformer.blocks[0].mlp.activation == "gelu"


def test_openai_s_own_archives_are_known_by_their_sizes(file: Path, tmp_path: Path) -> None:
    own = load_backbone(f"openai:{save(tmp_path / 'own.safetensors', sizes=True)}")
    said = load_backbone(f"openai:{file}?activation=quick_gelu&heads=2,1&preprocess=openai")
    assert own.weight_hash() == said.weight_hash()
    assert own.preprocess == said.preprocess
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(own.encode_image(images), said.encode_image(images))


@pytest.mark.parametrize("key", ["input_resolution", "context_length", "vocab_size"])
def test_sizes_that_are_not_the_tensors_are_refused(key: str, tmp_path: Path) -> None:
    state = {k: torch.tensor(v) for k, v in openai_state_dict(0).items()}
    state[key] += 1
    save_file(state, tmp_path / "clip.safetensors")
    with pytest.raises(PromptotError, match=f"its {key} is \\d+, and its tensors \\d+"):
        load_backbone(f"openai:{tmp_path / 'clip.safetensors'}")
    del state[key]
    save_file(state, tmp_path / "clip.safetensors")
    with pytest.raises(Unstated):  # two of the three are no mark
        load_backbone(f"openai:{tmp_path / 'clip.safetensors'}")


def test_libraries_drop_the_sizes() -> None:
    """So they mark no file that was trained or saved with open_clip."""
    sizes = {"input_resolution", "context_length", "vocab_size"}
    assert sizes.isdisjoint(open_clip.CLIP(**LAION).state_dict())


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("heads=3,1", "128 wide, which 3 heads don't divide"),
        ("heads=2,0", "64 wide, which 0 heads don't divide"),
        ("heads=-2,1", "-2 heads don't divide"),
        ("heads=2,1,1", "heads is not understood"),
        ("heads=two", "heads is not understood"),
        ("activation=relu", "activation is not understood .*'gelu' or 'quick_gelu'"),
        ("preprocess=laion", "preprocess is not understood"),
        ("mean=0.5,0.5", "mean is not understood"),
        ("std=0", "deviations above 0"),
        ("fill=-1", "a fill from 0 to 255"),
        ("resize_mode=none", "resize_mode is not understood"),
        ("activaton=gelu", "says 'activaton', which is nothing.*Did you mean 'activation'"),
        ("heads=2&heads=3", "says something twice"),
        ("gelu", "does not say anything of the weights"),
    ],
)
def test_what_is_said_is_checked(query: str, message: str, file: Path) -> None:
    rest = {"activation": "gelu", "heads": "2,1", "preprocess": "openai"}
    rest = {key: value for key, value in rest.items() if f"{key}=" not in query}
    more = "".join(f"&{key}={value}" for key, value in rest.items()) if "=" in query else ""
    with pytest.raises(PromptotError, match=message):
        load_backbone(f"openai:{file}?{query}{more}")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"activation": 3}', '{"more": 1}', '{"more": {}, "more": 1}']
)
def test_a_bad_file_beside_is_refused(text: str, file: Path) -> None:
    (file.parent / "clip.safetensors.json").write_text(text, encoding="utf-8")
    with pytest.raises(PromptotError, match="clip.safetensors.json"):
        load_backbone(f"openai:{file}?activation=gelu&heads=2,1&preprocess=openai")


def test_one_number_of_heads_stands_for_both_towers(tmp_path: Path) -> None:
    path = save(tmp_path / "clip.safetensors", text_width=128)
    backbone = load_backbone(f"openai:{path}?heads=8&activation=gelu&preprocess=openai")
    towers = backbone.image_tower, backbone.text_tower
    assert [tower.transformer.blocks[0].attn.heads for tower in towers] == [8, 8]


def test_a_question_mark_in_a_file_s_own_name(tmp_path: Path) -> None:
    try:
        path = save(tmp_path / "what?.safetensors", sizes=True)
    except OSError:
        pytest.skip("this file system has no such names")
    assert load_backbone(f"openai:{path}").preprocess.resolution == 32
    assert load_backbone(f"openai:{path}?resize_mode=squash").preprocess.resize_mode == "squash"


def test_patches_that_are_no_square_are_refused(file: Path, tmp_path: Path) -> None:
    state = {k: torch.tensor(v) for k, v in openai_state_dict(0, sizes=False).items()}
    state["visual.positional_embedding"] = torch.ones(13, 128)
    save_file(state, tmp_path / "clip.safetensors")
    with pytest.raises(PromptotError, match="12 patches, which are no square"):
        load_backbone(f"openai:{tmp_path / 'clip.safetensors'}?{SAID}".replace("4,2", "2,1"))


def test_a_name_on_an_old_card_means_what_it_meant(file: Path) -> None:
    backbone = load_recorded(f"openai:{file}")
    assert backbone.name == f"openai:{file}?activation=quick_gelu&heads=2,1&preprocess=openai"
    assert load_backbone(backbone.name).weight_hash() == backbone.weight_hash()
    with pytest.raises(Unstated):  # said by half is no old name
        load_recorded(f"openai:{file}?activation=gelu")
    assert load_recorded("bundled:tiny").name == "bundled:tiny"
