"""Exports give the original's answers in their own runtime, or are not left."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import promptot
from promptot.adaptation.linear_head import LinearHead
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.exporting import export as exporting
from promptot.exporting.fixed import FixedClassifier
from promptot.objectives import fit_loss
from promptot.runs.adapter import save_adapter

Adapter = Callable[..., Path]
CLOSE = 1e-4


def outside(code: str, place: Path) -> str:
    """Run code where promptot can't be imported, in a folder; gives what it prints."""
    blocked = "import sys; sys.modules['promptot'] = None\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", blocked + code],
        cwd=place, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def expected_logits(model: Student, images: Tensor) -> Tensor:
    return model.logits(model.encode_images(images))


def random_images(backbone: Backbone, count: int = 5) -> Tensor:
    side = backbone.preprocess.resolution
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


# Onnx and TorchScript


def test_onnx_runs_in_onnxruntime_at_any_batch_size(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    backbone, adapter = backbones("bundled"), make_adapter("bundled")
    names = ["bicycle", "hot dog"]
    result = promptot.export(adapter, tmp_path / "out", "onnx", names, backbone=backbone)

    assert result.files == ("classifier.json", "model.onnx")
    assert result.difference.largest < CLOSE
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    model = promptot.load(adapter, backbone).model.for_classes(names)
    for count in (1, 2, 7):
        images = random_images(backbone, count)
        (found,) = session.run(["logits"], {"images": images.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(found), expected_logits(model, images), atol=CLOSE, rtol=0
        )
    about = json.loads((tmp_path / "out" / "classifier.json").read_text())
    preprocess = backbone.preprocess
    assert about["class_names"] == names
    assert about["input"]["mean"] == list(preprocess.mean)
    assert about["input"]["std"] == list(preprocess.std)
    assert about["input"]["shape"] == ["batch", 3, preprocess.resolution, preprocess.resolution]
    assert about["differences"]["images"] == 12


def test_what_classifier_json_says_is_enough_to_prepare_an_image(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    import numpy as np
    from PIL import Image

    backbone, adapter = backbones("openai"), make_adapter("openai")
    promptot.export(adapter, tmp_path / "out", "torchscript", backbone=backbone)
    about = json.loads((tmp_path / "out" / "classifier.json").read_text())["input"]
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)

    side = about["resize"]["short_side"]
    kind = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    resized = image.resize((side * 70 // 50, side), kind[about["resize"]["interpolation"]])
    left = round((resized.width - side) / 2)
    cropped = resized.crop((left, 0, left + side, side))
    array = np.asarray(cropped, dtype=np.float32) * about["scale"]
    array = (array - np.float32(about["mean"])) / np.float32(about["std"])
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    torch.testing.assert_close(tensor, backbone.preprocess.test()(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("recipe", ["prompt-ot", "maple", "coop-class-specific", "vpt"])
def test_torchscript_runs_without_promptot(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path, recipe: str
) -> None:
    backbone, adapter = backbones("openai"), make_adapter("openai", recipe)
    promptot.export(adapter, tmp_path / "out", "torchscript", backbone=backbone)
    images = random_images(backbone)
    expected = expected_logits(promptot.load(adapter, backbone).model, images)
    if recipe == "prompt-ot":
        torch.save(images, tmp_path / "out" / "images.pt")
        outside(
            "import torch\n"
            "logits = torch.jit.load('model.pt')(torch.load('images.pt'))\n"
            "torch.save(logits.detach(), 'logits.pt')\n",
            tmp_path / "out",
        )
        found = torch.load(tmp_path / "out" / "logits.pt")
    else:
        found = torch.jit.load(tmp_path / "out" / "model.pt")(images).detach()
    torch.testing.assert_close(found, expected, atol=CLOSE, rtol=0)


def test_a_linear_head_is_exported_with_its_bias(
    backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    backbone = backbones("openai")
    torch.manual_seed(0)
    head = LinearHead(torch.randn(3, backbone.embed_dim), torch.randn(3))
    save_adapter(tmp_path / "run", head, backbone, ("a", "b", "c"), "a photo of a {}.")
    promptot.export(
        tmp_path / "run", tmp_path / "out", "torchscript", ["c", "a"], backbone=backbone
    )
    images = random_images(backbone)
    with torch.no_grad():
        expected = head(backbone.encode_image(images))[:, [2, 0]]
    found = torch.jit.load(tmp_path / "out" / "model.pt")(images).detach()
    torch.testing.assert_close(found, expected, atol=CLOSE, rtol=0)


# The libraries


@pytest.mark.parametrize(
    ("source", "recipe"),
    [("openai", "prompt-ot"), ("open_clip", "prompt-ot"), ("open_clip", "maple"), ("hf", "ivlp")],
)
def test_open_clip_gives_the_adapted_features_of_any_names(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path, source: str,
    recipe: str,
) -> None:  # fmt: skip
    import open_clip

    # ivlp has fewer prompted blocks than the tower has: the last tokens stay and evolve
    depth = ["prompts.vision_depth=2"] if recipe == "ivlp" else []
    backbone, adapter = backbones(source), make_adapter(source, recipe, *depth)
    result = promptot.export(adapter, tmp_path / "out", "open_clip", backbone=backbone)
    assert result.difference.text is not None
    loaded = import_file(tmp_path / "out" / "prompted_open_clip.py").load(tmp_path / "out")
    assert type(loaded.model) is open_clip.CLIP
    images, others = random_images(backbone), ["bicycle", "Boeing 737-800"]
    with torch.no_grad():
        image = loaded.model.encode_image(images, normalize=True)
        texts = loaded.tokenizer([loaded.template.format(name) for name in others])
        text = loaded.model.encode_text(texts, normalize=True)
        logits = image @ loaded.classifier + loaded.bias
        model = promptot.load(adapter, backbone).model
        torch.testing.assert_close(image, model.encode_images(images), atol=CLOSE, rtol=0)
        expected = model.for_classes(others).encode_classes()
        torch.testing.assert_close(text, expected, atol=CLOSE, rtol=0)
    torch.testing.assert_close(logits, expected_logits(model, images), atol=CLOSE, rtol=0)


def test_the_open_clip_folder_works_without_promptot(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    backbone, adapter = backbones("openai"), make_adapter("openai")
    promptot.export(adapter, tmp_path / "out", "open_clip", backbone=backbone)
    images = random_images(backbone)
    torch.save(images, tmp_path / "out" / "images.pt")
    outside(
        "sys.path.insert(0, '.')\n"
        "import torch\n"
        "from prompted_open_clip import load\n"
        "loaded = load('.')\n"
        "features = loaded.model.encode_image(torch.load('images.pt'), normalize=True)\n"
        "logits = features @ loaded.classifier + loaded.bias\n"
        "torch.save(logits.detach(), 'logits.pt')\n",
        tmp_path / "out",
    )
    expected = expected_logits(promptot.load(adapter, backbone).model, images)
    found = torch.load(tmp_path / "out" / "logits.pt")
    torch.testing.assert_close(found, expected, atol=CLOSE, rtol=0)


def test_weights_alone_are_the_frozen_model_in_open_clip(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    """Why the folder holds a module: open_clip's classes have no place for deep prompts."""
    import open_clip

    backbone, adapter = backbones("open_clip"), make_adapter("open_clip")
    promptot.export(adapter, tmp_path / "out", "open_clip", backbone=backbone)
    plain = open_clip.create_model(f"local-dir:{tmp_path / 'out'}").eval()
    images = random_images(backbone)
    with torch.no_grad():
        found = plain.encode_image(images, normalize=True)
        adapted = promptot.load(adapter, backbone).model.encode_images(images)
        torch.testing.assert_close(found, backbone.encode_image(images), atol=CLOSE, rtol=0)
    assert (found - adapted).abs().max() > 100 * CLOSE


def test_transformers_loads_the_folder_by_its_own_means(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    backbone, adapter = backbones("hf"), make_adapter("hf")
    result = promptot.export(adapter, tmp_path / "out", "transformers", backbone=backbone)
    assert result.difference.text is not None
    assert "modeling_prompted_clip.py" in result.files
    images, others = random_images(backbone), ["bicycle", "Boeing 737-800"]
    torch.save(images, tmp_path / "out" / "images.pt")
    printed = outside(
        "import os\n"
        "os.environ |= {'HF_MODULES_CACHE': 'modules', 'HF_HUB_OFFLINE': '1'}\n"
        "import torch, PIL.Image\n"
        "from transformers import AutoModelForImageClassification, AutoTokenizer, pipeline\n"
        "model = AutoModelForImageClassification.from_pretrained('.', trust_remote_code=True)\n"
        "tokenizer = AutoTokenizer.from_pretrained('.', trust_remote_code=True)\n"
        f"texts = [model.config.template.format(name) for name in {others}]\n"
        "tokens = tokenizer(texts, padding=True, return_tensors='pt')\n"
        "with torch.no_grad():\n"
        "    logits = model.eval()(torch.load('images.pt')).logits\n"
        "    text = model.get_text_features(tokens['input_ids'], tokens['attention_mask'])\n"
        "torch.save([logits, text], 'found.pt')\n"
        "classify = pipeline('image-classification', model='.', trust_remote_code=True)\n"
        "print(classify(PIL.Image.new('RGB', (50, 40)), top_k=1)[0]['label'])\n",
        tmp_path / "out",
    )
    assert printed.strip() in ("cat", "red panda", "St. Bernard (dog)")
    logits, text = torch.load(tmp_path / "out" / "found.pt")
    model = promptot.load(adapter, backbone).model
    torch.testing.assert_close(logits, expected_logits(model, images), atol=CLOSE, rtol=0)
    with torch.no_grad():
        expected = model.for_classes(others).encode_classes()
    torch.testing.assert_close(text, expected, atol=CLOSE, rtol=0)


@pytest.mark.parametrize(("source", "recipe"), [("openai", "maple"), ("hf", "coop"), ("hf", "vpt")])
def test_other_prompts_in_transformers(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path, source: str,
    recipe: str,
) -> None:  # fmt: skip
    from promptot.exporting.standalone import modeling_prompted_clip as modeling

    backbone, adapter = backbones(source), make_adapter(source, recipe)
    promptot.export(adapter, tmp_path / "out", "transformers", backbone=backbone)
    loaded = modeling.PromptedCLIPForImageClassification.from_pretrained(tmp_path / "out").eval()
    images = random_images(backbone)
    with torch.no_grad():
        found = loaded(images, labels=torch.tensor([0, 1, 2, 0, 1]))
    expected = expected_logits(promptot.load(adapter, backbone).model, images)
    torch.testing.assert_close(found.logits, expected, atol=CLOSE, rtol=0)
    loss = torch.nn.functional.cross_entropy(expected, torch.tensor([0, 1, 2, 0, 1]))
    torch.testing.assert_close(found.loss, loss, atol=1e-3, rtol=0)


# A logit bias, and a sigmoid


@pytest.mark.parametrize("format", ["onnx", "torchscript", "open_clip", "transformers"])
def test_a_sigmoid_is_one_there_too(
    sigmoid_adapter: tuple[Path, Backbone], tmp_path: Path, format: str
) -> None:
    (adapter, backbone), out = sigmoid_adapter, tmp_path / "out"
    made = promptot.export(adapter, out, format, backbone=backbone)
    assert made.difference.largest < CLOSE
    output = json.loads((out / "classifier.json").read_text())["output"]
    assert output["probabilities"] == "sigmoid of each logit"
    assert output["none_of_these_below"] == 0.5
    model, images = promptot.load(adapter, backbone).model, random_images(backbone)
    expected = expected_logits(model, images)
    labels = torch.tensor([0, 1, 2, 0, 1])
    if format == "open_clip":
        loaded = import_file(out / "prompted_open_clip.py").load(out, "cpu")
        assert loaded.model.logit_bias.item() == -2.5
        with torch.no_grad():
            features = loaded.model.encode_image(images, normalize=True)
        found = loaded.probabilities(features @ loaded.classifier + loaded.bias)
        torch.testing.assert_close(found, expected.sigmoid(), atol=CLOSE, rtol=0)
    if format == "transformers":
        from promptot.exporting.standalone import modeling_prompted_clip as modeling

        theirs = modeling.PromptedCLIPForImageClassification.from_pretrained(out).eval()
        assert theirs.config.problem_type == "multi_label_classification"  # pipelines go by it
        with torch.no_grad():
            answer = theirs(images, labels=labels)
        torch.testing.assert_close(answer.logits, expected, atol=CLOSE, rtol=0)
        loss = fit_loss(expected, labels, "sigmoid")
        torch.testing.assert_close(answer.loss, loss, atol=1e-3, rtol=0)


def test_a_softmax_is_said_as_before(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    backbone, adapter = backbones("open_clip"), make_adapter("open_clip")
    promptot.export(adapter, tmp_path / "out", "open_clip", backbone=backbone)
    output = json.loads((tmp_path / "out" / "classifier.json").read_text())["output"]
    assert output["probabilities"] == "softmax over the last axis"
    assert "none_of_these_below" not in output
    loaded = import_file(tmp_path / "out" / "prompted_open_clip.py").load(tmp_path / "out", "cpu")
    logits = torch.randn(3, 4)
    assert torch.equal(loaded.probabilities(logits), logits.softmax(dim=1))


# What is refused


@pytest.mark.parametrize("format", ["open_clip", "transformers"])
def test_a_backbone_that_the_library_has_no_place_for(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path, format: str
) -> None:
    with pytest.raises(PromptotError, match=f"CLIP of {format} has no place.*--format onnx"):
        promptot.export(
            make_adapter("bundled"), tmp_path / "out", format, backbone=backbones("bundled")
        )
    assert list(tmp_path.iterdir()) == []


def test_text_that_depends_on_the_image_is_refused(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    with pytest.raises(PromptotError, match="every image has its own text"):
        promptot.export(
            make_adapter("openai", "cocoop"), tmp_path / "out", backbone=backbones("openai")
        )


def test_an_export_that_differs_is_not_left(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    right = exporting.FORMATS["torchscript"]

    def write(folder: Path, content) -> None:
        content.fixed.matrix[0] *= 1.01
        right.write(folder, content)

    monkeypatch.setitem(exporting.FORMATS, "torchscript", replace(right, write=write))
    adapter, backbone = make_adapter("openai"), backbones("openai")
    with pytest.raises(PromptotError, match=r"differs from the original by \d\.\de-\d\d"):
        promptot.export(adapter, tmp_path / "out", "torchscript", backbone=backbone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spoil", [float("nan"), 2e-4])
def test_the_difference_is_noticed_in_any_class_and_never_by_a_nan(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], spoil: float
) -> None:
    backbone = backbones("openai")
    model = promptot.load(make_adapter("openai"), backbone).model
    fixed = FixedClassifier(model)
    scale = float(backbone.logit_scale)

    def logits(images: Tensor) -> Tensor:
        with torch.no_grad():
            found = fixed(images)
        found[-1, -1] += spoil * scale
        return found

    images = random_images(backbone)
    assert exporting.compare(exporting.Read(fixed), model, images).largest < exporting.TOLERANCE
    found = exporting.compare(exporting.Read(logits), model, images)
    assert not found.largest <= exporting.TOLERANCE


def test_what_is_in_the_way_is_kept(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    adapter, backbone, out = make_adapter("openai"), backbones("openai"), tmp_path / "out"
    promptot.export(adapter, out, "torchscript", backbone=backbone)
    with pytest.raises(PromptotError, match="already holds an export.*--overwrite"):
        promptot.export(adapter, out, "torchscript", backbone=backbone)
    promptot.export(adapter, out, "torchscript", ["dog"], backbone=backbone, overwrite=True)
    assert json.loads((out / "classifier.json").read_text())["class_names"] == ["dog"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(PromptotError, match="holds other files"):
        promptot.export(adapter, tmp_path / "mine", backbone=backbone, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(PromptotError, match="Did you mean 'onnx'"):
        promptot.export(adapter, tmp_path / "b", "onx", backbone=backbone)
    with pytest.raises(PromptotError, match="comes twice"):
        promptot.export(adapter, tmp_path / "b", class_names=["a", "A"], backbone=backbone)


def test_a_missing_library_says_what_to_install(
    make_adapter: Adapter, backbones: Callable[[str], Backbone], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PromptotError, match=r"pip install 'promptot\[export\]'"):
        promptot.export(make_adapter("openai"), tmp_path / "out", backbone=backbones("openai"))
