"""Tokenizers that an open_clip configuration names: of a folder, of the cache, or downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptot.backbones.library_warnings import quiet
from promptot.backbones.loaders.open_clip_sources import unsupported
from promptot.backbones.loaders.transformers_tokenizers import check_words
from promptot.backbones.tokenizer import ClipTokenizer, Tokenizer
from promptot.errors import PromptotError

FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt",
    "vocab.json",
)  # fmt: skip
"""What holds a tokenizer's words, of which a folder has at least one."""
OPTIONS = ("clean", "strip_sep_token", "language", "additional_special_tokens")
"""Those of open_clip's tokenizers that a configuration may set."""


class HubTokenizer:
    """An open_clip `HFTokenizer`: a tokenizer of transformers behind open_clip's cleaning.

    Args:
        tokenizer: it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._cleaned = tokenizer.clean_fn
        self._tokenizer = tokenizer.tokenizer
        self.pad = int(tokenizer.tokenizer.pad_token_id)
        self.unknown: int | None = tokenizer.tokenizer.unk_token_id
        # CLIPA was trained with a zero where BERT ends a text.
        self._stripped = tokenizer.tokenizer.sep_token_id if tokenizer.strip_sep_token else None

    def encode(self, text: str) -> list[int]:
        cleaned = self._cleaned(text)
        ids: list[int] = self._tokenizer(cleaned, truncation=False, verbose=False)["input_ids"]
        return [0 if token == self._stripped else token for token in ids]


def load_tokenizer(text: Mapping[str, Any], folder: Path | None = None) -> Tokenizer:
    """The tokenizer of an open_clip `text_cfg`.

    Once it is in the cache of the Hugging Face hub, no network is asked for it. No code of a
    repository is run.

    Args:
        folder: of a local model, which holds its tokenizer's files itself.

    Raises:
        PromptotError: transformers is not installed, or the files can't be had.
    """
    import open_clip

    options = dict(text.get("tokenizer_kwargs") or {})
    strange = sorted({*options} - {*OPTIONS})
    if strange:
        raise unsupported(f"the tokenizer option '{strange[0]}'")
    name = text.get("hf_tokenizer_name")
    if not name:
        return ClipTokenizer(open_clip.SimpleTokenizer(**options))
    if text.get("tokenizer_mode"):
        raise unsupported(f"the tokenizer mode '{text['tokenizer_mode']}'")
    if importlib.util.find_spec("transformers") is None:
        raise PromptotError(
            "The tokenizer of this model needs transformers.",
            fix="pip install 'promptot[hf]'",
        )
    source = str(name if folder is None else folder)
    try:
        found = _find(source, options, name if folder is None else None)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        fix = (
            "The folder needs the tokenizer's files, as `save_pretrained` writes them."
            if folder is not None
            else f"Once with network access, run: hf download {name}"
        )
        raise PromptotError(
            f"The tokenizer '{source}' of this model could not be loaded: {reason}", fix=fix
        ) from error
    _check(found, source)
    return HubTokenizer(found)


def _find(source: str, options: Mapping[str, Any], repository: str | None) -> Any:
    """From the folder or the cache; else, of a repository, from the network."""
    if repository is None:
        if not any((Path(source) / file).is_file() for file in FILES):
            raise ValueError("there is no tokenizer.json")
        return _read(source, options, local_files_only=True)
    try:
        with quiet():  # what is said of files that are not there yet says nothing of the model
            return _read(source, options, local_files_only=True)
    except Exception:  # of many kinds, by version; then it is not, or not wholly, in the cache
        return _read(source, options)


def _read(source: str, options: Mapping[str, Any], **more: Any) -> Any:
    from open_clip.tokenizer import HFTokenizer

    found = HFTokenizer(source, **options, trust_remote_code=False, **more)
    check_words(found.tokenizer)
    return found


def _check(found: Any, source: str) -> None:
    inner = found.tokenizer
    if inner.pad_token_id is None or inner.padding_side != "right":
        raise PromptotError(
            f"The tokenizer '{source}' does not fill texts up at their end.",
            fix="Set its padding_side to 'right' and give it a pad_token.",
        )
    ends = inner("a")["input_ids"][-1:]
    if (
        inner.eos_token_id is not None
        and inner.sep_token_id is None
        and ends != [inner.eos_token_id]
    ):
        raise PromptotError(
            f"The tokenizer '{source}' does not end a text with its end token.",
            fix="Its tokenizer_config.json must add it, as the model's own does.",
        )
