"""One whole training step against the published reference loss, through the public API."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weights import openai_state_dict

from promptot.adaptation import IVLPPrompts
from promptot.adaptation.student import Student
from promptot.backbones import load_backbone
from promptot.objectives import Objective, build_preservation

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["small_drift", "large_drift"])
def test_loss_and_gradients_match_the_reference(name: str, tmp_path: Path) -> None:
    golden = np.load(GOLDEN / f"reference_step_{name}.npz")
    weights = {k: torch.tensor(v) for k, v in openai_state_dict(int(golden["seed"])).items()}
    save_file(weights, tmp_path / "clip.safetensors")

    backbone = load_backbone(f"openai:{tmp_path / 'clip.safetensors'}")
    prompts = IVLPPrompts(
        text_width=64,
        vision_width=128,
        text_tokens=int(golden["text_ctx"]),
        text_depth=int(golden["text_depth"]),
        vision_tokens=int(golden["vision_ctx"]),
        vision_depth=int(golden["vision_depth"]),
    )
    prompts.load_state_dict(
        {key: torch.tensor(golden[f"prompt.{key}"]) for key in prompts.state_dict()}
    )
    model = Student(backbone, prompts, [str(name) for name in golden["classnames"]])
    objective = Objective(build_preservation("ot", eta=0.5), strength=float(golden["lam"]))

    student, teacher = model(torch.tensor(golden["images"]))
    result = objective(
        student, teacher, torch.tensor(golden["labels"]).long(), backbone.logit_scale
    )
    result.total.backward()

    def close(value: torch.Tensor, key: str) -> None:
        expected = torch.tensor(golden[key], dtype=torch.float32)
        assert (value.detach() - expected).abs().max() < 1e-5, key

    close(student.image, "image_features")
    close(student.text, "text_features")
    close(teacher.image, "teacher_image_features")
    close(teacher.text, "teacher_text_features")
    close(result.cross_entropy, "loss_ce")
    close(result.preservation, "loss_ot")
    close(result.total, "loss")
    assert result.plan is not None
    close(result.plan, "plan")
    for key, parameter in prompts.named_parameters():
        expected = torch.tensor(golden[f"grad.{key}"])
        assert parameter.grad is not None
        error = torch.linalg.vector_norm(parameter.grad - expected)
        assert error < 1e-4 * torch.linalg.vector_norm(expected), key
    assert all(parameter.grad is None for parameter in backbone.parameters())
