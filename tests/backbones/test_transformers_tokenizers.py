"""Tokenizers of transformers: which are read, in which letters, and how texts are filled up."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from saved_families import NAMES, save_file, save_gemma, save_metaclip_2, save_siglip, save_xlm

from promptot.backbones import load_backbone
from promptot.backbones.loaders.transformers_tokenizers import (
    TransformersTokenizer,
    read_at_end,
    read_padded,
    tokenizer_class,
)
from promptot.errors import PromptotError

TEXTS = [*NAMES, "A PHOTO of a Zebra!", "[EOS] (x)", "İΣ — ÀÉ 12,5 %", "  two  spaces ", ""]


def read(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_gemma_s_is_handed_lower_case(tmp_path: Path) -> None:
    """What plain Gemma tokens transformers gives for a SigLIP 2 are those of upper case."""
    save_gemma(tmp_path)
    theirs = read(tmp_path)
    ours = read_padded(theirs, "x")
    for text in TEXTS:
        assert ours.encode(text) == theirs("".join(map(str.lower, text)))["input_ids"]
    assert ours.encode("Dogs") != theirs("Dogs")["input_ids"]
    assert ours.encode("Dogs") == ours.encode("dogs")
    assert ours.pad == 0


def test_siglip_2_s_own_writes_in_lower_case_itself(tmp_path: Path) -> None:
    if not hasattr(transformers, "Siglip2Tokenizer"):
        pytest.skip("newer versions of transformers have it")
    save_gemma(tmp_path / "plain")
    save_gemma(tmp_path / "own", "Siglip2Tokenizer")
    theirs = transformers.Siglip2Tokenizer.from_pretrained(tmp_path / "own")
    ours, plain = read_padded(theirs, "x"), read_padded(read(tmp_path / "plain"), "x")
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"] == plain.encode(text)


@pytest.mark.parametrize("kind", ["spiece", "file"])
def test_siglip_s_own_cleans_texts_itself(kind: str, tmp_path: Path) -> None:
    save_siglip(tmp_path, kind)
    ours, theirs = load_backbone(f"hf:{tmp_path}", "cpu").tokenizer, read(tmp_path)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"]
    assert ours.encode("Hot-Dog (red)!") == ours.encode("hotdog red")
    assert ours.pad == theirs.pad_token_id == 1


def test_what_a_file_cuts_and_fills_is_not_done(tmp_path: Path) -> None:
    """Files of the Hub hold the length that their makers encoded with."""
    save_gemma(tmp_path)
    before = read_padded(read(tmp_path), "x")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst",
                             "stride": 0}  # fmt: skip
    content["padding"] = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_id": 0,
                          "pad_to_multiple_of": None, "pad_type_id": 0,
                          "pad_token": "<pad>"}  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    after = read_padded(read(tmp_path), "x")
    for text in TEXTS:
        assert after.encode(text) == before.encode(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "$A"}, "ends no text with its end token"),
        ({"layout": "<bos> $A <eos>"}, "puts a token before every text"),
        ({"padding_side": "left"}, "fills texts up at their beginning"),
    ],
)
def test_a_tokenizer_that_lays_texts_out_otherwise_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_gemma(tmp_path, **changes)
    with pytest.raises(PromptotError, match=f"{message}, and the model was trained otherwise"):
        read_padded(read(tmp_path), "x")


def test_one_without_padding_is_refused(tmp_path: Path) -> None:
    save_file(tmp_path)
    theirs = read(tmp_path)
    theirs.pad_token = None
    with pytest.raises(PromptotError, match="has no token to fill texts up"):
        read_padded(theirs, "x")


def test_one_of_another_model_is_refused(tmp_path: Path) -> None:
    save_siglip(tmp_path, "gemma", text={"vocab_size": 300})
    with pytest.raises(PromptotError, match="does not belong to the model, which knows 300"):
        load_backbone(f"hf:{tmp_path}")
    with pytest.raises(PromptotError, match="'T5TokenizerFast' of 'x' is not supported"):
        tokenizer_class({"tokenizer_class": "T5TokenizerFast"}, ("SiglipTokenizer", "B"), "x")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else find(name)
    )
    with pytest.raises(PromptotError) as caught:
        tokenizer_class({"tokenizer_class": "SiglipTokenizer"}, ("SiglipTokenizer", "B"), "x")
    assert caught.value.problem == "The tokenizer of 'x' needs sentencepiece."
    assert caught.value.fix == "pip install sentencepiece protobuf"


def test_code_of_a_repository_is_not_run(tmp_path: Path) -> None:
    save_siglip(tmp_path, "gemma")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["own.Words", None]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')\n")
    with pytest.raises(PromptotError, match=r"needs code of its own \(own.Words\)"):
        load_backbone(f"hf:{tmp_path}")
    assert not (tmp_path / "made").exists()


def test_metaclip_2_is_read_where_its_tokenizer_ends_a_text(tmp_path: Path) -> None:
    save_metaclip_2(tmp_path)
    backbone, theirs = load_backbone(f"hf:{tmp_path}", "cpu"), read(tmp_path)
    for text in TEXTS:
        assert backbone.tokenizer.encode(text) == theirs(text)["input_ids"]
    assert backbone.tokenizer.encode("Dogs") != backbone.tokenizer.encode("dogs")
    with pytest.raises(PromptotError, match="holds a token that marks"):
        backbone.tokenize(["cat </s> dog"])
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PromptotError, match="reads a text at the token 7, and its tokenizer ends"):
        load_backbone(f"hf:{tmp_path}")


def test_a_causal_text_begins_with_a_token(tmp_path: Path) -> None:
    save_file(tmp_path / "file")
    with pytest.raises(PromptotError, match="puts no token before a text"):
        read_at_end(read(tmp_path / "file"), 1, "x")
    save_xlm(tmp_path / "xlm")
    assert isinstance(read_at_end(read(tmp_path / "xlm"), 2, "x"), TransformersTokenizer)
