"""The mean of runs, and which runs have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import promptot
from promptot.adaptation import build_prompts
from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError
from promptot.recipes import load_recipe
from promptot.runs.adapter import load_adapter, save_adapter

NAMES = ("cat", "red panda")
Make = Callable[..., Path]


@pytest.fixture
def make(backbone: Backbone, tmp_path: Path) -> Make:
    def adapter(
        name: str, recipe: str = "prompt-ot", seed: int = 1, noise: float = 0.01,
        names: tuple[str, ...] = NAMES, template: str = "a photo of a {}.", *overrides: str,
        inside: Backbone = backbone,
    ) -> Path:  # fmt: skip
        config = load_recipe(recipe, overrides).prompts
        start = torch.Generator().manual_seed(seed)
        prompts = build_prompts(config, inside, len(names), start)
        own = torch.Generator().manual_seed(sum(map(ord, name)))
        with torch.no_grad():
            for parameter in prompts.parameters():
                parameter.add_(noise * torch.randn(parameter.shape, generator=own))
        save_adapter(tmp_path / name, prompts, inside, names, template)
        return tmp_path / name

    return adapter


def state(run: Path) -> dict[str, torch.Tensor]:
    folder = run / "adapter" if (run / "adapter").exists() else run
    learned = load_adapter(folder)[1]
    assert learned is not None
    return learned.state_dict()


def test_every_parameter_is_the_weighted_mean(make: Make, tmp_path: Path) -> None:
    runs = [make("a"), make("b"), make("c")]
    merged = promptot.merge(runs, tmp_path / "out", [3, 1, 0])
    assert merged.weights == (0.75, 0.25, 0.0)
    assert 0 < merged.apart < merged.APART
    a, b, _ = map(state, runs)
    found = state(tmp_path / "out")
    assert found.keys() == a.keys()
    for key in a:
        torch.testing.assert_close(found[key], 0.75 * a[key] + 0.25 * b[key])
    card = load_adapter(tmp_path / "out" / "adapter")[0]
    assert [source["weight"] for source in card.recipe["merged"]] == [0.75, 0.25, 0.0]


def test_the_mean_predicts(make: Make, tmp_path: Path, backbone: Backbone) -> None:
    promptot.merge([make("a", noise=0.002), make("b", noise=0.002)], tmp_path / "out")
    merged = promptot.load(tmp_path / "out", backbone).model
    one, two = (promptot.load(tmp_path / name, backbone).model for name in "ab")
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = [model.logits(model.encode_images(images)) for model in (merged, one, two)]
    torch.testing.assert_close(logits[0], (logits[1] + logits[2]) / 2, atol=0.02, rtol=0)
    assert (logits[1] - logits[2]).abs().max() > 0.05


def test_all_of_one_is_that_one(make: Make, tmp_path: Path) -> None:
    a = make("a")
    promptot.merge([a, make("b")], tmp_path / "out", [1, 0])
    for key, value in state(a).items():
        torch.testing.assert_close(state(tmp_path / "out")[key], value, atol=0, rtol=0)


def test_runs_from_different_starts_are_told_apart(make: Make, tmp_path: Path) -> None:
    merged = promptot.merge([make("a", seed=1), make("b", seed=2)], tmp_path / "out")
    assert merged.apart > merged.APART


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"recipe": "maple"}, "differ in the prompt design.*ivlp.*maple"),
        ({"names": ("cat", "dog")}, "differ in the class names: red panda and dog"),
        ({"names": ("red panda", "cat")}, "differ in the order of the class names"),
        ({"template": "a sketch of a {}."}, "differ in the template.*photo.*sketch"),
    ],
)
def test_runs_that_differ_are_refused(make: Make, tmp_path: Path, other: dict, reason: str) -> None:
    with pytest.raises(PromptotError, match=reason):
        promptot.merge([make("a"), make("b", **other)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_depth_and_another_backbone_are_refused(make: Make, tmp_path: Path) -> None:
    depth = make("b", "prompt-ot", 1, 0.01, NAMES, "a photo of a {}.", "prompts.vision_depth=2")
    with pytest.raises(PromptotError, match="'vision_depth': 3.*'vision_depth': 2"):
        promptot.merge([make("a"), depth], tmp_path / "out")
    other = make("c", inside=load_backbone("bundled:tiny"))
    with pytest.raises(PromptotError, match="differ in the backbone.*openai.*bundled:tiny"):
        promptot.merge([make("a"), other], tmp_path / "out")


@pytest.mark.parametrize("weights", [[1], [0, 0], [-1, 2], [float("nan"), 1], [float("inf"), 1]])
def test_weights_that_make_no_mean(make: Make, tmp_path: Path, weights: list[float]) -> None:
    with pytest.raises(PromptotError, match="weight"):
        promptot.merge([make("a"), make("b")], tmp_path / "out", weights)


def test_one_run_and_runs_that_learned_nothing(
    make: Make, tmp_path: Path, backbone: Backbone
) -> None:
    with pytest.raises(PromptotError, match="two runs"):
        promptot.merge([make("a")], tmp_path / "out")
    for name in "xy":
        save_adapter(tmp_path / name, None, backbone, NAMES, "a photo of a {}.")
    with pytest.raises(PromptotError, match="learned nothing"):
        promptot.merge([tmp_path / "x", tmp_path / "y"], tmp_path / "out")


def test_what_is_in_the_way_is_kept_and_training_images_are_remembered(
    photos: Path, tmp_path: Path, backbone: Backbone
) -> None:
    quick = {"backbone": backbone, "shots": 1, "overrides": ["optim.epochs=1"]}
    for name, overrides in (("a", ["data.smallest_crop=0.9"]), ("b", ["optim.lr=0.001"])):
        more = [*quick["overrides"], *overrides]
        promptot.fit(photos, tmp_path / name, seed=1 if name == "a" else 7,
                     **{**quick, "overrides": more})  # fmt: skip
    out = tmp_path / "out"
    promptot.merge([tmp_path / "a", tmp_path / "b"], out)
    hashes = [
        {
            shot["sha256"]
            for shot in json.loads((run / "manifest.json").read_text())["task"]["shots"]
        }
        for run in (tmp_path / "a", tmp_path / "b", out)
    ]
    assert hashes[2] == hashes[0] | hashes[1]
    assert promptot.evaluate(out, photos, backbone=backbone, device="cpu").left_out == len(
        hashes[2]
    )
    with pytest.raises(PromptotError, match="already holds a run"):
        promptot.merge([tmp_path / "a", tmp_path / "b"], out)
    promptot.merge([tmp_path / "a", tmp_path / "b"], out, [1, 0], overwrite=True)
