"""SigLIP, SigLIP 2 and MetaCLIP 2 of transformers: parity with the library's own forward pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from saved_families import NAMES, save_metaclip_2, save_siglip

import promptot
from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.backbones.loaders.transformers_families import FAMILIES
from promptot.backbones.loaders.transformers_processors import processor_class, read_preprocess
from promptot.errors import PromptotError

SHAPES: dict[str, dict[str, Any]] = {
    "usual": {},
    "odd": {
        # patches that do not fill the image, and texts of 16 positions, as in some of SO400M
        "vision": {"hidden_size": 64, "num_attention_heads": 2, "image_size": 32, "patch_size": 9,
                   "hidden_act": "gelu", "layer_norm_eps": 1e-4},
        "text": {"max_position_embeddings": 16, "num_hidden_layers": 1, "num_attention_heads": 4},
    },
}  # fmt: skip


def check_parity(backbone: Backbone, model: Any, ids: torch.Tensor, names: Any, words: str) -> None:
    """Features and logits of images and texts, against transformers' own."""
    side = backbone.preprocess.resolution
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(input_ids=ids, pixel_values=images)
        student = Student(backbone, None, names, template=words)
        image, text = backbone.encode_image(images), student.teacher_text
        logits = student.teacher_logits(image)
    assert (image - expected.image_embeds).abs().max() < 1e-5
    assert (text - expected.text_embeds).abs().max() < 1e-5
    assert (logits - expected.logits_per_image).abs().max() < 1e-5 * float(backbone.logit_scale)


@pytest.mark.parametrize("tokenizer", ["spiece", "gemma", "siglip2", "file"])
@pytest.mark.parametrize("shape", SHAPES)
def test_siglip(tokenizer: str, shape: str, tmp_path: Path) -> None:
    model = save_siglip(tmp_path, tokenizer, **SHAPES[shape])
    backbone = load_backbone(f"hf:{tmp_path}", "cpu")
    names = NAMES if shape == "usual" else ("cat", "Dog's")
    texts = [f"a {name}." for name in names]
    if tokenizer == "gemma":  # it knows upper case, which the model never saw
        texts = [text.lower() for text in texts]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    length = model.config.text_config.max_position_embeddings
    filled = theirs(texts, padding="max_length", max_length=length, return_tensors="pt")
    assert filled["input_ids"].shape == (len(texts), length)
    pad = 0 if tokenizer in ("gemma", "siglip2") else 1
    assert backbone.tokenizer.pad == filled["input_ids"][0, -1] == pad
    check_parity(backbone, model, filled["input_ids"], names, "a {}.")
    assert backbone.logit_bias == -10


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_metaclip_2(activation: str, tmp_path: Path) -> None:
    model = save_metaclip_2(tmp_path, activation)
    backbone = load_backbone(f"hf:{tmp_path}", "cpu")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    filled = theirs([f"a {name}." for name in NAMES], padding=True, return_tensors="pt")
    check_parity(backbone, model, filled["input_ids"], NAMES, "a {}.")
    assert backbone.logit_bias is None


def test_nothing_is_warned_of_a_sound_model(tmp_path: Path) -> None:
    save_siglip(tmp_path, "gemma")
    once = getattr(transformers.utils.logging.warning_once, "cache_clear", lambda: None)
    once()  # what was said while the model was made, is said again
    load_backbone(f"hf:{tmp_path}", "cpu")


# images


SIZES = [(30, 30), (31, 30), (45, 101), (101, 45), (29, 31), (7, 5), (640, 427)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        *({"resample": filter} for filter in range(6)),
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"do_rescale": False, "image_mean": 127.5, "image_std": 127.5},
        {"do_normalize": False},
    ],
    ids=str,
)
def test_pixels_are_those_of_the_processor(settings: dict[str, Any]) -> None:
    theirs = processor_class("SiglipImageProcessor")(size={"height": 30, "width": 30}, **settings)
    ours = read_preprocess(theirs, 30)
    assert ours.resize_mode == "squash"
    for width, height in SIZES:
        draw = np.random.default_rng(width * height).integers
        picture = Image.fromarray(draw(0, 256, (height, width, 3), dtype=np.uint8))
        expected = np.asarray(theirs(picture, return_tensors="pt")["pixel_values"])[0]
        assert np.abs(ours.test()(picture).numpy() - expected).max() < 1e-6


def test_what_is_not_known_of_images_is_refused() -> None:
    kind = processor_class("SiglipImageProcessor")
    with pytest.raises(PromptotError, match="resizes images to height 30, width 40"):
        read_preprocess(kind(size={"height": 30, "width": 40}), 30)
    with pytest.raises(PromptotError, match="gives images of 32 pixels.*takes 30"):
        read_preprocess(kind(size={"height": 32, "width": 32}), 30)


# what is refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_siglip(tmp_path / "model", "gemma")
    return tmp_path / "model"


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_naflex_is_refused_with_what_to_use_instead(folder: Path) -> None:
    change(folder / "config.json", model_type="siglip2", architectures=["Siglip2Model"])
    with pytest.raises(PromptotError) as caught:
        load_backbone(f"hf:{folder}")
    assert "SigLIP 2 of the kind NaFlex" in caught.value.problem
    assert "hf:google/siglip2-base-patch16-256" in caught.value.fix
    assert "open_clip:ViT-B-16-SigLIP2-256/webli" in caught.value.fix


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("vision", {"vision_use_head": False}, "has no head, so it gives no features"),
        ("vision", {"hidden_act": "relu"}, "activation 'relu' is not supported"),
        ("vision", {"image_size": [30, 40]}, "not square"),
        ("text", {"projection_size": 47}, "of another shape: text_model.head"),
    ],
)
def test_a_model_that_is_not_computed_here_is_refused(
    part: str, values: dict[str, Any], message: str, folder: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", **{f"{part}_config": config[f"{part}_config"] | values})
    with pytest.raises(PromptotError, match=message):
        load_backbone(f"hf:{folder}")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda w: w.pop("logit_bias"), "missing and would be random: logit_bias"),
        (lambda w: w.pop("vision_model.head.probe"), "would be random: vision_model.head.probe"),
        (lambda w: w.update(more=torch.ones(2)), "have no place in a SiglipModel: more"),
        (
            lambda w: w.update({"text_model.head.weight": torch.ones(3, 3)}),
            "are of another shape: text_model.head.weight",
        ),
    ],
)
def test_weights_that_are_not_a_whole_siglip_are_refused(
    act: Callable[[Any], object], message: str, folder: Path
) -> None:
    weights = load_file(folder / "model.safetensors")
    act(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PromptotError, match=message):
        load_backbone(f"hf:{folder}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tensors_that_torch_saved(dtype: torch.dtype, folder: Path) -> None:
    before = load_backbone(f"hf:{folder}", "cpu")
    weights = {k: v.to(dtype) for k, v in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    after = load_backbone(f"hf:{folder}", "cpu")
    assert after.image_tower.positional_embedding.dtype == torch.float32
    assert (after.weight_hash() == before.weight_hash()) is (dtype == torch.float32)


def test_another_processor_is_refused(folder: Path) -> None:
    change(folder / "preprocessor_config.json", image_processor_type="Siglip2ImageProcessor")
    with pytest.raises(PromptotError, match="'Siglip2ImageProcessor' of .* with a SiglipImage"):
        load_backbone(f"hf:{folder}")


def test_a_version_without_a_family_says_which_has_it() -> None:
    with pytest.raises(PromptotError, match=r"A Clip9Model needs transformers 4.56 or newer, and"):
        replace(FAMILIES["clip"], prefix="Clip9").classes()


# where files come from


def test_a_cached_repository_needs_no_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--me--siglip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / commit)
    asked: list[Any] = []

    def refuse(socket: Any, address: Any) -> None:
        asked.append(address)
        raise OSError("there is no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    name = "transformers.utils.hub.TRANSFORMERS_CACHE"  # of transformers 4
    monkeypatch.setattr(name, str(tmp_path / "cache"), raising=False)
    monkeypatch.setattr("socket.socket.connect", refuse)
    assert load_backbone("hf:me/siglip", "cpu").logit_bias == -10
    assert not asked


def test_what_is_not_in_the_cache_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = transformers.PretrainedConfig.get_config_dict
    asked: list[bool] = []

    def ask(source: str, **where: Any) -> Any:
        asked.append("local_files_only" not in where)
        return original(source, **(where if folder.name in source else {"local_files_only": True}))

    monkeypatch.setattr(transformers.PretrainedConfig, "get_config_dict", ask)
    with pytest.raises(PromptotError, match="could not load a CLIP from the repository 'me/none'"):
        load_backbone("hf:me/none", "cpu")
    assert asked == [False, True]
    (folder / "tokenizer.json").unlink()  # a folder is all there is
    with pytest.raises(PromptotError, match="could not load a CLIP from the folder"):
        load_backbone(f"hf:{folder}", "cpu")
    assert not any(asked[2:])


# a run


@pytest.mark.parametrize("family", ["siglip", "metaclip_2"])
def test_a_run(family: str, photos: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    save_siglip(model, "gemma") if family == "siglip" else save_metaclip_2(model)
    fit = "sigmoid" if family == "siglip" else "softmax"
    run = promptot.fit(
        photos, tmp_path / "run", backbone=f"hf:{model}", recipe="ivlp", shots=1, epochs=1,
        overrides=["optim.batch_size=2", "prompts.init_words=null", f"objective.fit={fit}"],
        report=False, device="cpu",
    )  # fmt: skip
    assert run.model.adapts_images
    backbone = load_backbone(f"hf:{model}", "cpu")
    loaded = promptot.load(tmp_path / "run", backbone)
    side = backbone.preprocess.resolution
    images = torch.randn(2, 3, side, side)
    found = []
    with torch.no_grad():
        for student in (run.model, loaded.model):
            features, _ = student(images)
            found.append(student.logits(features.image))
        plain = loaded.model.teacher_logits(backbone.encode_image(images))
    assert torch.equal(*found)
    assert not torch.allclose(found[0], plain, atol=1e-4)
