"""Every architecture of open_clip's pretrained weights, shrunk, with random weights.

The library builds each from its own configuration; only sizes differ. What a configuration takes
from a hub (tokenizers, text encoders) is made here, in the same formats.
"""

from __future__ import annotations

import contextlib
import re
import string
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from promptot.backbones import Backbone, load_backbone

WIDTH, LAYERS, HEADS, EMBED = 64, 2, 2, 48
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
    """A small tokenizer of the same kind as `name` is, in transformers' format; always the same."""
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
        order = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        tokenizer = Tokenizer(models.WordPiece(_pieces(order), unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
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
    if isinstance(tokenizer.model, models.BPE):
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY - 20, special_tokens=order, show_progress=False
        )
        tokenizer.train_from_iterator(CORPUS * 3, trainer)
    named = [part for part in form.split() if part != "$A"]
    ids = [(part, tokenizer.token_to_id(part)) for part in named]
    tokenizer.post_processor = TemplateProcessing(single=form, special_tokens=ids)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def _pieces(special: list[str]) -> dict[str, int]:
    """WordPiece's vocabulary of the corpus: its short words, and its characters."""
    words = re.findall(r"\w+", " ".join(CORPUS).lower())
    characters = sorted(set("".join(words)) | set(string.ascii_lowercase + string.punctuation))
    short = sorted({word for word in words if 1 < len(word) < 6})
    pieces = [*special, *characters, *(f"##{character}" for character in characters), *short]
    return {piece: i for i, piece in enumerate(pieces)}


class Families:
    """A tag's model and transform by open_clip's own factory, and our backbone; made when asked.

    Args:
        folder: where their files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[Any, Any, Backbone]] = {}

    def __call__(self, name: str) -> tuple[Any, Any, Backbone]:
        """The library's model (its `tokenizer` beside it), its transform, and ours."""
        if name not in self._known:
            architecture, _, tag = name.rpartition("/")
            with self.offline(architecture, tag):
                described = open_clip.get_pretrained_cfg(architecture, tag)
                model, _, transform = open_clip.create_model_and_transforms(
                    architecture, pretrained=tag, pretrained_hf=False,
                    force_quick_gelu=described.get("quick_gelu", False),
                )  # fmt: skip
                model.tokenizer = open_clip.get_tokenizer(architecture)
                self._known[name] = model.eval(), transform, load_backbone(f"open_clip:{name}")
        return self._known[name]

    @contextlib.contextmanager
    def offline(self, architecture: str, tag: str) -> Iterator[None]:
        """open_clip finds the shrunk architecture, and weights where it would download them."""
        with pytest.MonkeyPatch.context() as patch, small_trunks():
            config = save_family(self.folder, architecture)
            patch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, config)
            file = self.folder / f"{architecture}.safetensors"
            for module in (open_clip, open_clip.factory, open_clip.pretrained):
                patch.setattr(module, "download_pretrained", lambda *_, **__: str(file))
            if not file.exists():
                made = open_clip.create_model(architecture, pretrained_hf=False)
                randomise(made)
                save_file({k: v.contiguous() for k, v in made.state_dict().items()}, file)
            yield


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
    "ViT-B-16/laion2b_s34b_b88k",
)
"""One of each kind of tower and tokenizer."""
WITHOUT_TOKENS = ("RN", "convnext", "MobileCLIP-S", "MobileCLIP2-S")
"""What architectures begin with whose image tower takes no prompts."""
QUICK = (
    "RN50/", "coca_ViT-B-32/", "roberta-ViT-B-32/", "EVA02-B-16/", "EVA02-E-14/",
    "ViT-B-16-SigLIP/", "ViT-L-14-CLIPA/", "PE-Core-B-16/",
)  # fmt: skip
"""Those that differ in what a design meets: pooling, masks, rotation, start tokens, a bias."""
