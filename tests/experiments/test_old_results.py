"""What is kept is used again only where it is of the same function and the same images."""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, safe_open, save_file

import promptot
from promptot.backbones import Backbone
from promptot.data import load_folder
from promptot.errors import PromptotError, PromptotWarning
from promptot.experiments import Benchmark
from promptot.experiments.adapter_store import AdapterStore
from promptot.experiments.cells import VERSION, Fingerprints, fingerprint, make_cells
from promptot.experiments.image_features import ImageFeatures
from promptot.experiments.methods import parse_methods
from promptot.experiments.protocols import PROTOCOLS
from promptot.experiments.scenarios import Scenario, load_sources
from promptot.experiments.training_views import TrainingViews
from promptot.recipes import load_recipe

Bench = Callable[..., Benchmark]


@pytest.fixture
def gelu(backbone: Backbone) -> Backbone:
    """The same weights with another activation, as a loader gave them once."""
    backbone.weight_hash()
    other = copy.deepcopy(backbone)
    for tower in (other.image_tower, other.text_tower):
        for block in tower.transformer.blocks:
            block.mlp.activation = "gelu"
    return other


@pytest.fixture
def squashed(backbone: Backbone) -> Backbone:
    """The same weights with images prepared in another way."""
    backbone.weight_hash()
    other = copy.deepcopy(backbone)
    other.preprocess = replace(other.preprocess, interpolation="bilinear")
    return other


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def scenario_of(photos: Path, shots: int = 2) -> Scenario:
    sources = load_sources([str(photos)])
    return PROTOCOLS["few-shot"].scenarios(sources, [], [shots], "test")[0]


# ---- cells ----------------------------------------------------------------------------------


def test_a_cell_of_another_function_is_another_cell(
    photos: Path, backbone: Backbone, gelu: Backbone, squashed: Backbone
) -> None:
    scenario = scenario_of(photos)
    keys = {
        make_cells("few-shot", [scenario], parse_methods("ivlp"), [1], "test", b)[0].key
        for b in (backbone, gelu, squashed, backbone)
    }
    assert len(keys) == 3


def test_another_activation_runs_again_and_the_same_one_does_not(
    bench: Bench, tmp_path: Path, backbone: Backbone, gelu: Backbone
) -> None:
    bench(seeds=(1,))
    count = len(lines(tmp_path / "out"))
    assert {line["version"] for line in lines(tmp_path / "out")} == {VERSION}
    assert {line["identity"] for line in lines(tmp_path / "out")} == {backbone.identity().digest}
    bench(seeds=(1,))
    assert len(lines(tmp_path / "out")) == count
    bench(seeds=(1,), backbone=gelu)
    again = lines(tmp_path / "out")
    assert len(again) == 2 * count
    assert {line["backbone"] for line in again} == {backbone.weight_hash()}  # equal weights


def as_before(line: dict[str, Any], number: int) -> dict[str, Any]:
    """A line as version 0.1.0 wrote it: under another key, without a version."""
    old = {k: v for k, v in line.items() if k not in ("version", "identity")}
    return {**old, "cell": f"{number:064x}"}


def test_old_results_are_left_alone_and_computed_again_with_one_notice(
    bench: Bench, tmp_path: Path
) -> None:
    bench(seeds=(1,))
    first = lines(tmp_path / "out")
    old = [as_before(line, number) for number, line in enumerate(first)]
    file = tmp_path / "out" / "results.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in old))
    with pytest.warns(PromptotWarning) as told:
        found = bench(seeds=(1,))
    ours = [str(w.message) for w in told if issubclass(w.category, PromptotWarning)]
    assert len(ours) == 1
    assert f"{len(old)} results are left alone in '{file}'" in ours[0]
    after = lines(tmp_path / "out")
    assert after[: len(old)] == old
    assert [line["cell"] for line in after[len(old) :]] == [line["cell"] for line in first]
    assert found.cells == len(first)
    with warnings.catch_warnings():  # all is there now, so there is nothing to say
        warnings.simplefilter("error", PromptotWarning)
        bench(seeds=(1,))


def test_a_report_of_old_results_alone_says_why_there_is_none(bench: Bench, tmp_path: Path) -> None:
    bench(seeds=(1,), methods="zero-shot")
    file = tmp_path / "out" / "results.jsonl"
    old = [as_before(line, number) for number, line in enumerate(lines(tmp_path / "out"))]
    file.write_text("".join(json.dumps(line) + "\n" for line in old))
    with (
        pytest.warns(PromptotWarning, match="left alone"),
        pytest.raises(PromptotError, match="No task is finished"),
    ):
        bench(seeds=(1,), methods="zero-shot", report_only=True)


def test_an_image_that_was_replaced_runs_again(bench: Bench, tmp_path: Path) -> None:
    """By one of the same name and size, in one process."""
    for path in (tmp_path / "photos").rglob("*.png"):  # bitmaps: all of one size
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    photos = [str(tmp_path / "photos"), str(tmp_path / "other")]
    bench(methods="zero-shot", seeds=(1,), tasks=photos)
    before = len(lines(tmp_path / "out"))
    changed = next((tmp_path / "photos").rglob("*.bmp"))
    size = changed.stat().st_size
    time.sleep(0.02)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(changed)
    assert changed.stat().st_size == size
    bench(methods="zero-shot", seeds=(1,), tasks=photos)
    assert len(lines(tmp_path / "out")) == before + 1  # of that task; the other one stays


def test_a_public_data_set_is_looked_at_where_it_is_used(public_data: Path, tmp_path: Path) -> None:
    """Test images and drawn shots by name and size: the same wherever and whenever fetched."""
    import os
    import shutil

    from promptot.experiments.suite import load_suite, suite_sources

    root = tmp_path / "data"
    shutil.copytree(public_data, root)

    def keys(at: Path) -> tuple[str, str, Scenario]:
        sources, *_ = suite_sources(load_suite("coop"), "base-to-novel", at, ["dtd"], True)
        (scenario,) = PROTOCOLS["base-to-novel"].scenarios(sources, [], [1], "test")
        from promptot.experiments.cells import _shots

        return fingerprint(scenario), _shots(scenario, 1, Fingerprints()) or "", scenario

    images, shots, scenario = keys(root)
    elsewhere = keys(public_data)
    for path in root.rglob("*.jpg"):
        os.utime(path, (1, 1))
    assert keys(root)[:2] == (images, shots) == elsewhere[:2]
    part = next(iter(scenario.parts.values()))
    with Path(part.test[0].path).open("ab") as file:
        file.write(b"more")
    assert keys(root)[0] != images
    assert keys(root)[1] == shots
    drawn = scenario.pool.few_shot(1, 1).train[0]
    with Path(drawn.path).open("ab") as file:
        file.write(b"more")
    assert keys(root)[1] != shots


# ---- features, views, adapters --------------------------------------------------------------


@pytest.mark.parametrize("tokens", [True, False])
def test_features_of_another_function_are_computed(
    photos: Path,
    tmp_path: Path,
    backbone: Backbone,
    gelu: Backbone,
    squashed: Backbone,
    tokens: bool,
) -> None:
    examples = load_folder(photos).train

    def features(of: Backbone) -> torch.Tensor:
        batches = ImageFeatures(tmp_path / "cache", of, tokens=tokens).batches(
            examples, frozen=True
        )
        return torch.cat([batch.teacher for batch in batches])

    first = features(backbone)
    files = len(list((tmp_path / "cache").glob("*.safetensors")))
    assert torch.equal(features(backbone), first)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == files
    for other in (gelu, squashed):
        assert (features(other) - first).abs().max() > 1e-4
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 3 * files


@pytest.mark.parametrize("tokens", [True, False])
def test_a_file_of_features_of_before_is_left_alone(
    photos: Path, tmp_path: Path, backbone: Backbone, tokens: bool
) -> None:
    cache = tmp_path / "cache"
    examples = load_folder(photos).train
    first = [
        b.teacher
        for b in ImageFeatures(cache, backbone, tokens=tokens).batches(examples, frozen=True)
    ]
    (file,) = cache.glob("*.safetensors")
    with safe_open(file, framework="pt") as opened:
        images = (opened.metadata() or {})["images"]
    known = f"{backbone.weight_hash()} {backbone.precision} {backbone.preprocess}"
    wrong = {name: torch.zeros_like(value) for name, value in load_file(file).items()}
    old = file.with_stem(f"{file.stem.partition('-')[0]}-0000000000000000")
    file.unlink()
    save_file(wrong, old, {"backbone": known, "images": images})
    content = old.read_bytes()
    again = [
        b.teacher
        for b in ImageFeatures(cache, backbone, tokens=tokens).batches(examples, frozen=True)
    ]
    assert all(map(torch.equal, first, again))
    assert old.read_bytes() == content


def test_views_of_another_function_are_made(
    photos: Path, tmp_path: Path, backbone: Backbone, gelu: Backbone
) -> None:
    task = load_folder(photos).few_shot(1, seed=1)
    recipe = load_recipe("ivlp", ["data.views=1", "data.teacher=cached-views"])
    for of in (backbone, gelu, backbone):
        TrainingViews(tmp_path, of, task, 1).loader(recipe)
    assert len(list(tmp_path.glob("teacher-*"))) == 2


def test_adapters_of_another_function_or_other_images_are_trained(
    photos: Path, tmp_path: Path, backbone: Backbone, gelu: Backbone
) -> None:
    scenario = replace(scenario_of(photos), place=photos)
    (cell,) = make_cells("few-shot", [scenario], parse_methods("ivlp"), [1], "test", backbone)
    train = load_folder(photos).few_shot(1, seed=1)

    def place(of: Backbone) -> Path:
        return AdapterStore(tmp_path, of).place(cell.method, 1, train, ())

    places = {place(of) for of in (backbone, gelu, backbone)}
    assert len(places) == 2
    with Path(train.train[0].path).open("ab") as file:
        file.write(b"more")
    assert place(backbone) not in places


# ---- runs to resume -------------------------------------------------------------------------


class Stopped(Exception):  # noqa: N818
    pass


@pytest.fixture
def interrupted(photos: Path, tmp_path: Path, backbone: Backbone) -> Callable[..., Any]:
    """A run that stopped after its first epoch; a call goes on with it."""
    from promptot.training.listener import Listener

    def stop(record: Any) -> None:
        raise Stopped

    def fit(of: Backbone, **more: Any) -> Any:
        return promptot.fit(
            photos, tmp_path / "run", backbone=of, recipe="ivlp", shots=1, device="cpu",
            overrides=["optim.epochs=2"], report=False, **more,
        )  # fmt: skip

    with pytest.raises(Stopped):
        fit(backbone, listener=Listener(on_epoch=stop))
    return fit


def test_a_run_goes_on_in_the_same_function_only(
    interrupted: Callable[..., Any],
    backbone: Backbone,
    gelu: Backbone,
    squashed: Backbone,
    clip_file: Path,
) -> None:
    half = promptot.load_backbone(f"openai:{clip_file}", precision="bf16")
    for other in (gelu, squashed, half):
        with pytest.raises(PromptotError, match="started with something else: the backbone"):
            interrupted(other, resume=True)
    assert interrupted(backbone, resume=True).log.epochs


def test_a_run_of_before_is_not_gone_on_with(
    interrupted: Callable[..., Any], backbone: Backbone, tmp_path: Path
) -> None:
    (path,) = (tmp_path / "run").rglob("checkpoint.safetensors")
    with safe_open(path, framework="pt") as opened:
        header = dict(opened.metadata() or {})
    run = json.loads(header["run"])
    del run["scheme"]
    run["backbone"] = backbone.weight_hash()
    save_file(load_file(path), path, {**header, "run": json.dumps(run)})
    before = path.read_bytes()
    with pytest.raises(PromptotError, match="another version of promptot.*--overwrite"):
        interrupted(backbone, resume=True)
    assert path.read_bytes() == before
    assert interrupted(backbone, overwrite=True).log.epochs


def test_a_training_image_that_was_replaced_is_noticed_in_every_container(
    tmp_path: Path, backbone: Backbone
) -> None:
    """An interrupted run knows its images by their content."""
    import zipfile

    from promptot.training.listener import Listener

    def pack(seed: int) -> Path:
        draw = np.random.default_rng(seed)
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            for label in ("cat", "dog"):
                for number in range(3):
                    picture = Image.fromarray(draw.integers(0, 256, (20, 20, 3), np.uint8))
                    picture.save(tmp_path / "one.bmp")
                    content = (tmp_path / "one.bmp").read_bytes()
                    archive.writestr(zipfile.ZipInfo(f"{label}/{number}.bmp"), content)
        return tmp_path / "photos.zip"

    def stop(record: Any) -> None:
        raise Stopped

    def fit(**more: Any) -> None:
        promptot.fit(
            tmp_path / "photos.zip", tmp_path / "run", backbone=backbone, recipe="ivlp", shots=1,
            device="cpu", overrides=["optim.epochs=2"], report=False, **more,
        )  # fmt: skip

    pack(1)
    with pytest.raises(Stopped):
        fit(listener=Listener(on_epoch=stop))
    pack(2)
    with pytest.raises(PromptotError, match="something else: the training images"):
        fit(resume=True)
    pack(1)  # the same content again, at another time
    fit(resume=True)


# ---- tuning ---------------------------------------------------------------------------------


def test_trials_of_another_function_or_of_before_are_made_again(
    make_photos: Callable[..., Path], tmp_path: Path, backbone: Backbone, gelu: Backbone
) -> None:
    photos = make_photos("tuned", splits=("train", "val"))
    file = tmp_path / "tuned-out" / "trials.jsonl"

    def tune(of: Backbone) -> list[dict[str, Any]]:
        promptot.tune(
            photos, file.parent, budget=0, backbone=of, recipe="ivlp", shots=1, device="cpu",
            classes="base", overrides=["optim.epochs=1"],
        )  # fmt: skip
        return [json.loads(line) for line in file.read_text().splitlines()]

    first = tune(backbone)
    assert tune(backbone) == first
    assert len(tune(gelu)) == 2 * len(first)
    old = [as_before(line, number) for number, line in enumerate(first)]
    file.write_text("".join(json.dumps(line) + "\n" for line in old))
    with pytest.warns(PromptotWarning, match="left alone"):
        again = tune(backbone)
    assert again[: len(old)] == old
    assert again[len(old)]["cell"] == first[0]["cell"]
