"""Tokenizers of transformers, of the class that a model's folder names; no code of it is run."""

from __future__ import annotations

import importlib.util
import string
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers.normalizers import Lowercase

from promptot.backbones.tokenizer import leading_tokens
from promptot.errors import PromptotError

_CLASSES = {
    "CLIPTokenizer": "CLIPTokenizerFast",
    "SiglipTokenizer": "SiglipTokenizer",
    "Siglip2Tokenizer": "Siglip2Tokenizer",
    "GemmaTokenizer": "GemmaTokenizerFast",
    "XLMRobertaTokenizer": "XLMRobertaTokenizerFast",
    "PreTrainedTokenizer": "PreTrainedTokenizerFast",
    "TokenizersBackend": "PreTrainedTokenizerFast",
}
"""What a folder names (without "Fast") → a class that exists in transformers 4 and 5."""
_SENTENCEPIECE = ("sentencepiece", "google.protobuf")


class TransformersTokenizer:
    """A tokenizer of transformers.

    Args:
        tokenizer: it.
        lower: whether texts are written in lower case first, character by character.
    """

    def __init__(self, tokenizer: Any, lower: bool = False) -> None:
        self._tokenizer = tokenizer
        self._lower = Lowercase() if lower else None
        self.pad = int(tokenizer.pad_token_id or 0)
        self.unknown: int | None = tokenizer.unk_token_id

    def encode(self, text: str) -> list[int]:
        if self._lower is not None:
            text = self._lower.normalize_str(text)
        ids: list[int] = self._tokenizer(text, padding=False, truncation=False, verbose=False)[
            "input_ids"
        ]
        return ids


def tokenizer_class(config: Mapping[str, Any], known: Sequence[str], source: str) -> Any:
    """The class of transformers that reads a folder's tokenizer.

    Args:
        config: its tokenizer_config.json; {} where there is none.
        known: names that are supported for this model, without "Fast". If there is but one, that is
            taken whatever is named.

    Raises:
        PromptotError: another class is named, or one that lacks a library.
    """
    import transformers

    named = str(config.get("tokenizer_class"))
    name = named.removesuffix("Fast") if len(known) > 1 else known[0]
    if name not in known:
        raise PromptotError(
            f"The tokenizer '{named}' of '{source}' is not supported for this model.",
            fix=f"Save the model's own tokenizer beside it: {', '.join(known)}.",
        )
    lacking = [library for library in _SENTENCEPIECE if not _is_there(library)]
    if name == "SiglipTokenizer" and lacking:
        raise PromptotError(
            f"The tokenizer of '{source}' needs {' and '.join(lacking)}.",
            fix="pip install sentencepiece protobuf",
        )
    found = getattr(transformers, _CLASSES[name], None)
    if found is None:
        raise PromptotError(
            f"transformers {transformers.__version__} has no {name}, which '{source}' needs.",
            fix="pip install -U transformers",
        )
    return found


def check_words(tokenizer: Any) -> None:
    """Raise where no words are told apart: without a vocabulary transformers 5 makes one up.

    Raises:
        ValueError: there is none, or one of special tokens alone.
    """
    special = len(tokenizer) <= len(set(tokenizer.all_special_ids))
    if special or tokenizer("cat")["input_ids"] == tokenizer("dog")["input_ids"]:
        raise ValueError("its tokenizer knows no words, so files of it are missing")


def check_size(tokenizer: Any, vocabulary: int, source: str) -> None:
    """Refuse a tokenizer of another model.

    Raises:
        PromptotError: it has more tokens than the model.
    """
    if len(tokenizer) > vocabulary:
        raise PromptotError(
            f"The tokenizer in '{source}' has {len(tokenizer)} tokens and does not belong to the "
            f"model, which knows {vocabulary}.",
            fix="Save the model's own tokenizer beside it.",
        )


def read_at_end(tokenizer: Any, read_at: int, source: str) -> TransformersTokenizer:
    """For a model that reads a text at the token `read_at`, the last one.

    Raises:
        PromptotError: the tokenizer ends a text with another one, or begins it with none.
    """
    ours = TransformersTokenizer(tokenizer)
    ends = ours.encode("a")[-1]
    if ends != read_at:
        raise PromptotError(
            f"The model in '{source}' reads a text at the token {read_at}, and its tokenizer ends "
            f"one with {ends}.",
            fix="Save the model's own tokenizer beside it, or correct eos_token_id in the text "
            "configuration.",
        )
    if not leading_tokens(ours):
        raise PromptotError(
            f"The tokenizer in '{source}' puts no token before a text, as the model's own does.",
            fix="Save the model's own tokenizer beside it.",
        )
    return ours


def read_padded(tokenizer: Any, source: str) -> TransformersTokenizer:
    """For SigLIP, which was trained with "text, end, padding …" in lower case.

    Tokenizers that keep upper case (Gemma's) are handed lower case.

    Raises:
        PromptotError: the tokenizer begins or ends a text otherwise, or fills it up otherwise.
    """
    keeps = _ids(tokenizer, string.ascii_uppercase) != _ids(tokenizer, string.ascii_lowercase)
    ours = TransformersTokenizer(tokenizer, lower=keeps)
    problems = {
        "ends no text with its end token": ours.encode("a")[-1] != tokenizer.eos_token_id,
        "puts a token before every text": leading_tokens(ours) > 0,
        "has no token to fill texts up": tokenizer.pad_token_id is None,
        "fills texts up at their beginning": tokenizer.padding_side != "right",
    }
    for problem, there in problems.items():
        if there:
            raise PromptotError(
                f"The tokenizer in '{source}' {problem}, and the model was trained otherwise.",
                fix="Save the model's own tokenizer beside it; its tokenizer_config.json says "
                "add_bos_token, add_eos_token, pad_token and padding_side.",
            )
    return ours


def _ids(tokenizer: Any, text: str) -> Any:
    return tokenizer(text, verbose=False)["input_ids"]


def _is_there(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
