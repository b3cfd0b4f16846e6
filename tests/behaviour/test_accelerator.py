"""On an accelerator: the CPU's numbers, the same bits twice, and everything a run does.

    pytest -m cuda

runs on CUDA or, where there is none, on MPS. PROMPTOT_TEST_DEVICE names another device; "cpu" tries
the tests themselves out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matrix import (
    DESIGNS,
    NAMES,
    OBJECTIVES,
    PAIRS,
    TwoBatches,
    make_batch,
    read_recipe,
    start_model,
    step,
)
from safetensors.torch import save_file
from stepping import build, take
from torch import Tensor
from weights import openai_state_dict

import promptot
from promptot.adaptation import IVLPPrompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.data import Batch, ImageTask
from promptot.devices import pick_device
from promptot.errors import NotFinite
from promptot.graphs import CudaGraphs
from promptot.objectives import Objective, build_preservation
from promptot.runs.adapter import build_model, load_adapter, save_adapter
from promptot.runs.learning import adapt, build_objective
from promptot.runs.run import Run
from promptot.training.checkpoint import CheckpointFile, read_checkpoint
from promptot.training.listener import Listener
from promptot.training.loss import scale_of
from promptot.training.train_student import StudentLoss
from promptot.training.trainer import Trainer
from promptot.training.training_log import EpochRecord, Log

pytestmark = pytest.mark.cuda

LOSS = 1e-5
"""Largest relative difference of a loss in fp32 from the CPU's."""
GRADIENT = 1e-4
"""Largest difference of a gradient's entry in fp32 from the CPU's, over the largest entry."""
PROBABILITY = 1e-3
"""Of predictions in fp32, where whole towers of another backbone and a decoder lie between."""
DIRECTION = 0.98
"""Least cosine between all gradients in 16 bits and in fp32."""


def _device() -> torch.device | None:
    named = os.environ.get("PROMPTOT_TEST_DEVICE")
    best = pick_device(named or "auto")
    return best if named or best.type != "cpu" else None


@pytest.fixture(scope="module")
def device() -> torch.device:
    found = _device()
    if found is None:
        pytest.skip("this machine has no accelerator")
    return found


@pytest.fixture(scope="module")
def on_cpu(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


@pytest.fixture(scope="module")
def on_device(small_file: Path, device: torch.device) -> Backbone:
    return load_backbone(f"openai:{small_file}", device)


@pytest.fixture(scope="module")
def backbones(small_file: Path, device: torch.device, on_device: Backbone) -> dict[str, Backbone]:
    """By precision, on the device."""
    return {
        "fp32": on_device,
        **{name: load_backbone(f"openai:{small_file}", device, name) for name in ("bf16", "fp16")},
    }


def _gradients(model: Student) -> list[Tensor]:
    assert model.prompts is not None
    gradients = [parameter.grad for parameter in model.prompts.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [gradient.cpu() for gradient in gradients if gradient is not None]


def _step(
    backbone: Backbone, design: str, objective: str, words: Path
) -> tuple[float, list[Tensor]]:
    recipe = read_recipe(design, objective, words)
    model = start_model(backbone, recipe)
    result = step(model, recipe, make_batch())
    scale = scale_of(backbone.precision)
    (result.total * scale).backward()
    return float(result.total.detach()), [gradient / scale for gradient in _gradients(model)]


@pytest.fixture
def needs(request: pytest.FixtureRequest) -> None:
    """Skip what needs POT where it is not installed."""
    if request.node.callspec.params["objective"] == "ot-partial":
        pytest.importorskip("ot")


@pytest.mark.usefixtures("needs")
@pytest.mark.parametrize(("design", "objective"), PAIRS)
def test_a_step_has_the_numbers_of_the_cpu(
    on_cpu: Backbone, backbones: dict[str, Backbone], words: Path, design: str, objective: str
) -> None:
    loss, gradients = _step(on_cpu, design, objective, words)
    own_loss, own_gradients = _step(backbones["fp32"], design, objective, words)
    assert own_loss == pytest.approx(loss, rel=LOSS, abs=1e-7)
    for own, expected in zip(own_gradients, gradients, strict=True):
        assert (own - expected).abs().max() <= GRADIENT * expected.abs().max()
    for precision in ("bf16", "fp16"):
        _, close = _step(backbones[precision], design, objective, words)
        flat, exact = (torch.cat([g.flatten() for g in many]) for many in (close, gradients))
        assert torch.cosine_similarity(flat, exact, dim=0) > DIRECTION


@pytest.mark.parametrize("side", [224, 336])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_gives_the_same_bits_at_real_widths(
    device: torch.device, precision: str, side: int
) -> None:
    """Kernels that add up in no fixed order are chosen at the sizes that people use."""
    state = openai_state_dict(
        3, vision_width=768, vision_layers=2, text_layers=2, resolution=side, patch=16, embed=512
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.safetensors"
        save_file({key: torch.tensor(value) for key, value in state.items()}, path)
        backbone = load_backbone(f"openai:{path}", device, precision)
    prompts = IVLPPrompts(
        backbone.text_tower.width, 768, 4, 2, 4, 2, generator=torch.Generator().manual_seed(1)
    )
    names = [
        f"{one} {two}" for one in ("red", "blue", "old") for two in ("cat", "school bus", "ox")
    ]
    model = Student(backbone, prompts.to(device), names)
    objective = Objective(build_preservation("ot"), strength=10.0)
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(4, device=device)
    seen = []
    for _ in range(8):
        model.zero_grad()
        student, teacher = model(images)
        objective(student, teacher, labels, backbone.logit_scale).total.backward()
        seen.append(_gradients(model))
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


def _train(
    backbone: Backbone, design: str, objective: str, words: Path, folder: Path | None, on_epoch: Any
) -> Student:
    return adapt(
        backbone,
        ImageTask("made", NAMES),
        read_recipe(design, objective, words),
        Log(folder),
        loader=TwoBatches(),
        checkpoint=None if folder is None else folder / "checkpoint.safetensors",
        listener=Listener(on_epoch=on_epoch),
    )


@pytest.mark.usefixtures("needs")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("design", "objective"),
    [(design, "ot") for design in DESIGNS]
    + [("ivlp", objective) for objective in OBJECTIVES if objective != "ot"],
)
def test_two_runs_and_a_resumed_one_give_the_same_bits(
    backbones: dict[str, Backbone],
    words: Path,
    tmp_path: Path,
    design: str,
    objective: str,
    precision: str,
) -> None:
    backbone = backbones[precision]

    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 1:
            raise KeyboardInterrupt

    whole = _train(backbone, design, objective, words, None, None)
    with pytest.raises(KeyboardInterrupt):
        _train(backbone, design, objective, words, tmp_path, interrupt)
    resumed = _train(backbone, design, objective, words, tmp_path, None)
    assert whole.prompts is not None
    assert resumed.prompts is not None
    for a, b in zip(whole.prompts.parameters(), resumed.prompts.parameters(), strict=True):
        assert torch.equal(a, b)


REPLAYED = [
    *((*pair.values, "fp32") for pair in PAIRS),
    *(
        ("ivlp", objective, bits)
        for objective in ("ot", "vocabulary-ot")
        for bits in ("bf16", "fp16")
    ),
]


@pytest.mark.usefixtures("needs")
@pytest.mark.parametrize(("design", "objective", "precision"), REPLAYED)
def test_a_replayed_step_has_the_bits_of_a_launched_one(
    backbones: dict[str, Backbone], words: Path, design: str, objective: str, precision: str
) -> None:
    """As CUDA graphs; and no recipe falls back to launching its steps."""
    backbone = backbones[precision]
    if backbone.device.type != "cuda":
        pytest.skip("there are no CUDA graphs here")
    recipe = read_recipe(design, objective, words)
    launched, replayed = (
        take(build(start_model(backbone, recipe), recipe, maker))
        for maker in (None, CudaGraphs(backbone.device))
    )
    for one, other in zip(launched[0], replayed[0], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert all(map(torch.equal, launched[1], replayed[1]))


def test_the_memory_of_graphs_goes_with_the_training(on_device: Backbone, words: Path) -> None:
    if on_device.device.type != "cuda":
        pytest.skip("there are no CUDA graphs here")
    reserved = []
    for _ in range(3):
        _train(on_device, "ivlp", "ot", words, None, None)
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved(on_device.device))
    assert reserved[2] <= reserved[0]


class Poisoned(TwoBatches):
    """A NaN in the first batch of the second epoch."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        for number, batch in enumerate(super().batches(epoch)):
            if (epoch, number) == (2, 0):
                batch = batch._replace(images=batch.images.clone())
                batch.images[1, 0, 0, 0] = float("nan")
            yield batch


@pytest.mark.usefixtures("needs")
@pytest.mark.parametrize("objective", ["ot", "cross-entropy"])
def test_a_bad_batch_is_found_though_no_step_waits_for_the_device(
    on_device: Backbone, words: Path, tmp_path: Path, objective: str
) -> None:
    """The prompts are those of the last good step, and the message is that of a CPU."""
    recipe = read_recipe("ivlp", objective, words)
    model = start_model(on_device, recipe)
    assert model.prompts is not None
    trainer = Trainer(
        model.prompts,
        StudentLoss(model, build_objective(recipe, steps=4)),
        Poisoned(),
        recipe.optim,
        Log(tmp_path),
        checkpoint=CheckpointFile(tmp_path / "checkpoint"),
        images=[f"{number}.png" for number in range(8)],
    )
    with pytest.raises(NotFinite, match=r"Epoch 2, step 1: .*images themselves .*'3.png'"):
        trainer.run()
    state = read_checkpoint(tmp_path / "checkpoint")
    assert (state.epoch, state.step) == (1, 0)
    for name, value in model.prompts.named_parameters():
        assert torch.equal(value.cpu(), state.prompts[name])


@pytest.mark.parametrize("design", DESIGNS)
def test_an_adapter_moves_between_devices(
    on_cpu: Backbone, on_device: Backbone, words: Path, tmp_path: Path, design: str
) -> None:
    model = _train(on_device, design, "ot", words, None, None)
    save_adapter(tmp_path / "adapter", model.learned, on_device, NAMES, model.template)
    images = make_batch(8).images
    with torch.no_grad():
        logits = []
        for backbone in (on_device, on_cpu):
            loaded = build_model(*load_adapter(tmp_path / "adapter"), backbone)
            features = loaded.encode_images(images.to(backbone.device))
            logits.append(loaded.logits(features).cpu())
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of noisy one-colour photographs, not square, as JPEG files."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("data") / "photos"
    generator = np.random.default_rng(0)
    colours = {"red": (200, 30, 30), "green": (40, 180, 60), "blue": (30, 60, 210)}
    for name, colour in (colours | {"yellow": (220, 210, 40)}).items():
        (folder / name).mkdir(parents=True)
        for index in range(6):
            noise = generator.normal(0, 25, (150, 200, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.jpg", quality=90)
    return folder


Fit = Callable[..., Run]


@pytest.fixture
def fit(data: Path, device: torch.device, tmp_path: Path) -> Fit:
    def run(name: str, **options: Any) -> Run:
        options = {
            "shots": 3,
            "overrides": ("optim.epochs=2", "optim.lr=0.005"),
            "device": str(device),
            "report": False,
        } | options
        return promptot.fit(data, tmp_path / name, **options)

    return run


@pytest.mark.parametrize("recipe", ["prompt-ot", "promptsrc", "cocoop", "linear-probe"])
def test_fit_evaluate_and_predict(fit: Fit, data: Path, device: torch.device, recipe: str) -> None:
    """With the bundled model; and what a run learned on the device answers alike on the CPU."""
    run = fit("run", recipe=recipe)
    evaluation = promptot.evaluate(run.folder, data, device=str(device)).scores
    images = sorted(data.rglob("*.jpg"))
    there, here = (promptot.load(run.folder, device=name) for name in (str(device), "cpu"))
    torch.testing.assert_close(
        there.predict_proba(images)[0].cpu(),
        here.predict_proba(images)[0],
        rtol=0,
        atol=PROBABILITY,
    )
    again = promptot.evaluate(run.folder, data, device="cpu").scores
    for name, scores in evaluation.items():
        assert scores.student_accuracy == pytest.approx(again[name].student_accuracy, abs=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_two_runs_of_fit_give_the_same_bits(fit: Fit, precision: str) -> None:
    one, two = (fit(name, precision=precision).model.prompts for name in ("one", "two"))
    assert one is not None
    assert two is not None
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_killed_fit_resumes_to_the_same_bits(fit: Fit) -> None:
    whole = fit("whole").model.prompts

    def stop(record: EpochRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit("stopped", listener=Listener(on_epoch=stop))
    resumed = fit("stopped", resume=True).model.prompts
    assert whole is not None
    assert resumed is not None
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_kept_views_and_batches_above_the_enumeration(fit: Fit) -> None:
    """Plans by SciPy on the host, and the teacher's features from fixed views."""
    run = fit(
        "run",
        overrides=(
            "optim.epochs=2",
            "optim.batch_size=12",
            "data.views=2",
            "data.teacher=cached-views",
        ),
    )
    assert len(run.log.epochs) == 2


def test_features_have_the_numbers_of_the_cpu(device: torch.device) -> None:
    """Of the bundled model, whose stem is a convolutional network."""
    here, there = load_backbone("bundled:tiny"), load_backbone("bundled:tiny", device)
    side = here.preprocess.resolution
    images = torch.randn(5, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = here.encode_image(images), there.encode_image(images.to(device))
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)
        names, template = ["cat", "great white shark"], ["a photo of a {}."]
        text = there.frozen_text(names, template).cpu()
        torch.testing.assert_close(text, here.frozen_text(names, template), rtol=0, atol=1e-5)


def test_several_processes_share_the_device(
    data: Path, device: torch.device, tmp_path: Path
) -> None:
    """Two runs at once end in the bits of one that was alone."""
    options = ["--shots", "3", "--set", "optim.epochs=2", "--device", str(device), "--no-report"]
    fit = [sys.executable, "-m", "promptot", "fit", str(data), *options, "--out"]
    started = [
        subprocess.Popen([*fit, str(tmp_path / name)], stderr=subprocess.PIPE)
        for name in ("one", "two")
    ]
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()
    one, two = (
        promptot.load(tmp_path / name, device="cpu").model.prompts for name in ("one", "two")
    )
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
