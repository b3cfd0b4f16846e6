"""What earlier versions wrote loads for good, and gives what it gave."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from promptot.backbones import Backbone, load_backbone
from promptot.data import Batch, ImageTask
from promptot.recipes import load_recipe
from promptot.runs.adapter import Learned, build_model, load_adapter
from promptot.runs.card import FORMAT_VERSION, Card
from promptot.runs.learning import adapt
from promptot.training import checkpoint
from promptot.training.checkpoint import read_checkpoint
from promptot.training.training_log import Log

FIXTURES = Path(__file__).parents[1] / "fixtures"
DESIGNS = ("ivlp", "class-specific", "maple", "cocoop", "linear-probe", "none")


def test_the_present_formats_have_a_fixture() -> None:
    """Whoever raises a version adds one of the new format, and keeps the old ones."""
    assert (FIXTURES / f"format-{FORMAT_VERSION}").is_dir()
    assert (FIXTURES / f"checkpoint-{checkpoint.FORMAT_VERSION}").is_dir()


def check_logits(card: Card, learned: Learned, backbone: Backbone, noted: Path) -> None:
    """What the version that wrote it gave is given still."""
    images = torch.linspace(-2, 2, 2 * 3 * 32 * 32).sin().reshape(2, 3, 32, 32)
    model = build_model(card, learned, backbone)
    with torch.no_grad():
        logits = model.logits(model.encode_images(images))
    expected = load_file(noted)["logits"]
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-4)


def test_adapters_of_format_5_give_their_logits(backbone: Backbone) -> None:
    """Low-rank changes; whatever else is written stays in format 4."""
    card, learned = load_adapter(FIXTURES / "format-5" / "lora")
    assert card.format_version == 5
    check_logits(card, learned, backbone, FIXTURES / "format-5" / "lora-logits.safetensors")


def test_adapters_of_format_4_give_their_logits(backbone: Backbone) -> None:
    """The card notes what the backbone does with its weights, by names that stay."""
    card, learned = load_adapter(FIXTURES / "format-4" / "function")
    assert card.format_version == 4
    assert card.backbone.function is not None
    assert card.backbone.function.keys() <= backbone.identity().function.keys()
    check_logits(card, learned, backbone, FIXTURES / "format-4" / "function-logits.safetensors")


def test_adapters_of_format_3_give_their_logits(backbone: Backbone) -> None:
    """A class that has synonyms is the mean of all its names."""
    card, learned = load_adapter(FIXTURES / "format-3" / "synonyms")
    assert card.format_version == 3
    assert card.synonyms == {"cat": ("kitten", "tomcat")}
    check_logits(card, learned, backbone, FIXTURES / "format-3" / "synonyms-logits.safetensors")


@pytest.mark.parametrize("design", DESIGNS)
def test_adapters_of_format_2_give_their_logits(backbone: Backbone, design: str) -> None:
    card, learned = load_adapter(FIXTURES / "format-2" / design)
    assert card.format_version == 2
    check_logits(card, learned, backbone, FIXTURES / "format-2" / f"{design}-logits.safetensors")


class Made:
    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch)
        for number in range(2):
            indices = torch.arange(4 * number, 4 * number + 4)
            labels = indices % 3
            images = torch.randn(4, 3, 16, 16, generator=generator) + labels.view(-1, 1, 1, 1)
            yield Batch(images, labels, indices)


@pytest.mark.parametrize(("version", "place"), [(1, (1, 0)), (2, (1, 1))])
def test_checkpoints_of_every_format_go_on_to_their_end(
    small_file: Path, tmp_path: Path, version: int, place: tuple[int, int]
) -> None:
    for path in (FIXTURES / f"checkpoint-{version}").iterdir():
        shutil.copy(path, tmp_path)
    state = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert (state.epoch, state.step) == place
    overrides = ["optim.epochs=3", "optim.batch_size=4", "ensembling=gaussian"]
    overrides += ["objective.control=budget", "prompts.text_depth=2", "prompts.vision_depth=2"]
    model = adapt(
        load_backbone(f"openai:{small_file}"),
        ImageTask("made", ("cat", "hot dog", "bee")),
        load_recipe("prompt-ot-queue", overrides),
        Log(tmp_path),
        loader=Made(),
        checkpoint=tmp_path / "checkpoint.safetensors",
    )
    expected = load_file(tmp_path / "end.safetensors")
    found = dict(model.prompts.named_parameters())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=0, atol=1e-4)
