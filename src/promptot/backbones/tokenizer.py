"""Tokenizers: a text in, its token ids from [SOS] to [EOS] out."""

from __future__ import annotations

import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from promptot.errors import PromptotError

MOST_WORDS, LONGEST_WORD = 2**15, 256
"""Words whose tokens are remembered (about 10 MB), and characters of one."""


class Tokenizer(Protocol):
    """What a backbone needs of a tokenizer."""

    @property
    def pad(self) -> int:
        """The token that fills a text up."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, [EOS] last, without padding or truncation.

        Where the model has one, [SOS] is first.
        """
        ...


def leading_tokens(tokenizer: Tokenizer) -> int:
    """How many tokens begin every text, 0 or 1.

    Example:
        >>> leading_tokens(ClipTokenizer())
        1
    """
    one, other = tokenizer.encode("a"), tokenizer.encode("zebra")
    empty = tokenizer.encode("")
    return int(bool(empty) and one[0] == other[0] == empty[0] and len(empty) > 1)


def open_clip_module(name: str) -> Any:
    """A module of open_clip that needs nothing of the rest, without importing the rest.

    `import open_clip` brings torchvision, timm and every model: seconds, and 0.3 GB of memory.
    """
    loaded = sys.modules.get(f"open_clip.{name}")
    if loaded is not None:
        return loaded
    package = importlib.util.find_spec("open_clip")
    assert package is not None, "open_clip_torch is a dependency of this package"
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"promptot._open_clip_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RecentWords(OrderedDict[str, str]):
    """What open_clip's tokenizer remembers of words: the last ones used, and those it began with.

    By itself it remembers every word that it ever met.

    Args:
        always: what it began with; never forgotten.
        most: how many others are remembered.
    """

    def __init__(self, always: Mapping[str, str] | None = None, most: int = MOST_WORDS) -> None:
        super().__init__()
        self.most = most
        self.always = dict(always or {})
        self.update(self.always)

    def __getitem__(self, word: str) -> str:
        pieces = super().__getitem__(word)
        self.move_to_end(word)
        return pieces

    def __setitem__(self, word: str, pieces: str) -> None:
        if len(word) > LONGEST_WORD:
            return
        super().__setitem__(word, pieces)
        while len(self) > self.most + len(self.always):
            oldest = next(iter(self))
            if oldest in self.always:
                self.move_to_end(oldest)
            else:
                del self[oldest]


class ClipTokenizer:
    """CLIP's byte-pair encoding (49,408 tokens), as open_clip ships it.

    Args:
        bpe: an open_clip `SimpleTokenizer`, by default a new one.
        words: how many words it remembers.

    Example:
        >>> ClipTokenizer().encode("a photo of a cat.")
        [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    """

    pad = 0

    def __init__(self, bpe: Any = None, words: int = MOST_WORDS) -> None:
        self._bpe = open_clip_module("tokenizer").SimpleTokenizer() if bpe is None else bpe
        self._bpe.cache = RecentWords(self._bpe.cache, words)

    def encode(self, text: str) -> list[int]:
        return [self._bpe.sot_token_id, *self._bpe.encode(text), self._bpe.eot_token_id]


class FileTokenizer:
    """A tokenizer in the `tokenizers` library's JSON format, special tokens included.

    Args:
        path: the JSON file; its post-processor must add [SOS] and [EOS].
    """

    pad = 0

    def __init__(self, path: str | Path) -> None:
        from tokenizers import Tokenizer as Backend

        self._backend = Backend.from_file(str(path))
        self._backend.no_padding()
        self._backend.no_truncation()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text).ids
        return ids


def tokenize_template(
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    template: str,
    context_length: int,
    starts: int = 1,
) -> list[list[int]]:
    """Token ids of `template` filled with each class name, for a tower without learned context.

    Args:
        template: a text with one "{}" for the class name.
        starts: tokens that begin every text, 0 or 1.

    Raises:
        PromptotError: the template has no "{}", a name is empty, or a text is longer than
            the tower's context or holds the token that ends one.
    """
    if template.count("{}") != 1:
        raise PromptotError(
            f"The template {template!r} must contain '{{}}' once.",
            fix="Write it like 'a photo of a {}.'.",
        )
    texts = [template.replace("{}", name) for name in class_names]
    sequences = [tokenizer.encode(text) for text in texts]
    where = f"The template {template!r}"
    return _checked(tokenizer, class_names, sequences, where, 0, context_length, starts)


def tokenize_names(
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    context_tokens: int,
    context_length: int,
    fixed_words: str = "",
    starts: int = 1,
) -> list[list[int]]:
    """Token ids of "<fixed words> <class name>.", for a tower with learned context before them.

    They are those that the text has behind other words: some tokenizers (RoBERTa's) have other
    tokens for a word that begins a text.

    Args:
        context_tokens: how many learned tokens will be inserted.
        fixed_words: words between the learned context and the class name, such as "of a".
        starts: tokens that begin every text, 0 or 1; the context goes behind them.

    Raises:
        PromptotError: a name is empty, too long for the tower's context, or holds the token that
            ends a text.
    """
    before = f"{fixed_words} " if fixed_words else ""
    ahead = _words_ahead(tokenizer, starts)
    sequences = []
    for name in class_names:
        text = f"{before}{name}."
        if ahead:
            ids = tokenizer.encode(f"{_WORD} {text}")
            sequences.append(ids[:starts] + ids[starts + ahead :])
        else:
            sequences.append(tokenizer.encode(text))
    where = f"The context {fixed_words!r}" if fixed_words else "The learned context"
    return _checked(
        tokenizer, class_names, sequences, where, context_tokens, context_length, starts
    )


_WORD = "a"


def _words_ahead(tokenizer: Tokenizer, starts: int) -> int:
    """How many tokens `_WORD` has, where a text behind it is not what it is alone; else 0."""
    count = len(tokenizer.encode(_WORD)) - len(tokenizer.encode(""))
    behind = tokenizer.encode(f"{_WORD} zebra")[starts + count :]
    return 0 if behind == tokenizer.encode("zebra")[starts:] else count


def _reads_nothing(tokenizer: Tokenizer, name: str, sequence: Sequence[int], starts: int) -> bool:
    """Whether a tokenizer leaves out all characters of a name, or knows none of them."""
    unknown = getattr(tokenizer, "unknown", None)
    marks = {*sequence[:starts], sequence[-1]}  # CLIP's unknown token is the one that ends a text
    if unknown is not None and unknown not in marks and unknown in sequence:
        return {*tokenizer.encode(name)} <= {*tokenizer.encode(_NO_CHARACTER)}
    return not any(map(str.isalnum, name)) and len(tokenizer.encode(name)) <= starts + 1


_NO_CHARACTER = "\ue000"  # of private use: in no vocabulary


def _checked(
    tokenizer: Tokenizer,
    class_names: Sequence[str],
    sequences: Sequence[list[int]],
    where: str,
    context_tokens: int,
    context_length: int,
    starts: int,
) -> list[list[int]]:
    """Token ids of texts, one a class name, that `context_tokens` more are to be added to."""
    for number, (name, sequence) in enumerate(zip(class_names, sequences, strict=True), start=1):
        if not name.strip():
            raise PromptotError(
                f"Class name number {number} is empty.", fix="Give every class a name."
            )
        if _reads_nothing(tokenizer, name, sequence, starts):
            script = any(map(str.isalnum, name))
            raise PromptotError(
                f"Of the class name '{name}' this model reads nothing: its tokenizer "
                f"{'knows no such' if script else 'leaves out such'} characters.",
                fix="Write it in words"
                + (
                    " of a language that the model was trained in, or use a model for many "
                    "languages: promptot backbones --for languages"
                    if script
                    else "."
                ),
            )
        ends = {*sequence[:starts], sequence[-1]}  # a model would read only as far as one of them
        if not ends.isdisjoint(sequence[starts:-1]):
            own = not ends.isdisjoint(tokenizer.encode(name)[starts:-1])
            raise PromptotError(
                f"{f'The class {name!r}' if own else where} holds a token that marks the start or "
                "the end of a text for this model.",
                fix="Leave out marks such as '<|endoftext|>', '<end_of_text>' or '[EOS]'.",
            )
        length = len(sequence) + context_tokens
        if length > context_length:
            others = length - (len(tokenizer.encode(name)) - len(tokenizer.encode("")))
            if others >= context_length:
                raise PromptotError(
                    f"{_short(where)} alone needs {others} tokens, and this backbone's text tower "
                    f"takes {context_length}.",
                    fix="Lower prompts.text_tokens." if context_tokens else "Shorten it.",
                )
            raise PromptotError(
                f"The class name '{_short(name)}' needs {length} tokens, and this backbone's text "
                f"tower takes {context_length}.",
                fix=f"Shorten it by {length - context_length} tokens or more"
                f"{', or lower prompts.text_tokens' if context_tokens else ''}.",
            )
    return list(sequences)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
