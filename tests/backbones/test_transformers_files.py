"""transformers: image processors pixel by pixel, weights that are missing, and no foreign code."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from test_transformers_models import SHAPES, save_model

from promptot.backbones import load_backbone
from promptot.backbones.loaders.transformers_processors import read_preprocess
from promptot.errors import PromptotError

REFERENCE = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
SIDE = 30
SIZES = [(30, 30), (31, 30), (45, 101), (101, 45), (64, 33), (29, 31), (20, 90), (90, 20), (7, 5)]
SQUARE = {"height": 30, "width": 30}


def picture(width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(width * height).integers
    return Image.fromarray(draw(0, 256, (height, width, 3), dtype=np.uint8))


def processor(**settings: Any) -> Any:
    known = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE, "image_std": [0.2, 0.3, 0.4]}
    return REFERENCE(**(known | settings))


def of(processor: Any, picture: Image.Image) -> torch.Tensor:
    values = processor(picture, return_tensors="pt")["pixel_values"]
    return torch.tensor(np.asarray(values)[0], dtype=torch.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": {"shortest_edge": 41}},
        {"size": {"shortest_edge": 24}},
        {"size": SQUARE, "do_center_crop": False},
        {"size": SQUARE, "do_center_crop": False, "crop_size": {"height": 224, "width": 224}},
        {"size": {"height": 41, "width": 41}},
        {"do_resize": False},
        *({"resample": filter} for filter in range(6)),
        {"do_rescale": False, "image_mean": [100, 120, 140], "image_std": [50, 60, 70]},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1, 1, 1]},
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": False},
        {"do_convert_rgb": False},
        {"image_mean": 0.5, "image_std": 0.25},
    ],
    ids=lambda settings: json.dumps(settings) if isinstance(settings, dict) else None,
)
def test_pixels_are_those_of_the_processor(settings: dict[str, Any]) -> None:
    theirs = processor(**settings)
    ours = read_preprocess(theirs, SIDE).test()
    for size in SIZES:
        expected, found = of(theirs, picture(*size)), ours(picture(*size))
        assert found.shape == expected.shape == (3, SIDE, SIDE)
        scale = max(1.0, float(expected.abs().max()))
        assert (found - expected).abs().max() < 2e-6 * scale


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_center_crop": False}, "neither cuts images to a square nor resizes them to one"),
        ({"do_resize": False, "do_center_crop": False}, "neither cuts images to a square"),
        ({"crop_size": {"height": 24, "width": 24}}, "gives images of 24 pixels.*takes 30"),
        ({"crop_size": {"height": 224, "width": 224}}, "gives images of 224 pixels.*takes 30"),
        ({"crop_size": {"height": 30, "width": 20}}, "cuts images to height 30, width 20"),
        ({"size": {"height": 30, "width": 40}}, "resizes images to height 30, width 40"),
        ({"size": {"shortest_edge": 30, "longest_edge": 40}}, "resizes images to .*edge"),
        ({"do_pad": True, "pad_size": SQUARE}, "pads images"),
        ({"resample": "bicubic"}, "resamples images with 'bicubic'"),
        ({"image_mean": [0.5, 0.5]}, "normalises 2 channels"),
    ],
)
def test_what_is_not_known_is_refused_in_a_sentence(settings: dict, message: str) -> None:
    with pytest.raises(PromptotError, match=f"The image processor .*{message}.*Correct its"):
        read_preprocess(processor(**settings), SIDE)


def test_the_other_processor_differs_by_roundings_only() -> None:
    """transformers' torchvision processor: the difference that the documentation states."""
    settings = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    # In versions below 5 it goes by the other name.
    four = not hasattr(transformers, "CLIPImageProcessorPil")
    kind = transformers.CLIPImageProcessorFast if four else transformers.CLIPImageProcessor
    other = kind(size={"shortest_edge": SIDE}, crop_size=SQUARE, **settings)
    ours = read_preprocess(processor(**settings), SIDE).test()
    inside = [size for size in SIZES if min(size) >= SIDE]
    grey = [255 * (of(other, picture(*s)) - ours(picture(*s))).abs() for s in inside]
    assert 0.5 < max(float(levels.max()) for levels in grey) < 8.5
    assert max(float(levels.mean()) for levels in grey) < 0.3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", SHAPES["odd-1"])
    return tmp_path / "model"


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_folder_s_processor_is_read(folder: Path) -> None:
    change(folder / "preprocessor_config.json", size={"shortest_edge": 41}, resample=2)
    preprocess = load_backbone(f"hf:{folder}").preprocess
    assert (preprocess.resize, preprocess.resolution) == (41, 30)
    assert preprocess.interpolation == "bilinear"
    change(folder / "preprocessor_config.json", do_center_crop=False)
    with pytest.raises(PromptotError, match="neither cuts"):
        load_backbone(f"hf:{folder}")


def edit(folder: Path, act: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    act(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda w: w.pop("text_projection.weight"), "missing and would be random: text_proj"),
        (
            lambda w: [w.pop(key) for key in list(w) if key.startswith("text_model")],
            r"are missing and would be random: text_model.* \.\.\. \(5\d\)",
        ),
        (lambda w: w.update(head=torch.ones(2)), "have no place in a CLIPModel: head"),
        (
            lambda w: w.update({"visual_projection.weight": torch.ones(3, 3)}),
            "are of another shape: visual_projection.weight",
        ),
    ],
)
def test_weights_that_are_not_a_whole_clip_are_refused(
    act: Callable[[Any], object], message: str, folder: Path
) -> None:
    edit(folder, act)
    with pytest.raises(PromptotError, match=message):
        load_backbone(f"hf:{folder}")


def test_positions_of_old_checkpoints_are_no_weights(folder: Path) -> None:
    before = load_backbone(f"hf:{folder}").weight_hash()
    positions = {
        f"{part}_model.embeddings.position_ids": n for part, n in (("text", 33), ("vision", 10))
    }
    edit(folder, lambda w: w.update({k: torch.arange(n)[None] for k, n in positions.items()}))
    assert load_backbone(f"hf:{folder}").weight_hash() == before


def test_what_the_library_logs_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = transformers.CLIPTokenizerFast.from_pretrained
    logger = logging.getLogger("transformers.tokenization_utils")

    def speak(source: Any, **rest: Any) -> Any:
        logger.warning("The tokenizer class you load is not the one of the checkpoint.")
        return original(source, **rest)

    monkeypatch.setattr(transformers.CLIPTokenizerFast, "from_pretrained", speak)
    with pytest.raises(PromptotError, match="transformers warned while.*tokenizer class you load"):
        load_backbone(f"hf:{folder}")


def test_the_library_says_nothing_of_a_sound_model(folder: Path) -> None:
    """So nothing of this version is on the list of harmless messages."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    load_backbone(f"hf:{folder}")


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_a_pickle_is_read_without_running_code(folder: Path, tmp_path: Path) -> None:
    safe = load_backbone(f"hf:{folder}")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert load_backbone(f"hf:{folder}").weight_hash() == safe.weight_hash()
    torch.save({**weights, "more": Evil(tmp_path / "made")}, folder / "pytorch_model.bin")
    with pytest.raises(PromptotError, match="could not load a CLIP from the folder"):
        load_backbone(f"hf:{folder}")
    assert not (tmp_path / "made").exists()


CODE = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "config.json",
            {
                "model_type": "own_clip",
                "architectures": ["OwnClip"],
                "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "me/other--own.OwnClip"},
            },
            r"needs code of its own \(me/other--own.OwnClip, own.OwnConfig\)",
        ),
        (
            "config.json",
            {"architectures": ["OwnClip"], "auto_map": {"AutoModel": "own.OwnClip"}},
            r"needs code of its own \(own.OwnClip\)",
        ),
        (
            "preprocessor_config.json",
            {"auto_map": {"AutoImageProcessor": "own.Images"}},
            r"needs code of its own \(own.Images\)",
        ),
        (
            "preprocessor_config.json",
            {"image_processor_type": "ViTImageProcessor"},
            "'ViTImageProcessor' of .* is not supported",
        ),
        (
            "tokenizer_config.json",
            {"auto_map": {"AutoTokenizer": ["own.Words", None]}},
            r"needs code of its own \(own.Words\)",
        ),
    ],
)
def test_a_model_that_needs_code_is_refused_by_name(
    file: str, values: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "own.py").write_text(CODE.format(str(tmp_path / "made")))
    change(folder / file, **values)
    with pytest.raises(PromptotError, match=message):
        load_backbone(f"hf:{folder}")
    assert not (tmp_path / "made").exists()


def test_a_plain_clip_beside_code_that_it_does_not_need_loads(folder: Path, tmp_path: Path) -> None:
    (folder / "own.py").write_text(CODE.format(str(tmp_path / "made")))
    change(folder / "config.json", auto_map={"AutoModelForImageClassification": "own.Own"})
    load_backbone(f"hf:{folder}")
    assert not (tmp_path / "made").exists()


def test_a_text_is_read_where_its_tokenizer_ends_it(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", text_config=config["text_config"] | {"eos_token_id": 2})
    load_backbone(f"hf:{folder}")  # old configurations say 2 and mean the largest
    change(folder / "config.json", text_config=config["text_config"] | {"eos_token_id": 7})
    with pytest.raises(
        PromptotError, match="at the token 7, and its tokenizer ends one with 49407"
    ):
        load_backbone(f"hf:{folder}")
