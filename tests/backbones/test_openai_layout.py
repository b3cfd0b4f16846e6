"""The OpenAI state-dict layout, and the golden teacher features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weights import openai_state_dict

from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError

GOLDEN = Path(__file__).parents[1] / "golden"


def state(seed: int = 0, **architecture: int) -> dict[str, torch.Tensor]:
    return {
        key: torch.tensor(value) for key, value in openai_state_dict(seed, **architecture).items()
    }


@pytest.fixture(params=["safetensors", "pt", "wrapped.pt"])
def weights_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"clip.{request.param}"
    tensors = state(vocab=300)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors} if "wrapped" in path.name else tensors, path)
    return path


def test_every_dimension_is_read(weights_file: Path) -> None:
    backbone = load_backbone(f"openai:{weights_file}")
    assert backbone.preprocess.resolution == 32
    assert backbone.image_tower.layers == backbone.text_tower.layers == 3
    assert backbone.image_tower.transformer.resblocks[0].attn.heads == 2
    assert backbone.embed_dim == 32
    assert backbone.text_tower.context_length == 77
    assert torch.isclose(backbone.logit_scale, torch.tensor(20.0))


@pytest.mark.parametrize("golden", ["small_drift", "large_drift"])
def test_teacher_features_match_the_reference(golden: str, tmp_path: Path) -> None:
    expected = np.load(GOLDEN / f"reference_step_{golden}.npz")
    save_file(state(int(expected["seed"])), tmp_path / "clip.safetensors")
    backbone = load_backbone(f"openai:{tmp_path / 'clip.safetensors'}")
    names = [str(name) for name in expected["classnames"]]
    with torch.no_grad():
        image = backbone.encode_image(torch.tensor(expected["images"]))
        text = backbone.encode_text(backbone.tokenize(names))
    assert (image - torch.tensor(expected["teacher_image_features"])).abs().max() < 1e-5
    assert (text - torch.tensor(expected["teacher_text_features"])).abs().max() < 1e-5


def test_the_weights_are_frozen_and_the_backbone_stays_in_inference_mode(
    weights_file: Path,
) -> None:
    backbone = load_backbone(f"openai:{weights_file}")
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.train().training
    assert not backbone.image_tower.training


def test_the_hash_tells_weights_apart_and_is_stable(weights_file: Path, tmp_path: Path) -> None:
    first = load_backbone(f"openai:{weights_file}").weight_hash()
    assert first == load_backbone(f"openai:{weights_file}").weight_hash()
    changed = state(vocab=300)
    changed["ln_final.bias"][0] += 1e-3
    save_file(changed, tmp_path / "changed.safetensors")
    assert load_backbone(f"openai:{tmp_path / 'changed.safetensors'}").weight_hash() != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("visual.proj"), "'visual.proj' is missing"),
        (lambda s: s.pop("transformer.resblocks.1.ln_1.weight"), "missing: text_tower"),
        (lambda s: s.update({"transformer.resblocks.1.extra": torch.ones(2)}), "unknown: "),
        (lambda s: s.update({"ln_final.bias": torch.ones(3)}), "of another shape: "),
        (lambda s: s.update({"visual.layer1.0.conv1.weight": torch.ones(3)}), "ResNet CLIP"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message: str, tmp_path: Path) -> None:
    tensors = state(vocab=300)
    change(tensors)
    save_file(tensors, tmp_path / "clip.safetensors")
    with pytest.raises(PromptotError, match=message):
        load_backbone(f"openai:{tmp_path / 'clip.safetensors'}")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("unpickled!",))

    torch.save({"weights": Evil()}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 64)
    for name, message in [
        ("evil.pt", "without running code"),
        ("list.pt", "no state dict"),
        ("junk.safetensors", "not a readable safetensors"),
        ("absent.pt", "There is no file"),
    ]:
        with pytest.raises(PromptotError, match=message):
            load_backbone(f"openai:{tmp_path / name}")


def test_one_backbone_serves_every_resolution_of_patch(tmp_path: Path) -> None:
    save_file(state(vocab=300, patch=4, resolution=24), tmp_path / "clip.safetensors")
    backbone: Backbone = load_backbone(f"openai:{tmp_path / 'clip.safetensors'}")
    assert backbone.preprocess.resolution == 24
    assert backbone.encode_image(torch.randn(2, 3, 24, 24)).shape == (2, 32)
