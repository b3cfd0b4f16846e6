"""Small models of open_clip's families with random weights, in folders for `local-dir:`.

The library builds them of its own configurations, shrunk; tokenizers and text encoders that those
name on a hub are made here, in the formats of their libraries.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
from families import HEADS, LAYERS, VOCABULARY, WIDTH, randomise, shrink, small_trunks
from safetensors.torch import save_file

ARCHITECTURES = {
    "SigLIP": "ViT-B-16-SigLIP",
    "SigLIP 2": "ViT-B-16-SigLIP2",
    "EVA": "EVA02-B-16",
    "EVA, norms behind": "EVA02-E-14",
    "PE": "PE-Core-B-16",
    "CoCa": "coca_ViT-B-32",
    "ResNet": "RN50",
    "ConvNeXt": "convnext_base_w",
    "FastViT": "MobileCLIP2-S0",
    "ViTamin": "ViTamin-S",
    "hybrid": "MobileCLIP-B",
    "CLIPA": "ViT-L-14-CLIPA",
    "MetaCLIP 2": "ViT-H-14-worldwide",
    "RoBERTa": "roberta-ViT-B-32",
    "XLM-R": "xlm-roberta-base-ViT-B-32",
    "NLLB": "nllb-clip-base-siglip",
}
BIOMEDCLIP: dict[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {
        "timm_model_name": "vit_base_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": {
        "hf_model_name": "bert",
        "hf_tokenizer_name": "bert",
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 256,
    },
}
"""As in the `open_clip_config.json` of that model."""
KINDS = (*ARCHITECTURES, "BiomedCLIP")
_WORDS = ("a", "photo", "of", "the", "cat", "great", "white", "shark", "annual", "land")


def save_family(folder: Path, kind: str) -> str:
    """A folder with a small model of one of `KINDS`; its name for `load_backbone`."""
    folder.mkdir(parents=True, exist_ok=True)
    own = BIOMEDCLIP if kind == "BiomedCLIP" else open_clip.get_model_config(ARCHITECTURES[kind])
    config = shrink(own)
    text = config["text_cfg"]
    if "hf_model_name" in text:
        text["hf_model_name"] = str(_save_text_config(folder / "text", kind))
        text["hf_model_pretrained"] = False
        for name in ("vocab_size", "width", "heads", "layers"):
            del text[name]
    if "hf_tokenizer_name" in text:
        _save_tokenizer(folder, kind)
    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    model_kind = open_clip.CLIP
    if config.get("custom_text") or "hf_model_name" in text:
        model_kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    with small_trunks():
        model = model_kind(**arguments)
    randomise(model)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    squash = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    described = {"model_cfg": config, "preprocess_cfg": squash if "SigLIP" in kind else {}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return f"open_clip:local-dir:{folder}"


def _save_tokenizer(folder: Path, kind: str) -> None:
    """Words and letters; special tokens and the fill as the kind's own tokenizer has them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special, template = {
        "SigLIP": (["<unk>", "</s>"], "$A </s>"),
        "SigLIP 2": (["<pad>", "<eos>", "<unk>"], "$A <eos>"),
        "CLIPA": (["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "[CLS] $A [SEP]"),
        "BiomedCLIP": (["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "[CLS] $A [SEP]"),
        "NLLB": (["<s>", "<pad>", "</s>", "<unk>", "eng_Latn"], "eng_Latn $A </s>"),
    }.get(kind, (["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>"))
    letters = [chr(code) for code in range(33, 127)]
    pieces = dict.fromkeys([*special, *_WORDS, *letters, *(f"##{letter}" for letter in letters)])
    unknown = next(token for token in special if "unk" in token.lower())
    backend = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=unknown)
    )
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    used = [token for token in special if token in template.split()]
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, special.index(token)) for token in used]
    )
    pad = "</s>" if kind == "SigLIP" else next(t for t in special if "pad" in t.lower())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=unknown,
        pad_token=pad,
        eos_token=used[-1],
        sep_token=used[-1],
        padding_side="right",
    )
    tokenizer.save_pretrained(folder)


def _save_text_config(folder: Path, kind: str) -> Path:
    """The config.json of a text encoder of transformers."""
    import transformers

    if kind == "NLLB":
        config: Any = transformers.M2M100Config(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            encoder_layers=LAYERS,
            decoder_layers=1,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=2 * WIDTH,
            decoder_ffn_dim=2 * WIDTH,
            activation_function="relu",
            scale_embedding=True,
        )
    else:
        classes = {"XLM-R": "XLMRobertaConfig", "RoBERTa": "RobertaConfig"}
        config = getattr(transformers, classes.get(kind, "BertConfig"))(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=2 * WIDTH,
            max_position_embeddings=514 if "R" in kind else 512,
            type_vocab_size=2 if kind == "BiomedCLIP" else 1,
        )
    config.save_pretrained(folder)
    return folder
