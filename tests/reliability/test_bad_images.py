"""Every odd kind of image file: used rightly, or skipped with its name and the reason."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_images import Case, make_corpus
from PIL import Image

import promptot
from promptot.backbones import load_backbone
from promptot.data.images.read_image import UnreadableImage, load_image

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return make_corpus(tmp_path_factory.mktemp("images") / "odd")


def test_there_are_enough_kinds(corpus: list[Case]) -> None:
    assert len(corpus) >= 100
    assert sum(case.quarters is None for case in corpus) >= 35


def test_each_is_read_rightly_or_refused_with_a_reason(corpus: list[Case]) -> None:
    wrong = []
    for case in corpus:
        began = time.monotonic()
        try:
            image = load_image(case.path)
        except UnreadableImage as error:
            named = error.path == str(case.path) and error.reason and "\n" not in error.reason
            if case.quarters is not None or case.reason not in error.reason or not named:
                wrong.append((case.path.name, error.reason))
        else:
            assert image.mode == "RGB"
            width, height = image.size
            places = [(x, y) for y in (height // 4, 3 * height // 4) for x in
                      (width // 4, 3 * width // 4)]  # fmt: skip
            found = [image.getpixel(place) for place in places]
            if case.quarters is None:
                wrong.append((case.path.name, "was read"))
            elif any(
                abs(a - b) > 12
                for ours, theirs in zip(found, case.quarters, strict=True)
                for a, b in zip(ours, theirs, strict=True)
            ):
                wrong.append((case.path.name, f"{found}, not {case.quarters}"))
        assert time.monotonic() - began < 10, case.path.name
    assert wrong == []


def test_a_run_uses_or_names_each(
    corpus: list[Case], small_file: Path, few_photos: Path, tmp_path: Path
) -> None:
    data = tmp_path / "photos"
    shutil.copytree(few_photos, data)
    (data / "odd").symlink_to(corpus[0].path.parent, target_is_directory=True)
    backbone = load_backbone(f"openai:{small_file}")
    recipe = ["optim.epochs=1", "optim.batch_size=16", "data.shots=null"]
    run = promptot.fit(
        data, tmp_path / "run", backbone=backbone, recipe="ivlp", overrides=recipe, device="cpu"
    )
    refused = {case.path.name for case in corpus if case.quarters is None}
    assert {Path(item.path).name for item in run.skipped} == refused
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert {Path(item["path"]).name for item in manifest["task"]["skipped"]} == refused
    assert all(item["reason"] for item in manifest["task"]["skipped"])
    learnt = {Path(shot["path"]).name for shot in manifest["task"]["shots"]}
    assert not learnt & refused
    tested = run.scores["test"]
    assert len(learnt) > 40
    assert tested is not None

    classifier = promptot.load(run.folder, backbone)
    paths = [case.path for case in corpus]
    predictions = classifier.predict(paths)
    assert [p.image for p in predictions] == [str(path) for path in paths]
    assert [p.problem is None for p in predictions] == [c.quarters is not None for c in corpus]
    some = paths[::10]
    others = classifier.predict(some, workers=2)
    assert [p.problem for p in others] == [p.problem for p in predictions[::10]]
    sums = [sum(p.probabilities) for p in classifier.predict(paths[:5], top_k=9)]
    assert sums == pytest.approx([1.0] * 5, abs=1e-5)


def test_images_in_memory(small_file: Path, few_photos: Path, tmp_path: Path) -> None:
    """PIL images are treated as their files are; what is no image is an error that says so."""
    backbone = load_backbone(f"openai:{small_file}")
    run = promptot.fit(
        few_photos,
        tmp_path / "run",
        backbone=backbone,
        recipe="zero-shot",
        device="cpu",
    )
    classifier = promptot.load(run.folder, backbone)
    deep = Image.fromarray(np.full((20, 20), 40_000, np.uint16))
    deep.save(tmp_path / "deep.png")
    clear = Image.new("RGBA", (20, 20), (200, 30, 30, 90))
    clear.save(tmp_path / "clear.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "clear.png").read_bytes()[:60])
    for image, path in ((deep, "deep.png"), (clear, "clear.png")):
        ours, theirs = classifier.predict([image, tmp_path / path], top_k=3)
        assert ours.probabilities == theirs.probabilities
    (found,) = classifier.predict([Image.open(broken)])
    assert found.image == "image 0"
    assert found.problem is not None
    for wrong in (None, b"bytes", 7, torch.full((3, 8, 8), torch.nan), ["a.png"]):
        one, two = classifier.predict([deep, wrong])
        assert one.problem is None
        assert two.image == "image 1"
        assert two.problem is not None
