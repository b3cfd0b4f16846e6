"""Small random models of transformers beside CLIP, with tokenizers in the formats of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers
from families import randomise
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from promptot.backbones.loaders.transformers_processors import processor_class

SENTENCES = (
    "a photo of a cat",
    "a photo of the red panda.",
    "a Boeing 737-800 over St. Bernard's hill, in blue",
    "hot dogs and great white sharks (many) swim",
    "¿dónde está la biblioteca? c'est à côté",
    "quick brown foxes jump over lazy dogs' vexing wizard",
)
NAMES = ("cat", "Hot Dog", "great white SHARK", "Boeing 737-800", "St. Bernard (dog)", "a Ж'")
VISION = {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2,
          "intermediate_size": 80, "image_size": 30, "patch_size": 10}  # fmt: skip
TEXT = {"hidden_size": 40, "num_attention_heads": 5, "num_hidden_layers": 3,
        "intermediate_size": 64, "max_position_embeddings": 64}  # fmt: skip


def save_siglip(folder: Path, tokenizer: str, **changes: dict[str, Any]) -> Any:
    """A SiglipModel for `hf:`; returns the library's model.

    Args:
        tokenizer: "spiece", "gemma", "siglip2" or "file".
        changes: of "vision" and "text".
    """
    size = TOKENIZERS[tokenizer](folder)
    vision, text = VISION | changes.get("vision", {}), TEXT | changes.get("text", {})
    text = {"vocab_size": size, "projection_size": vision["hidden_size"]} | text
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    return _save(folder, transformers.SiglipModel(config), "SiglipImageProcessor", vision)


def save_metaclip_2(folder: Path, activation: str = "quick_gelu") -> Any:
    """A MetaClip2Model for `hf:`; returns the library's model."""
    special = {"vocab_size": save_xlm(folder), "eos_token_id": 2, "bos_token_id": 0}
    config = transformers.MetaClip2Config(
        text_config=TEXT | {"max_position_embeddings": 77, "hidden_act": activation, **special},
        vision_config=VISION | {"hidden_act": activation},
        projection_dim=24,
    )
    return _save(folder, transformers.MetaClip2Model(config), "CLIPImageProcessor", VISION)


def _save(folder: Path, model: Any, processor: str, vision: dict[str, Any]) -> Any:
    randomise(model)
    model.eval().save_pretrained(folder)
    side = vision["image_size"]
    size: dict[str, Any] = {"size": {"height": side, "width": side}, "resample": 2}
    if processor == "CLIPImageProcessor":
        square = {"height": side, "width": side}
        size = {"size": {"shortest_edge": side}, "crop_size": square}
    processor_class(processor)(**size).save_pretrained(folder)
    return model


def save_spiece(folder: Path) -> int:
    """SigLIP's own: a sentencepiece model with T5's special tokens; how many tokens it has."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([text.lower() for text in SENTENCES]),
            model_writer=file,
            vocab_size=70,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    _configure(
        folder,
        "SiglipTokenizer",
        {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"},
        do_lower_case=True,
        model_max_length=64,
        sp_model_kwargs={},
    )
    return 70


def save_gemma(
    folder: Path, kind: str = "GemmaTokenizer", layout: str = "$A <eos>", **changes: Any
) -> int:
    """SigLIP 2's: Gemma's byte-pair encoding, which knows upper case."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(SENTENCES * 2, trainers.BpeTrainer(vocab_size=120))
    model = json.loads(trained.to_str())["model"]
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{n:02X}>" for n in range(256))]
    words = sorted(model["vocab"], key=model["vocab"].get)
    vocabulary = {token: number for number, token in enumerate([*names, *words])}
    merges = [tuple(each.split(" ") if isinstance(each, str) else each) for each in model["merges"]]
    whole = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    whole.normalizer = normalizers.Replace(" ", "▁")
    whole.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    whole.post_processor = processors.TemplateProcessing(
        single=layout, special_tokens=[("<eos>", 1), ("<bos>", 2)]
    )
    whole.add_special_tokens(names[:5])
    _write(whole, folder)
    _configure(
        folder,
        kind,
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
         "mask_token": "<mask>"},
        **{"add_bos_token": "<bos>" in layout, "add_eos_token": "<eos>" in layout,
           "do_lower_case": True, "padding_side": "right", "model_input_names": ["input_ids"],
           **changes},
    )  # fmt: skip
    return len(vocabulary)


def save_siglip2(folder: Path) -> int:
    """The same, of the class that writes in lower case itself."""
    if not hasattr(transformers, "Siglip2Tokenizer"):
        pytest.skip("newer versions of transformers have it")
    return save_gemma(folder, "Siglip2Tokenizer")


def save_file(folder: Path) -> int:
    """A tokenizer.json that cleans texts as SigLIP's own tokenizer does."""
    whole = _unigram(["<pad>", "</s>", "<unk>"], [text.lower() for text in SENTENCES])
    whole.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    whole.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    _write(whole, folder)
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    _configure(folder, "PreTrainedTokenizerFast", special, model_input_names=["input_ids"])
    return int(whole.get_vocab_size())


def save_xlm(folder: Path) -> int:
    """MetaCLIP 2's: XLM-V's pieces between <s> and </s>."""
    whole = _unigram(["<s>", "<pad>", "</s>", "<unk>"], SENTENCES)
    whole.add_special_tokens(["<mask>"])
    whole.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    _write(whole, folder)
    names = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>",
             "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}  # fmt: skip
    _configure(folder, "XLMRobertaTokenizer", names)
    return int(whole.get_vocab_size())


TOKENIZERS = {
    "spiece": save_spiece,
    "gemma": save_gemma,
    "siglip2": save_siglip2,
    "file": save_file,
}


def _unigram(special: list[str], sentences: Sequence[str]) -> Tokenizer:
    whole = Tokenizer(models.Unigram())
    whole.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    whole.train_from_iterator(sentences, trainer)
    return whole


def _write(whole: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole.save(str(folder / "tokenizer.json"))


def _configure(folder: Path, kind: str, special: dict[str, str], **more: Any) -> None:
    config = {"tokenizer_class": kind, **special, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
