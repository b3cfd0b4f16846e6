"""The ONNX snippet of docs/production.md, as it stands there, answers as promptot itself does.

It is what people copy, so its probabilities count, not its code: on files of odd sizes, of every
EXIF orientation and of the modes that image files come in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_image_preparation import SIZES, WAYS

import promptot
from promptot.backbones import Backbone
from promptot.data.images.read_image import load_image
from promptot.exporting.export import _input
from promptot.runs.classifier import Classifier

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

PAGE = Path(__file__).parents[2] / "docs" / "production.md"
ORIENTATION = 0x0112
NAMES = ["cat", "red panda", "St. Bernard (dog)"]
ODD_SIZES = [
    (width, height)
    for width in (1, 7, 29, 30, 31, 45, 63, 64, 65, 101)
    for height in (8, 30, 33, 64, 97, 150)
]


def snippet() -> str:
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        if "onnxruntime.InferenceSession" in block
    ]
    return code


def picture(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Colours that change fast: a picture that is one pixel off is another picture."""
    draw = np.random.default_rng(width * 1000 + height)
    small = draw.integers(0, 256, (-(-height // 3), -(-width // 3), channels), dtype=np.uint8)
    return small.repeat(3, axis=0).repeat(3, axis=1)[:height, :width]


def write_files(folder: Path) -> list[Path]:
    """Image files of every kind, at odd sizes."""
    folder.mkdir()
    paths: list[Path] = []

    def save(image: Image.Image, name: str, **options: Any) -> None:
        paths.append(folder / name)
        image.save(paths[-1], **options)

    for width, height in ODD_SIZES:
        save(Image.fromarray(picture(width, height)), f"rgb {width} {height}.png")
    for orientation in range(1, 9):
        for width, height in ((45, 64), (101, 37), (31, 30)):
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            image = Image.fromarray(picture(width, height))
            name = f"turned {orientation} {width} {height}"
            save(image, f"{name}.jpg", exif=exif)
            save(image, f"{name}.png", exif=exif)
    for width, height in ((33, 47), (90, 41)):
        colours = Image.fromarray(picture(width, height))
        alpha = Image.fromarray(picture(height, width, 1)[:, :, 0].T)
        rgba = colours.copy()
        rgba.putalpha(alpha)
        palette = colours.quantize(16)
        by_colour = palette.copy()
        by_colour.info["transparency"] = bytes(range(0, 256, 16))
        grey = np.asarray(colours)[:, :, 0]
        size = f"{width} {height}"
        save(rgba, f"rgba {size}.png")
        save(rgba, f"rgba {size}.webp", lossless=True)
        save(rgba.convert("LA"), f"la {size}.png")
        save(rgba.convert("PA"), f"pa {size}.tif")
        save(palette, f"p {size}.png")
        save(palette, f"p one transparent {size}.png", transparency=3)
        save(palette, f"p one transparent {size}.gif", transparency=3)
        save(palette, f"p half transparent {size}.png", transparency=bytes(range(0, 256, 16)))
        save(colours, f"rgb one transparent {size}.png", transparency=colours.getpixel((0, 0)))
        save(colours.convert("L"), f"l {size}.png")
        save(colours.convert("L"), f"l one transparent {size}.png", transparency=int(grey[0, 0]))
        save(colours.convert("1"), f"1 {size}.png")
        save(Image.fromarray(grey.astype(np.uint16) * 257), f"16 bits {size}.png")
        save(Image.fromarray(grey.astype(np.uint16) * 91), f"16 bits {size}.tif")
        save(Image.fromarray(grey.astype(np.int32) * 257), f"32 bits {size}.tif")
        save(Image.fromarray(grey.astype(np.int32) * 7_000_003), f"large 32 bits {size}.tif")
        for name, top in (("1", 1.0), ("255", 255.0), ("65535", 65535.0), ("more", 1e6)):
            floats = grey.astype(np.float32) * np.float32(top / 255)
            floats[0, :3] = np.nan, np.inf, -5.0
            save(Image.fromarray(floats), f"floats to {name} {size}.tif")
        save(colours.convert("CMYK"), f"cmyk {size}.jpg")
        save(colours.convert("CMYK"), f"cmyk {size}.tif")
        save(colours.convert("YCbCr"), f"ycbcr {size}.jpg")
        frames = [colours, Image.fromarray(picture(width, height)[::-1])]
        save(frames[0], f"moving {size}.gif", save_all=True, append_images=frames[1:])
        save(frames[0], f"moving {size}.png", save_all=True, append_images=frames[1:])
    return paths


@pytest.fixture(scope="module")
def definitions() -> dict[str, Any]:
    """The functions of the snippet, without what it does with them."""
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet().partition("about = ")[0], str(PAGE), "exec"), names)
    return names


@pytest.fixture(scope="module", params=["bundled", "openai", "hf"])
def documented(
    request: pytest.FixtureRequest,
    make_adapter: Callable[..., Path],
    backbones: Callable[[str], Backbone],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], Classifier]:
    """The names that the snippet leaves, run as it stands beside an export; and the original."""
    folder = tmp_path_factory.mktemp("documented")
    adapter, backbone = make_adapter(request.param), backbones(request.param)
    promptot.export(adapter, folder / "exports" / "onnx", "onnx", NAMES, backbone=backbone)
    Image.fromarray(picture(64, 48)).save(folder / "new.jpg")
    names: dict[str, Any] = {"__name__": "snippet"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(snippet(), str(PAGE), "exec"), names)
    return names, promptot.load(adapter, backbone)


def probabilities(names: dict[str, Any], paths: list[Path]) -> np.ndarray:
    wanted = names["about"]["input"]
    batch = np.stack([names["prepare"](names["read"](path), wanted) for path in paths])
    (logits,) = names["session"].run(["logits"], {"images": batch})
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def test_its_probabilities_are_those_of_predict(
    documented: tuple[dict[str, Any], Classifier], tmp_path: Path
) -> None:
    names, classifier = documented
    paths = write_files(tmp_path / "files")
    assert len(paths) >= 150
    found = probabilities(names, paths)
    answered, left_out = classifier.predict_proba(paths, NAMES)
    expected = answered.numpy()
    assert not left_out
    difference = np.abs(found - expected).max(axis=1)
    worst = sorted(zip(difference, (path.name for path in paths), strict=True))[-5:]
    assert difference.max() <= 1e-4, worst
    # Not any picture would do: one pixel to the side is seen.
    wanted = names["about"]["input"]
    other = {"nearest": "down", "down": "nearest"}[wanted["crop_rounding"]]
    moved = {**names, "about": {"input": {**wanted, "crop_rounding": other}}}
    assert np.abs(probabilities(moved, paths) - expected).max() > 1e-3


def test_it_takes_a_sigmoid_where_the_run_has_one(
    sigmoid_adapter: tuple[Path, Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, backbone = sigmoid_adapter
    promptot.export(adapter, tmp_path / "exports" / "onnx", "onnx", NAMES, backbone=backbone)
    Image.fromarray(picture(64, 48)).save(tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet(), str(PAGE), "exec"), names)
    expected, _ = promptot.load(adapter, backbone).probabilities(["new.jpg"], NAMES)
    assert np.abs(names["probabilities"] - expected.numpy()).max() < 1e-4
    assert abs(float(expected.sum()) - 1) > 0.01


def test_it_reads_a_file_into_the_same_pixels(definitions: dict[str, Any], tmp_path: Path) -> None:
    for path in write_files(tmp_path / "files"):
        assert np.array_equal(definitions["read"](path), load_image(path)), path.name


@pytest.mark.parametrize("way", WAYS)
def test_it_prepares_an_image_for_any_backbone(way: str, definitions: dict[str, Any]) -> None:
    preprocess = WAYS[way]
    wanted = json.loads(json.dumps(_input(preprocess)))
    for width, height in {*SIZES, *ODD_SIZES}:
        image = Image.fromarray(picture(width, height))
        expected = preprocess.test()(image).numpy()
        assert np.abs(definitions["prepare"](image, wanted) - expected).max() < 1e-5, (
            width,
            height,
        )
