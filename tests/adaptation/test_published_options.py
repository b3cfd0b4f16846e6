"""Two options of published code: MaPLe's cloned projections and PromptSRC's raw template mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from promptot.adaptation import MaPLePrompts, build_prompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.exporting.formats import describe as take_apart
from promptot.recipes import describe, load_recipe
from promptot.runs.adapter import build_model, load_adapter, save_adapter
from promptot.runs.merging import merge

NAMES = ["cat", "hot dog", "great white shark", "bee"]
TEMPLATES = ("a photo of a {}.", "{} texture.", "a bad drawing of many, many {}, from far away.")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def maple(depth: int, *, cloned: bool) -> MaPLePrompts:
    return MaPLePrompts(64, 128, 2, depth, None, "of a", generator(), cloned_projections=cloned)


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_deep_projections_start_as_copies_and_are_parameters_of_their_own(depth: int) -> None:
    prompts = maple(depth, cloned=True)
    layers = list(prompts.projections)
    assert len(layers) == depth
    for layer in layers[2:]:
        assert torch.equal(layer.weight, layers[1].weight)
        assert torch.equal(layer.bias, layers[1].bias)
        assert layer.weight.data_ptr() != layers[1].weight.data_ptr()
    if depth > 1:
        assert not torch.equal(layers[0].weight, layers[1].weight)
    # the start is that of a linear layer: uniform within ±1/√inputs
    for layer in layers:
        assert 0.9 / 8 < layer.weight.abs().max() <= 1 / 8
    # shapes, and so adapters, are those of independent projections
    independent = maple(depth, cloned=False)
    assert prompts.arguments == independent.arguments
    shapes = [{k: v.shape for k, v in p.state_dict().items()} for p in (prompts, independent)]
    assert shapes[0] == shapes[1]
    if depth > 2:
        assert not torch.equal(independent.projections[1].weight, independent.projections[2].weight)


def test_a_recipe_asks_for_cloned_projections(backbone: Backbone) -> None:
    recipe = load_recipe("maple", ["prompts.cloned_projections=true", "prompts.text_depth=3"])
    prompts = build_prompts(recipe.prompts, backbone, 3, generator())
    assert isinstance(prompts, MaPLePrompts)
    assert torch.equal(prompts.projections[1].weight, prompts.projections[2].weight)
    assert "prompts.cloned_projections" in describe(recipe)
    assert "prompts.cloned_projections" not in describe(load_recipe("ivlp"))


def raw_mean(backbone: Backbone, names: list[str]) -> torch.Tensor:
    """The mean of the tower's outputs, sentence by sentence, then normalised."""
    rows = []
    for name in names:
        outputs = [
            backbone.text_tower(backbone.tokenize([name], template))[0].double()
            for template in TEMPLATES
        ]
        mean = sum(outputs) / len(outputs)
        rows.append(mean / mean.norm())
    return torch.stack(rows).float()


@torch.no_grad()
def test_a_raw_template_mean_against_a_plain_computation(backbone: Backbone) -> None:
    raw = backbone.frozen_text(NAMES, TEMPLATES, "raw")
    torch.testing.assert_close(raw, raw_mean(backbone, NAMES), rtol=0, atol=2e-6)
    usual = backbone.frozen_text(NAMES, TEMPLATES)
    each = [backbone.frozen_text(NAMES, [template]) for template in TEMPLATES]
    plain = F.normalize(torch.stack(each).mean(dim=0), dim=-1)
    torch.testing.assert_close(usual, plain, rtol=0, atol=2e-6)
    assert (raw - usual).abs().max() > 1e-5  # lengths differ, so the two means do
    one = backbone.frozen_text(NAMES, TEMPLATES[:1], "raw")
    torch.testing.assert_close(one, each[0], rtol=0, atol=2e-6)


def test_an_adapter_keeps_the_mean_of_its_teacher(backbone: Backbone, tmp_path: Path) -> None:
    text = {}
    for mean in ("normalised", "raw"):
        recipe = load_recipe("promptsrc", [f"data.template_mean={mean}", "prompts.text_depth=1"])
        prompts = build_prompts(recipe.prompts, backbone, len(NAMES), generator())
        model = Student(backbone, prompts, NAMES, TEMPLATES, template_mean=mean)
        save_adapter(
            tmp_path / mean / "adapter",
            prompts,
            backbone,
            model.class_names,
            TEMPLATES,
            template_mean=model.template_mean,
        )
        card, learned = load_adapter(tmp_path / mean / "adapter")
        again = build_model(card, learned, backbone)
        assert again.template_mean == again.for_classes(["fox"]).template_mean == mean
        assert torch.equal(again.teacher_text, model.teacher_text)
        text[mean] = again.teacher_text
        written = (tmp_path / mean / "adapter" / "card.json").read_text()
        assert ("template_mean" in written) == (mean == "raw")  # older versions read the other
    torch.testing.assert_close(text["raw"], raw_mean(backbone, NAMES), rtol=0, atol=2e-6)
    with pytest.raises(PromptotError, match="the mean over templates"):
        merge([tmp_path / "normalised", tmp_path / "raw"], tmp_path / "merged")


def test_an_export_offers_other_names_only_where_it_can_write_them(backbone: Backbone) -> None:
    plain = Student(backbone, None, NAMES, TEMPLATES)
    assert take_apart(plain).template == list(TEMPLATES)
    assert take_apart(Student(backbone, None, NAMES, TEMPLATES, template_mean="raw")) \
        .template is None  # fmt: skip


def test_a_recipe_asks_for_the_raw_mean() -> None:
    recipe = load_recipe("promptsrc", ["data.template_mean=raw"])
    assert describe(recipe)["data.template_mean"] == "raw"
    assert "data.template_mean" not in describe(load_recipe("ivlp"))
    with pytest.raises(PromptotError, match=r"data\.template_mean"):
        load_recipe("promptsrc", ["data.template_mean=median"])
