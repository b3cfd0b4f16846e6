"""What files that people have bring with them: half precision, missing files, old names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from families import Families, save_tokenizer
from safetensors.torch import load_file, save_file

from promptot.backbones import Backbone, load_backbone
from promptot.backbones.injection import Injection
from promptot.backbones.loaders.hub_tokenizers import load_tokenizer
from promptot.backbones.loaders.hugging_face_text import read_hugging_face_text
from promptot.data.name_warnings import same_tokens
from promptot.errors import PromptotError


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Families:
    return Families(tmp_path_factory.mktemp("families"))


def in_half(families: Families, name: str) -> tuple[Any, Backbone]:
    """The library's model and ours, of one file in fp16."""
    architecture, _, tag = name.rpartition("/")
    with families.offline(architecture, tag):
        file = families.folder / f"{architecture}.safetensors"
        whole = load_file(file)
        save_file({k: v.half() if v.is_floating_point() else v for k, v in whole.items()}, file)
        model = open_clip.create_model(
            architecture, pretrained=tag, pretrained_hf=False,
            force_quick_gelu=open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu"),
        )  # fmt: skip
        backbone = load_backbone(f"open_clip:{name}")
        save_file(whole, file)
    return model.eval(), backbone


@pytest.mark.parametrize(
    "name", ["RN50/openai", "coca_ViT-B-32/laion2b_s13b_b90k", "ViT-B-16-SigLIP/webli"]
)
@torch.no_grad()
def test_weights_in_half_precision_are_computed_in_fp32(families: Families, name: str) -> None:
    model, backbone = in_half(families, name)
    side = backbone.preprocess.resolution
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = F.normalize(model.encode_image(images), dim=-1)
    assert (backbone.encode_image(images) - expected).abs().max() < 1e-5


def test_a_tokenizer_without_its_vocabulary_is_never_used(tmp_path: Path) -> None:
    """transformers 5 makes one up of the special tokens: every word would be the same."""
    save_tokenizer(tmp_path / "whole", "facebook/xlm-v-base")
    whole = load_tokenizer({"hf_tokenizer_name": "x"}, tmp_path / "whole")
    assert whole.encode("cat") != whole.encode("dog")
    (tmp_path / "whole" / "tokenizer.json").unlink()
    with pytest.raises(PromptotError, match="could not be loaded"):
        load_tokenizer({"hf_tokenizer_name": "x"}, tmp_path / "whole")


def test_names_that_a_model_reads_as_nothing_are_refused(families: Families) -> None:
    _, _, backbone = families("ViT-B-16-SigLIP/webli")
    for name in ("\u732b", "\U0001f43c\ufe0f", "???"):
        with pytest.raises(PromptotError, match="reads nothing"):
            backbone.tokenize([name])
    assert backbone.tokenize(["caf\u00e9"]).classes == 1


def test_names_that_a_model_reads_alike_are_found(families: Families) -> None:
    """SigLIP's cleaning drops punctuation and case."""
    _, _, backbone = families("ViT-B-16-SigLIP/webli")
    assert same_tokens(["dog", "C#", "c"], backbone.tokenizer.encode) == [("C#", "c")]


def text_weights(kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    import transformers

    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        vocab_size=64, max_position_embeddings=40,
    )  # fmt: skip
    state = transformers.BertModel(config).state_dict()
    return config.to_dict(), {f"transformer.{key}": value for key, value in state.items()}


class Marks:
    pad = 0

    def encode(self, text: str) -> list[int]:
        return [2, *(5 + ord(c) % 50 for c in text), 3]


def test_a_text_encoder_of_old_files_and_defaults() -> None:
    config, state = text_weights("bert")
    state["proj.weight"] = torch.randn(24, 32)
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for key, value in state.items()
    }
    part = read_hugging_face_text(old, config, {"hf_proj_type": "linear"}, 24, Marks())
    assert part.shape.pool == "mean"  # open_clip's default where nothing is said
    assert not part.shape.pooler
    said = {"hf_proj_type": "linear", "hf_pooler_type": None}
    assert read_hugging_face_text(old, config, said, 24, Marks()).shape.pooler  # BERT's own
    del old["transformer.embeddings.word_embeddings.weight"]
    with pytest.raises(PromptotError, match="lack 'embeddings.word_embeddings.weight'"):
        read_hugging_face_text(old, config, said, 24, Marks())
    strange = {**state, "transformer.adapter.weight": torch.ones(2)}
    with pytest.raises(PromptotError, match="the weights adapter.weight"):
        read_hugging_face_text(strange, config, said, 24, Marks())


@pytest.mark.parametrize(
    "name", ["coca_ViT-B-32/laion2b_s13b_b90k", "ViT-B-16-SigLIP/webli", "nllb-clip-base/v1"]
)
def test_the_estimate_of_memory_is_what_a_step_keeps(families: Families, name: str) -> None:
    """Bytes that autograd saves for the backward pass, each memory once, beside the estimate."""
    _, _, backbone = families(name)
    tower = backbone.text_tower
    names = [f"dog {number}" for number in range(40)]
    packed = backbone.pack_names(backbone.tokenize_names(names, 3))
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(3, tower.width, generator=generator).requires_grad_()
    injection = Injection((context,))
    constants = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    kept: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constants:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        features = tower.encode(packed, injection)
    estimate = tower.activation_bytes(packed, injection, 1)
    assert features.requires_grad
    assert 0.6 * sum(kept.values()) < estimate < 1.6 * sum(kept.values())


def test_a_folder_names_what_is_missing(tmp_path: Path, families: Families) -> None:
    """The configuration of a text encoder that was not saved beside the model."""
    config = json.loads(json.dumps(open_clip.get_model_config("roberta-ViT-B-32")))
    config["text_cfg"] |= {"hf_model_name": str(tmp_path / "none")}
    save_tokenizer(tmp_path, "roberta-base")
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    )
    with pytest.raises(PromptotError, match="folder of the text tower"):
        load_backbone(f"open_clip:local-dir:{tmp_path}")
