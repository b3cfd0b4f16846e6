"""Each of open_clip's pretrained weights, at small sizes, is computed as the library computes it.

A tag's own configuration is shrunk, its weights are random and stand in for the download; what it
would fetch from a hub (tokenizer, text encoder) lies in a folder in the same format. The library's
model is made by its own factory. One architecture of each kind runs by default, all by `-m slow`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from families import randomise, save_family, small_trunks
from prompted_library import context_in_text, prompts_in_image
from safetensors.torch import save_file
from torch import Tensor

from promptot.backbones import Backbone, load_backbone
from promptot.backbones.injection import Injection
from promptot.backbones.towers.image_extractor import ImageExtractor

NAMES = ["cat", "Great white shark", "Boeing 737-800 (aircraft)"]
TEMPLATE = "a photo of a {}."
KINDS = (
    "RN50/openai",
    "convnext_base/laion400m_s13b_b51k",
    "convnext_large_d/laion2b_s26b_b102k_augreg",
    "coca_ViT-B-32/laion2b_s13b_b90k",
    "roberta-ViT-B-32/laion2b_s12b_b32k",
    "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
    "nllb-clip-base/v1",
    "nllb-clip-base-siglip/v1",
    "EVA01-g-14/laion400m_s11b_b41k",
    "EVA02-B-16/merged2b_s8b_b131k",
    "EVA02-E-14/laion2b_s4b_b115k",
    "ViT-B-16-SigLIP/webli",
    "ViT-SO400M-14-SigLIP/webli",
    "ViT-SO400M-16-SigLIP-i18n-256/webli",
    "ViT-B-16-SigLIP2-256/webli",
    "ViT-gopt-16-SigLIP2-256/webli",
    "ViT-L-14-CLIPA/datacomp1b",
    "MobileCLIP-S1/datacompdr",
    "MobileCLIP2-S3/dfndr2b",
    "MobileCLIP-B/datacompdr",
    "MobileCLIP2-L-14/dfndr2b",
    "ViTamin-S/datacomp1b",
    "PE-Core-B-16/meta",
    "PE-Core-bigG-14-448/meta",
    "ViT-H-14-worldwide-quickgelu/metaclip2_worldwide",
    "ViT-B-16-quickgelu/dfn2b",
    "ViT-B-16/laion2b_s34b_b88k",
)
TAGS = [f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]
ALL = [
    pytest.param(name, marks=[] if name in KINDS else pytest.mark.slow, id=name) for name in TAGS
]
PROMPTED = [name for name in KINDS if "quickgelu/dfn" not in name]
WITHOUT_TOKENS = ("RN", "convnext", "MobileCLIP-S", "MobileCLIP2-S")

Both = tuple[Any, Any, Backbone]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Both]]:
    """A tag's model and transform by open_clip's own factory, and our backbone."""
    folder = tmp_path_factory.mktemp("families")
    asked: list[Path] = []
    known: dict[str, Both] = {}

    def load(name: str) -> Both:
        if name in known:
            return known[name]
        architecture, _, tag = name.rpartition("/")
        with pytest.MonkeyPatch.context() as patch, small_trunks():
            config = save_family(folder, architecture)
            patch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, config)
            for module in (open_clip, open_clip.factory, open_clip.pretrained):
                patch.setattr(module, "download_pretrained", lambda *_, **__: str(asked[-1]))
            made = open_clip.create_model(architecture, pretrained_hf=False)
            randomise(made)
            asked.append(folder / f"{architecture}.safetensors")
            save_file({k: v.contiguous() for k, v in made.state_dict().items()}, asked[-1])
            described = open_clip.get_pretrained_cfg(architecture, tag)
            model, _, transform = open_clip.create_model_and_transforms(
                architecture, pretrained=tag, pretrained_hf=False,
                force_quick_gelu=described.get("quick_gelu", False),
            )  # fmt: skip
            model.tokenizer = open_clip.get_tokenizer(architecture)
            known[name] = model.eval(), transform, load_backbone(f"open_clip:{name}")
        return known[name]

    yield load


def pixels(model: Any, count: int = 2) -> Tensor:
    size = model.visual.image_size
    side = size if isinstance(size, int) else size[0]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def encode_image(model: Any, images: Tensor) -> Tensor:
    return F.normalize(model.encode_image(images), dim=-1)


def encode_text(model: Any, ids: Tensor) -> Tensor:
    return F.normalize(model.encode_text(ids), dim=-1)


@pytest.mark.parametrize("name", ALL)
def test_its_features_are_the_library_s(both: Callable[[str], Both], name: str) -> None:
    model, _, backbone = both(name)
    images = pixels(model, 3)
    with torch.no_grad():
        expected = encode_image(model, images)
        image = backbone.encode_image(images)
        expected_text = encode_text(model, model.tokenizer([TEMPLATE.format(n) for n in NAMES]))
        text = backbone.encode_text(backbone.tokenize(NAMES, TEMPLATE))
        single = torch.cat([backbone.encode_text(backbone.tokenize([n], TEMPLATE)) for n in NAMES])
    assert (image - expected).abs().max() < 1e-5
    assert (text - expected_text).abs().max() < 1e-5
    assert (single - text).abs().max() < 1e-5
    torch.testing.assert_close(backbone.logit_scale, model.logit_scale.detach().exp())
    assert (backbone.logit_bias is None) is (model.logit_bias is None)
    if backbone.logit_bias is not None:
        torch.testing.assert_close(backbone.logit_bias, model.logit_bias.detach())
    # what is compared tells inputs apart
    assert (expected[0] - expected[1]).norm() > 1e-3
    assert (expected_text[0] - expected_text[1]).norm() > 1e-3
    assert backbone.image_tower.promptable is not name.startswith(WITHOUT_TOKENS)


def draw(count: int, *shape: int, seed: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = [0.5 * torch.randn(shape, generator=generator) for _ in range(count)]
    return [own.requires_grad_() for own in tokens]


def check_gradients(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for own, expected in zip(ours, theirs, strict=True):
        scale = expected.abs().max()
        assert scale > 1e-6
        assert (own - expected).abs().max() < 1e-4 * scale


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", PROMPTED)
def test_its_text_with_context_is_a_padded_one(
    both: Callable[[str], Both], name: str, depth: int
) -> None:
    """The library's own padded text, its tokens of the context overwritten in each block."""
    model, _, backbone = both(name)
    tower = backbone.text_tower
    text = getattr(model, "text", model)
    context = draw(depth, 3, tower.width)
    sequences = backbone.tokenize_names(NAMES, 3)
    ours = backbone.encode_text(backbone.pack_names(sequences), Injection(tuple(context)))
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4))
    found = torch.autograd.grad((ours * weights).sum(), context)

    length = model.tokenizer(["a"]).shape[1]
    word = tower_word(backbone)
    ids = torch.full((len(NAMES), length), backbone.tokenizer.pad)
    for row, own in zip(ids, sequences, strict=True):
        filled = [*own[: tower.starts], word, word, word, *own[tower.starts :]]
        row[: len(filled)] = torch.tensor(filled)
    with context_in_text(text, context, tower.starts):
        expected = encode_text(model, ids)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), context)
    assert (ours - expected).abs().max() < 1e-5
    check_gradients(list(found), list(expected_gradients))


def tower_word(backbone: Backbone) -> int:
    """A token that is a word and no mark."""
    return backbone.tokenizer.encode("cat")[backbone.text_tower.starts]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", [n for n in PROMPTED if not n.startswith(WITHOUT_TOKENS)])
def test_its_image_with_prompts_is_the_library_s_with_more_tokens(
    both: Callable[[str], Both], name: str, depth: int
) -> None:
    model, _, backbone = both(name)
    prompts = draw(depth, 3, backbone.image_tower.width)
    images = pixels(model)
    ours = backbone.encode_image(images, Injection(image_tokens=tuple(prompts)))
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4))
    found = torch.autograd.grad((ours * weights).sum(), prompts)
    with prompts_in_image(model.visual, prompts):
        expected = encode_image(model, images)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), prompts)
    assert (ours - expected).abs().max() < 1e-5
    check_gradients(list(found), list(expected_gradients))
    with torch.no_grad():
        assert (ours - backbone.encode_image(images)).norm() > 1e-3


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith(WITHOUT_TOKENS)])
def test_a_network_without_tokens_takes_none(both: Callable[[str], Both], name: str) -> None:
    _, _, backbone = both(name)
    assert isinstance(backbone.image_tower, ImageExtractor)
    with pytest.raises(ValueError, match="promptable"):
        backbone.encode_patches(
            torch.zeros(1, 1, backbone.image_tower.width),
            Injection(image_tokens=(torch.zeros(2, backbone.image_tower.width),)),
        )
