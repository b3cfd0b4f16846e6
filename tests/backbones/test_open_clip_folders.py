"""open_clip's folders and repositories of the Hub: preprocessing, activation, and safe reading."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from test_open_clip_models import SMALL, check_parity, randomise, variant

from promptot.backbones import load_backbone
from promptot.backbones.loaders.open_clip_models import read_preprocess
from promptot.errors import PromptotError

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
SIZES = [(40, 40), (57, 113), (113, 57), (200, 37), (31, 33), (20, 90), (9, 200)]


def write(folder: Path, preprocess: dict[str, Any], **config: Any) -> Any:
    """A small random model as open_clip writes folders."""
    torch.manual_seed(0)
    described = variant() | config
    model = randomise(open_clip.CLIP(**described))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps({"model_cfg": described, "preprocess_cfg": preprocess}))
    save_file(model.state_dict(), folder / WEIGHTS)
    return model


def picture(width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(width).integers
    return Image.fromarray(draw(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random", None])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash", None])
@pytest.mark.parametrize("fill", [0, 200])
def test_pixels_are_those_of_the_library(
    mode: str, interpolation: str, fill: int, tmp_path: Path
) -> None:
    described = {"resize_mode": mode, "interpolation": interpolation, "fill_color": fill}
    described |= {"size": 99, "mean": 0.4, "std": [0.2, 0.3, 0.4]}  # the tower's size is taken
    write(tmp_path, described)
    theirs = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")[1]
    ours = load_backbone(f"open_clip:local-dir:{tmp_path}").preprocess.test()
    for size in SIZES:
        expected = theirs(picture(*size))
        found = ours(picture(*size))
        assert found.shape == expected.shape == (3, 36, 36)
        assert (found - expected).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"resize_mode": "stretch"}, "no resize mode 'stretch'.*squash"),
        ({"interpolation": "lanczos"}, "no interpolation 'lanczos'"),
        ({"fill_color": 300}, "a fill from 0 to 255"),
        ({"mean": [0.5, 0.5]}, "each of three channels"),
        ({"std": 0.0}, "deviations above 0"),
    ],
)
def test_preprocessing_that_open_clip_does_not_know_is_refused(
    described: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptotError, match=message):
        read_preprocess(described, 36)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_a_repository_of_the_hub(
    quick_gelu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--me--my_clip-b.1"
    model = write(
        repository / "snapshots" / commit, {"resize_mode": "squash"}, quick_gelu=quick_gelu
    )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    backbone = load_backbone("open_clip:hf-hub:me/my_clip-b.1")
    assert backbone.name == "open_clip:hf-hub:me/my_clip-b.1"
    assert backbone.preprocess.resize_mode == "squash"
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=40)
    check_parity(model, backbone, torch.randn(3, 3, 36, 36), tokenizer)
    with pytest.raises(PromptotError, match="could not load 'hf-hub:me/other'"):
        load_backbone("open_clip:hf-hub:me/other")


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:me", "hf-hub:me/", "hf-hub:a/b/c"])
def test_what_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(PromptotError, match="names no repository of the Hub.*<owner>/<name>"):
        load_backbone(f"open_clip:{name}")


def test_a_text_is_read_at_the_token_that_ends_it(tmp_path: Path) -> None:
    text = SMALL["text_cfg"] | {"pool_type": "eos", "eos_id": 49407}
    model = write(tmp_path, {}, text_cfg=text)
    backbone = load_backbone(f"open_clip:local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=40)
    check_parity(model, backbone, torch.randn(2, 3, 36, 36), tokenizer)
    write(tmp_path, {}, text_cfg=text | {"eos_id": 2})
    with pytest.raises(PromptotError, match="read at the token 2, which is not supported"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "name", ["open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "epoch_3.bin"]
)
def test_a_pickle_is_read_without_running_code(name: str, tmp_path: Path) -> None:
    folder, made = tmp_path / "model", tmp_path / "made"
    model = write(folder, {})
    (folder / WEIGHTS).unlink()
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, folder / name)
    backbone = load_backbone(f"open_clip:local-dir:{folder}")
    images = torch.randn(2, 3, 36, 36)
    with torch.no_grad():
        expected = F.normalize(model.encode_image(images), dim=-1)
    assert (backbone.encode_image(images) - expected).abs().max() < 1e-5

    torch.save({"state_dict": model.state_dict(), "more": Evil(made)}, folder / name)
    with pytest.raises(PromptotError, match="can't be read without running code|without running"):
        load_backbone(f"open_clip:local-dir:{folder}")
    assert not made.exists()


def test_a_pickled_download_of_a_tag_is_read_without_running_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"weights": Evil(tmp_path / "made")}, tmp_path / "ViT-B-32.pt")
    for module in (open_clip, open_clip.factory, open_clip.pretrained):
        monkeypatch.setattr(
            module, "download_pretrained", lambda *_, **__: tmp_path / "ViT-B-32.pt"
        )
    with pytest.raises(PromptotError, match="without running code"):
        load_backbone("open_clip:ViT-B-32/openai")
    assert not (tmp_path / "made").exists()


def test_which_file_is_taken(tmp_path: Path) -> None:
    write(tmp_path, {})
    weights = load_file(tmp_path / WEIGHTS)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(PromptotError, match="no weights in the folder"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")
    for name in ("a.safetensors", "b.safetensors"):
        save_file(weights, tmp_path / name)
    with pytest.raises(PromptotError, match="several files of weights: a.safetensors, b.*Rename"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")
    save_file({key: value + 1 for key, value in weights.items()}, tmp_path / WEIGHTS)
    taken = load_backbone(f"open_clip:local-dir:{tmp_path}")
    (tmp_path / WEIGHTS).unlink()
    (tmp_path / "a.safetensors").unlink()
    other = load_backbone(f"open_clip:local-dir:{tmp_path}")
    assert taken.weight_hash() != other.weight_hash()


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {})
    weights = load_file(tmp_path / WEIGHTS)
    del weights["ln_final.bias"]
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(PromptotError, match="Missing key.*ln_final.bias"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")


def test_a_pruned_context_is_interpolated_as_the_library_does(tmp_path: Path) -> None:
    model = write(tmp_path, {})
    weights = load_file(tmp_path / WEIGHTS)
    weights["positional_embedding"] = torch.randn(77, SMALL["text_cfg"]["width"])
    weights["visual.positional_embedding"] = torch.randn(26, SMALL["vision_cfg"]["width"])
    save_file(weights, tmp_path / WEIGHTS)
    model = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    backbone = load_backbone(f"open_clip:local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=40)
    check_parity(model, backbone, torch.randn(2, 3, 36, 36), tokenizer)


EVIL = {"trust_remote_code": True}


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (
            "text_cfg",
            {"hf_tokenizer_name": "evil/tokenizer", "tokenizer_kwargs": EVIL},
            "the tokenizer option 'trust_remote_code'",
        ),
        ("text_cfg", {"tokenizer_kwargs": EVIL}, "the tokenizer option 'trust_remote_code'"),
        (
            "text_cfg",
            {"hf_tokenizer_name": "evil/tokenizer", "tokenizer_mode": "clips"},
            "the tokenizer mode 'clips'",
        ),
        ("vision_cfg", {"timm_model_name": "hf_hub:evil/tower"}, "the image tower hf_hub:evil"),
        ("vision_cfg", {"timm_model_name": "local-dir:/evil"}, "the image tower local-dir:"),
    ],
)
def test_a_configuration_can_not_name_code(
    part: str, change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("transformers must not be asked")

    for loader in (transformers.AutoConfig, transformers.AutoModel, transformers.AutoTokenizer):
        monkeypatch.setattr(loader, "from_pretrained", reached)
    write(tmp_path, {})
    described = json.loads((tmp_path / CONFIG).read_text())
    described["model_cfg"][part] |= change
    (tmp_path / CONFIG).write_text(json.dumps(described))
    with pytest.raises(PromptotError, match=f"{message}.*not supported yet"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")


def test_a_tokenizer_is_asked_for_without_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    asked: list[dict[str, Any]] = []

    def note(*_: Any, **options: Any) -> None:
        asked.append(options)
        raise OSError("no such tokenizer")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", note)
    write(tmp_path, {})
    described = json.loads((tmp_path / CONFIG).read_text())
    described["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "some/tokenizer"
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / CONFIG).write_text(json.dumps(described))
    with pytest.raises(PromptotError, match="needs the tokenizer's files"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")
    assert asked
    assert all(options["trust_remote_code"] is False for options in asked)
    assert all(options["local_files_only"] for options in asked)


def test_a_text_encoder_is_only_read_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a text encoder that a configuration names, its config.json; here one that is not there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write(tmp_path, {})
    described = json.loads((tmp_path / CONFIG).read_text())
    described["model_cfg"]["text_cfg"]["hf_model_name"] = str(tmp_path / "nowhere" / "text")
    (tmp_path / CONFIG).write_text(json.dumps(described))
    with pytest.raises(PromptotError, match="folder of the text tower, .* is not there"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")


@pytest.mark.parametrize("text", ["", "[]", '{"model_cfg": 3}', '{"model_cfg": {"text_cfg": {}}}'])
def test_a_configuration_that_describes_nothing_is_refused(text: str, tmp_path: Path) -> None:
    write(tmp_path, {})
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(PromptotError, match="could not load 'local-dir:"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")


@pytest.mark.parametrize("speak", [warnings.warn, logging.warning, logging.error])
def test_what_the_library_warns_of_is_an_error(
    speak: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {})
    original = open_clip.CLIP

    def build(**config: Any) -> Any:
        speak("QuickGELU mismatch between config and tag")
        return original(**config)

    monkeypatch.setattr(open_clip, "CLIP", build)
    with pytest.raises(PromptotError, match="open_clip warned.*QuickGELU mismatch.*Correct what"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")


def test_the_library_says_nothing_of_a_sound_model(tmp_path: Path) -> None:
    """So nothing of open_clip's is on the list of harmless messages."""
    write(tmp_path, {})
    shutil.copy(tmp_path / WEIGHTS, tmp_path / "epoch_1.safetensors")
    load_backbone(f"open_clip:local-dir:{tmp_path}")
