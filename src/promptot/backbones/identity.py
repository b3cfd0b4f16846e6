"""What decides a backbone's function: its weights, and everything that is done with them.

Equal weights are not an equal function: with GELU in place of QuickGELU, other heads, another crop
or another tokenizer they give other features. So whatever is kept for later (adapters, features,
finished cells, interrupted runs) is known by a `FunctionIdentity`. It is read from the modules, the
tokenizer and the preprocessing as they are, never from what a loader was told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Protocol

from torch import Tensor, nn

SCHEME = 1
"""Raise it when a change to promptot gives the same backbone another function."""

PREPROCESS = "preprocess."
"""What the names in `function` start with that say how images are prepared."""

CLEANING = "tokenizer.cleaning"
"""The one name in `function` that an adapter does not depend on, see `describe_tokenizer`."""

Value = bool | int | float | str | None | list[Any]

_OWN = "promptot."
_PLAIN = (bool, int, float, str, type(None))
_IGNORED = {"training", "inplace", "recompute"}  # of a module; they change no result
_LATER = {"norms": "before"}  # settings that came later, with what every module had before


class Encoder(Protocol):
    """A tokenizer, see `promptot.backbones.tokenizer`."""

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class FunctionIdentity:
    """What a backbone's features depend on, beside the image or the text.

    Attributes:
        weights: SHA-256 of the weights as they were loaded, 64 hex digits.
        function: what is done with them, by names that stay: `image.activation`, `image.pool`,
            `text.context_length`, `tokenizer.words`, `preprocess.resolution` and so on. A value
            that is not the same in all blocks is a list with one for each.
        structure: SHA-256 of the kinds, settings and number formats of all modules, the unnamed
            ones included. Another version of a library may change it, so it decides what is
            computed again, never what may be loaded.
        precision: "fp32", "bf16" or "fp16".
    """

    weights: str
    function: Mapping[str, Value]
    structure: str
    precision: str

    @property
    def digest(self) -> str:
        """All of it as 64 hex digits: the name under which results are kept."""
        decides = [SCHEME, self.weights, dict(self.function), self.structure, self.precision]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def describe_function(
    towers: Mapping[str, nn.Module], preprocess: Any, tokenizer: Mapping[str, str]
) -> dict[str, Value]:
    """The `function` of a `FunctionIdentity`.

    Args:
        towers: "image" and "text".
        preprocess: a dataclass; each of its fields counts, whatever it is called.
        tokenizer: as `describe_tokenizer` gives it.
    """
    found: dict[str, Value] = {}
    for name, tower in towers.items():
        found |= {f"{name}.{key}": value for key, value in _describe_tower(tower).items()}
    found |= {f"tokenizer.{key}": value for key, value in tokenizer.items()}
    found |= {
        f"{PREPROCESS}{field.name}": _plain(getattr(preprocess, field.name))
        for field in fields(preprocess)
    }
    return found


def _describe_tower(tower: nn.Module) -> dict[str, Value]:
    """Settings by name, over all modules; one value where they agree, else one for each."""
    collected: dict[str, list[Value]] = {}
    for module in tower.modules():
        for name, value in _named_settings(module).items():
            collected.setdefault(name, []).append(value)
    found: dict[str, Value] = {
        name: values[0] if all(value == values[0] for value in values) else values
        for name, values in collected.items()
    }
    if hasattr(tower, "ln_pre"):
        found["pre_norm"] = not isinstance(tower.ln_pre, nn.Identity)
    if hasattr(tower, "projection_bias"):
        found["projection_bias"] = tower.projection_bias is not None
    return found


def _named_settings(module: nn.Module) -> dict[str, Value]:
    """Of our own modules every public setting, so that new ones count too; of norms the ε."""
    if isinstance(module, nn.LayerNorm):
        return {"norm_eps": module.eps}
    if not type(module).__module__.startswith(_OWN):
        return {}
    return _settings(module)


def _settings(module: nn.Module) -> dict[str, Value]:
    return {
        name: _plain(value)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in _IGNORED
        and _is_plain(value)
        and (name not in _LATER or value != _LATER[name])
    }


def describe_structure(model: nn.Module) -> str:
    """The `structure` of a `FunctionIdentity`: every module's place, kind, settings and dtypes."""
    known = [
        [
            place,
            type(module).__name__,
            _as_before(_settings(module)) if place else {},
            [(name, str(tensor.dtype)) for name, tensor in _own_tensors(module)],
        ]
        for place, module in model.named_modules()
    ]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _as_before(settings: dict[str, Value]) -> dict[str, Value]:
    """CLIP's two activations as earlier versions stored them, so that what is kept stays known."""
    quick = {"gelu": False, "quick_gelu": True}.get(str(settings.get("activation")))
    if quick is None:
        return settings
    return {
        ("quick" if name == "activation" else name): value for name, value in settings.items()
    } | {"quick": quick}


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for tensors in (module._parameters, module._buffers):  # the public way is ten times as slow
        yield from ((name, tensor) for name, tensor in tensors.items() if tensor is not None)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _plain(value: Any) -> Value:
    """A value as JSON gives it back; what JSON does not know, by its text."""
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value if isinstance(value, _PLAIN) else str(value)


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], *, ignored: Sequence[str] = (CLEANING,)
) -> list[str]:
    """The names under which two functions differ, as far as both know them.

    Names that only one of them has were not known to the version that wrote the other.
    """
    return [
        name
        for name in one
        if name in other and name not in ignored and _plain(one[name]) != _plain(other[name])
    ]


def describe_tokenizer(tokenizer: Encoder) -> dict[str, str]:
    """What a tokenizer does, as hashes.

    The same byte-pair encoding comes in several classes, so the class says nothing, and the text
    that goes in and the ids that come out say it all. Libraries agree on ordinary text and not on
    what they clean away before it ("&amp;", ligatures, typographic quotes), so both are told apart:

    - `words`: the ids of ordinary words, numbers and sentences, and of made-up words;
    - `vocabulary`: tokens and merges, where the tokenizer has tables that can be read. Tokens are
      sorted by their ids and special ones go without their spelling;
    - `cleaning`: the ids of unusual text. It decides about cached results, but not whether an
      adapter may be used: its class names are ordinary text.
    """
    found = {
        "words": _hash([_ids(tokenizer, text) for text in _ordinary()]),
        "cleaning": _hash([_ids(tokenizer, text) for text in _UNUSUAL]),
    }
    tables = _tables(tokenizer)
    if tables is not None:
        tokens, merges = tables
        special = set(_ids(tokenizer, ""))
        lines = [f"{i} {token}" for token, i in tokens.items() if i not in special]
        digest = hashlib.sha256("\n".join(sorted(lines)).encode("utf8", "surrogatepass"))
        digest.update("\n".join(["", "", *merges]).encode("utf8", "surrogatepass"))
        found["vocabulary"] = digest.hexdigest()
    return found


def _ids(tokenizer: Encoder, text: str) -> list[int] | str:
    try:
        return tokenizer.encode(text)
    except Exception as error:  # what it can't read is a way to treat it
        return type(error).__name__


def _tables(tokenizer: Any) -> tuple[dict[str, int], list[str]] | None:
    """Tokens with their ids, and merges ("t h") in their order; None where none can be read."""
    bpe: Any = getattr(tokenizer, "_bpe", None)  # open_clip's
    if hasattr(bpe, "encoder") and hasattr(bpe, "bpe_ranks"):
        return bpe.encoder, list(map(" ".join, sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.get)))
    backend: Any = getattr(tokenizer, "_backend", None)  # the `tokenizers` library's, or around it
    backend = getattr(getattr(tokenizer, "_tokenizer", None), "backend_tokenizer", backend)
    if not hasattr(backend, "to_str"):
        return None
    model = json.loads(backend.to_str()).get("model", {})
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocabulary, dict) or not isinstance(merges, list):
        return None
    return vocabulary, [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@cache
def _ordinary() -> tuple[str, ...]:
    """Fixed texts on which tokenizers of one vocabulary agree; they must never change."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    made = []
    for number in range(_MADE_UP):
        drawn = hashlib.sha256(f"word {number}".encode()).digest()
        # the square of a number in 0..1 leans to the frequent letters
        made.append(
            "".join(letters[byte * byte * 26 >> 16] for byte in drawn[1 : 3 + drawn[0] % 9])
        )
    lines = [" ".join(made[start : start + 20]) for start in range(0, _MADE_UP, 20)]
    return ("", *_SENTENCES, *lines)


_MADE_UP = 1000

_SENTENCES = (
    "a photo of a cat.",
    "A Photo Of A CAT.",
    "a photo of the small hot dog, a type of food.",
    "a centered satellite photo of annual crop land.",
    "itap of a great white shark.",
    "art of the st. bernard (dog).",
    "a bad photo of a boeing 737-800, a type of aircraft.",
    "2012 tesla model s sedan",
    "don't, it's, we're, they've, i'm, she'll, he'd",
    "0 1 2 3 4 5 6 7 8 9 10 21 432 8765",
    "! \" # $ % ' ( ) * + , - . / : ; < = > ? @ [ ] ^ _ ` { | } ~",
    "café naïve señor über garçon",
    "apple banana beetle bicycle bridge butterfly camera castle chair clock cloud dolphin eagle "
    "elephant fire forest fountain guitar hammer helicopter horse iguana jellyfish kangaroo "
    "kitchen ladder lighthouse lion mountain mushroom notebook orchid owl palace penguin piano "
    "rabbit red panda river sailboat scissors snail sunflower teapot tiger trombone umbrella "
    "violin volcano watch whale windmill zebra",
    "abyssinian airliner anemone baklava bougainvillea chrysanthemum dalmatian espresso "
    "fritillary gladiolus honeycombed interlaced juggling keeshond lacelike marigold "
    "newfoundland osteospermum paisley quesadilla risotto samoyed tiramisu unicycle vinaigrette "
    "wheaten xylophone yorkshire zigzagged",
    "surrealism photography neurological entrepreneurship constitutional refrigerator "
    "environmentally championship undergraduate telecommunications",
)

_UNUSUAL = (
    "  two   blanks ",
    "tab\tand\nline",
    "AT&amp;T &lt;b&gt; &amp;amp;",
    "\u201cquoted\u201d it\u2019s",
    "cafe\u0301",
    "\ufb01sh \uff21\uff22 \u00bd \u2460",
    "\u00e2\u20ac\u2122",
    "\u65e5\u672c \u4e2d\u6587 \ud55c\uad6d",
    "\u0391\u0398\u0397\u039d\u0391 \u041c\u041e\u0421\u041a\u0412\u0410 \u0130stanbul stra\u00dfe",
    "\U0001f642\U0001f43c\ufe0f",
    "zero\u200bwidth\u00a0space",
    "<start_of_text> <end_of_text>",
    "<|startoftext|> <|endoftext|>",
    "a" * 60,
)
