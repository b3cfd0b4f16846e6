"""Every architecture of open_clip's pretrained weights, shrunk, with random weights.

The library builds each from its own configuration; only sizes differ. What a configuration takes
from a hub (tokenizers, text encoders) is made here, in the same formats.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

WIDTH, LAYERS, HEADS, EMBED = 32, 2, 2, 24
VOCABULARY = 512

# What timm's models are given beside their name. ViTamin's stem has its width, so its stays.
_TRUNKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("vitamin", {"depth": 2}),
    ("vit_base_mci", {"depth": 2}),
    ("fastvit", {"layers": (1, 1, 1, 1), "embed_dims": (32, 32, 64, 64)}),
    ("convnext", {"depths": (1, 1, 1, 1), "dims": (16, 16, 32, 32)}),
    ("eva", {"depth": 2, "embed_dim": WIDTH, "num_heads": HEADS}),
    ("vit_pe", {"depth": 2, "embed_dim": WIDTH, "num_heads": HEADS, "attn_pool_num_heads": HEADS}),
    ("vit_", {"depth": 2, "embed_dim": WIDTH, "num_heads": HEADS}),
)


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with small sizes."""
    small = deepcopy(config)
    vision, text = small["vision_cfg"], small["text_cfg"]
    small["embed_dim"] = EMBED
    if "timm_model_name" in vision:
        # a trunk without a projection gives features of its own width
        if vision["timm_proj"] == "none":
            small["embed_dim"] = WIDTH
        vision["image_size"] = side_of(vision["timm_model_name"])
    elif isinstance(vision["layers"], list):
        vision |= {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}
        vision["head_width"] = 64
    else:
        patch = vision["patch_size"]
        vision |= {"layers": LAYERS, "width": WIDTH, "head_width": WIDTH // HEADS}
        vision |= {"image_size": 3 * patch}
        if vision.get("attentional_pool"):
            vision["attn_pooler_heads"] = 4
            vision["attn_pooler_queries"] = 3
    text |= {"width": WIDTH, "heads": HEADS, "layers": LAYERS}
    if "hf_tokenizer_name" in text:
        text["vocab_size"] = VOCABULARY
    if "multimodal_cfg" in small:
        small["multimodal_cfg"] |= {"width": WIDTH, "heads": HEADS, "layers": 1, "vocab_size": 64}
    if text.get("proj_type") == "none":
        text["width"] = small["embed_dim"]
    return small


def side_of(trunk: str) -> int:
    """A small input side that a timm trunk takes."""
    if trunk.startswith(("vitamin", "vit_base_mci")):
        return 64
    if "patch14" in trunk:
        return 42
    return 96 if "patch32" in trunk else 64


@contextlib.contextmanager
def small_trunks() -> Iterator[None]:
    """timm's models are built small, whoever asks for them."""
    import timm

    create = timm.create_model

    def small(name: str, **options: Any) -> Any:
        own = next((own for start, own in _TRUNKS if name.startswith(start)), {})
        sized = {} if name.startswith(("fastvit", "convnext")) else {"img_size": side_of(name)}
        return create(name, **{**own, **sized, **options})

    timm.create_model = small
    try:
        yield
    finally:
        timm.create_model = create


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights of which each one counts: norms near one, biases, and matrices of a usual size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: Any) -> Tensor:
        return torch.randn(shape, generator=generator)

    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        if "running_var" in name:
            value.copy_(1 + 0.2 * draw(value.shape).abs())
        elif name.endswith("logit_scale"):
            value.fill_(2.5)
        elif name.endswith("logit_bias"):
            value.fill_(-10.0)
        elif value.dim() < 2:
            near = 1.0 if name.endswith("weight") or "gamma" in name else 0.0
            value.copy_(near + 0.1 * draw(value.shape))
        else:
            fan = value[0].numel()
            value.copy_(draw(value.shape) * (fan**-0.5 if "embed" not in name else 0.3))


def save_family(folder: Path, architecture: str) -> dict[str, Any]:
    """An architecture's shrunk configuration, with its tokenizer and text encoder in a folder."""
    config = shrink(open_clip.get_model_config(architecture))
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        place = folder / text["hf_tokenizer_name"].replace("/", "--")
        save_tokenizer(place, text["hf_tokenizer_name"])
        text["hf_tokenizer_name"] = str(place)
    if "hf_model_name" in text:
        place = folder / f"text-{text['hf_model_name'].replace('/', '--')}"
        save_text_config(place, text["hf_model_name"])
        text |= {"hf_model_name": str(place), "hf_model_pretrained": False}
    return config


def save_text_config(folder: Path, name: str) -> None:
    """The config.json of a small text encoder of the same kind as `name` is."""
    import transformers

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": 90}
    if "nllb" in name:
        sizes |= {"d_model": WIDTH, "activation_function": "relu"}
        for side in ("encoder", "decoder"):
            sizes |= {f"{side}_layers": LAYERS, f"{side}_attention_heads": HEADS}
            sizes |= {f"{side}_ffn_dim": 48}
        transformers.M2M100Config(**sizes).save_pretrained(folder)
        return
    kind = transformers.XLMRobertaConfig if "xlm" in name else transformers.RobertaConfig
    sizes |= {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    kind(**sizes, intermediate_size=48).save_pretrained(folder)


CORPUS = [
    "a photo of a cat, a dog and a great white shark.",
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "itap of a boeing 737-800, a type of aircraft",
    "Annual Crop Land seen from above; café, naïve, señor, 12345",
]


def save_tokenizer(folder: Path, name: str) -> None:
    """A small tokenizer of the same kind as `name` is, in transformers' format."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special: dict[str, str]
    if "SigLIP" in name:  # T5's pieces fill up with the token that ends; Gemma's with its first
        gemma = "SigLIP2" in name
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        if gemma:
            tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        order = ["<pad>", "</s>", "<unk>"] if gemma else ["<other>", "</s>", "<unk>"]
        special = {"pad_token": "<pad>" if gemma else "</s>", "eos_token": "</s>"}
        special["unk_token"] = "<unk>"
        form = "$A </s>"
    elif name.startswith("bert"):
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        order = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        special["unk_token"] = "[UNK]"
        form = "[CLS] $A [SEP]"
    else:
        plain = name.startswith("roberta")
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = (
            pre_tokenizers.ByteLevel(add_prefix_space=False)
            if plain
            else pre_tokenizers.Metaspace()
        )
        order = ["<s>", "<pad>", "</s>", "<unk>", "eng_Latn"]
        special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}
        special["unk_token"] = "<unk>"
        form = "eng_Latn $A </s>" if "nllb" in name else "<s> $A </s>"
    size = VOCABULARY - 20
    kinds = {"WordPiece": trainers.WordPieceTrainer, "BPE": trainers.BpeTrainer}
    trainer = kinds[type(tokenizer.model).__name__](
        vocab_size=size, special_tokens=order, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    named = [part for part in form.split() if part != "$A"]
    ids = [(part, tokenizer.token_to_id(part)) for part in named]
    tokenizer.post_processor = TemplateProcessing(single=form, special_tokens=ids)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
