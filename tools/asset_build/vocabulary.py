"""Words: the tokenizer, the templates, and the captions beside the names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from asset_build.concepts import HELD_OUT_GROUP, Concept, normalise
from asset_build.meanings import Word
from promptot.files.writing import atomic_write

PIECES = 8000
CONTEXT_LENGTH = 48

TEMPLATES = (
    "a photo of a {}.",
    "a photo of a {}.",
    "{}.",
    "{}",
    "a drawing of a {}.",
    "a picture of the {}.",
    "an icon of a {}.",
    "a photo of {}.",
    "a sketch of a {}.",
    "an emoji of {}.",
    "this is a {}.",
)
"""Templates of the pretraining; the first, CLIP's own, is there twice so that it comes up most."""

GROUP_CAPTIONS = {
    "animals": "animal or plant",
    "food": "food",
    "travel": "place or vehicle",
    "activities": "sport or game",
    "objects": "object",
    "smileys": "face",
    "people": "person or body part",
    "symbols": "symbol",
}
TEMPLATES_WEIGHT = 400
NAMES_WEIGHT = 20


def train_tokenizer(concepts: list[Concept], words: Sequence[Word], path: Path) -> None:
    """A byte-level BPE on the templates, the drawings' names and all words, by their frequency."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["[SOS]", "[EOS]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(concepts, words), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[SOS] $A [EOS]", special_tokens=[("[SOS]", 0), ("[EOS]", 1)]
    )
    with atomic_write(path) as temporary:
        tokenizer.save(str(temporary), pretty=False)


def captions(concepts: list[Concept]) -> dict[str, set[str]]:
    """Caption → slugs of the concepts it fits: keywords, subgroups and groups.

    Concepts that are held out of the pretraining are left out; captions that fit more than a
    quarter of all concepts say too little and are dropped.
    """
    fits: dict[str, set[str]] = {}
    for concept in concepts:
        if concept.group == HELD_OUT_GROUP:
            continue
        sub = re.sub(r"^(animal|plant|food|place|transport|person|face)-", "", concept.subgroup)
        for word in (*concept.words, sub.replace("-", " "), GROUP_CAPTIONS[concept.group]):
            if re.fullmatch(r"[a-zA-Z][a-zA-Z' -]+", word):
                fits.setdefault(word.lower(), set()).add(concept.slug)
    limit = len(concepts) / 4
    names = {normalise(concept.name) for concept in concepts}
    return {
        word: slugs
        for word, slugs in fits.items()
        if len(slugs) <= limit and (normalise(word) not in names or len(slugs) > 1)
    }


def _corpus(concepts: list[Concept], words: Sequence[Word]) -> Iterator[str]:
    for template in TEMPLATES:
        for _ in range(TEMPLATES_WEIGHT):
            yield template.replace("{}", "")
    for concept in concepts:
        for _ in range(NAMES_WEIGHT):
            yield concept.name
    for word in words:
        for _ in range(1 + round(word.frequency)):
            yield word.text
