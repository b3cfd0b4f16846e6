"""Make `src/promptot/backbones/catalogue.yaml`, the facts that `promptot backbones` shows.

    git clone https://github.com/mlfoundations/open_clip
    python tools/make_catalogue.py open_clip

Parameters, resolutions and what can learn are worked out from the configurations of the installed
open_clip; the figures are read from the documents of its repository (the argument, a checkout; `git
show` reads them, so that a bare repository will do). Licences, and the figures that only a model's
makers publish, can't be computed: each stands below with where it was read. What has no source
stays out of the file.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import yaml
from open_clip.pretrained import get_pretrained_cfg

from promptot.backbones import load_backbone
from promptot.backbones.catalogue import FACTS
from promptot.backbones.loaders.bundled_clip import ASSETS, list_bundled
from promptot.backbones.loaders.open_clip_models import build_model
from promptot.backbones.loaders.open_clip_towers import read_image
from promptot.files.writing import write_text

TARGET = Path(__file__).parents[1] / "src/promptot/backbones/catalogue.yaml"
RESULTS = "docs/openclip_results.csv"
BYTES = 4  # of a parameter in fp32

SOURCES = {
    "configuration": "The architecture's configuration in open_clip_torch {version}; parameters "
    "are counted on the model built from it, without weights.",
    "results": "github.com/mlfoundations/open_clip, docs/openclip_results.csv at commit {commit}. "
    "The row is that of the same weights with the activation they were trained with.",
    "readme": "github.com/mlfoundations/open_clip, table of README.md at commit {commit}.",
    "computed": "About: parameters × 4 bytes (fp32). Compared with the file listings on the "
    "Hugging Face hub of ViT-B-32/openai (605 MB), ViT-B-16/openai (599 MB), "
    "ViT-L-14/datacomp_xl_s13b_b90k (1.71 GB), ViT-B-16-SigLIP/webli (813 MB) and "
    "coca_ViT-L-14/laion2b_s13b_b90k (2.55 GB). A file in half precision is half as large.",
    "package": "Measured on the file in this package.",
    "project": "The licence of this project; what the model was made from is in its card, "
    "src/promptot/assets/tiny/CARD.md.",
    "openai": "LICENSE of github.com/openai/CLIP, which publishes the weights. The copy on the "
    "hub that open_clip downloads names apache-2.0 in its card.",
    "open_clip": "LICENSE of github.com/mlfoundations/open_clip, which publishes the weights "
    "among its releases.",
    "open_clip-docs": "github.com/mlfoundations/open_clip, docs/PRETRAINED.md at commit {commit}.",
    "card": "The model's card on the Hugging Face hub when it was read; licences change, so look "
    "there.",
    "card-copy": "A copy of the model's card on the Hugging Face hub.",
    "metaclip": "LICENSE of github.com/facebookresearch/MetaCLIP, which publishes the weights.",
    "big_vision": "README of github.com/google-research/big_vision, section License.",
    "siglip2": "github.com/google-research/big_vision, README_siglip2.md in "
    "big_vision/configs/proj/image_text at commit 0127fb6, column 'INet 0-shot': measured by its "
    "makers, with their own prompts.",
    "google": "Those of open_clip's model of this name: both libraries converted Google's weights.",
    "name": "The number at the end of its name.",
    "metaclip2": "github.com/facebookresearch/MetaCLIP, README.md at commit f47f784, column Res.",
    "perception_models": "apps/pe/README.md of github.com/facebookresearch/perception_models.",
    "pe": "github.com/facebookresearch/perception_models, apps/pe/README.md at commit 3e352cc, "
    "column 'IN-1k': measured by its makers, with their own prompts.",
    "mobileclip": "github.com/apple/ml-mobileclip, README.md at commit 4144bb1: measured by its "
    "makers, with their own prompts.",
    "card-architecture": "As the model's card on the Hugging Face hub names its architecture; "
    "parameters are counted on open_clip's model of that name, without weights.",
    "ml-mobileclip": "README and LICENSE_MODELS of github.com/apple/ml-mobileclip.",
}

MIT_CARDS = (
    "CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
    "CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
    "CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    "CLIP-ViT-B-32-DataComp.S-s13M-b4K",
    "CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
    "CLIP-ViT-B-32-laion2B-s34B-b79K",
    "CLIP-ViT-B-16-laion2B-s34B-b88K",
    "CLIP-ViT-g-14-laion2B-s12B-b42K",
    "CLIP-ViT-bigG-14-laion2B-39B-b160k",
    "CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k",
    "CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k",
    "CoCa-ViT-L-14-laion2B-s13B-b90k",
    "CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup",
    "CLIP-ViT-B-16-CommonPool.L-s1B-b8K",
    "CLIP-ViT-B-16-CommonPool.L.clip-s1B-b8K",
    "CLIP-ViT-B-16-CommonPool.L.text-s1B-b8K",
    "CLIP-ViT-B-32-CommonPool.M.text-s128M-b4K",
    "CLIP-ViT-B-32-CommonPool.S.image-s13M-b4K",
    "CLIP-ViT-B-32-CommonPool.S.laion-s13M-b4K",
    "CLIP-ViT-B-32-CommonPool.S.text-s13M-b4K",
    "CLIP-ViT-B-32-CommonPool.S.basic-s13M-b4K",
)
CARDS = {f"laion/{name}": ("MIT", "card") for name in MIT_CARDS} | {
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": ("MIT", "card-copy"),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": ("MIT", "card-copy"),
    "apple/DFN2B-CLIP-ViT-B-16": ("apple-sample-code-license", "card"),
    "apple/DFN2B-CLIP-ViT-L-14": ("apple-sample-code-license", "card"),
    "apple/DFN2B-CLIP-ViT-L-14-39B": ("apple-sample-code-license", "card"),
    "apple/DFN5B-CLIP-ViT-H-14": ("apple-sample-code-license", "card"),
    "apple/DFN5B-CLIP-ViT-H-14-378": ("apple-amlr", "card"),
}
LICENCES: Sequence[tuple[str, str, str]] = (  # pattern of "<arch>/<tag>", licence, source
    (r".*/openai$", "MIT", "openai"),
    (r".*/metaclip.*", "CC-BY-NC-4.0", "metaclip"),
    (r"EVA0.*", "MIT", "open_clip-docs"),
    (r"nllb-.*", "CC-BY-NC", "open_clip-docs"),
    (r".*-CLIPA(-\d+)?/.*", "Apache-2.0", "open_clip-docs"),
    (r".*-SigLIP2.*", "Apache-2.0", "big_vision"),
    (r"ViT-.*-SigLIP[-/].*", "Apache-2.0", "open_clip-docs"),
    (r"PE-Core-.*", "Apache-2.0", "perception_models"),
    (r"MobileCLIP.*", "Apple ML Research Model TOU", "ml-mobileclip"),
)
MAKERS: dict[str, tuple[float, str]] = {  # pair → top-1 on ImageNet as its makers publish it
    "ViT-B-32-SigLIP2-256/webli": (74.0, "siglip2"),
    "ViT-B-16-SigLIP2/webli": (78.2, "siglip2"),
    "ViT-B-16-SigLIP2-256/webli": (79.1, "siglip2"),
    "ViT-B-16-SigLIP2-384/webli": (80.6, "siglip2"),
    "ViT-B-16-SigLIP2-512/webli": (81.2, "siglip2"),
    "ViT-L-16-SigLIP2-384/webli": (83.1, "siglip2"),
    "ViT-L-16-SigLIP2-512/webli": (83.5, "siglip2"),
    "ViT-SO400M-14-SigLIP2/webli": (83.2, "siglip2"),
    "ViT-SO400M-16-SigLIP2-256/webli": (83.4, "siglip2"),
    "ViT-SO400M-16-SigLIP2-512/webli": (84.3, "siglip2"),
    "ViT-gopt-16-SigLIP2-256/webli": (84.5, "siglip2"),
    "PE-Core-T-16-384/meta": (62.1, "pe"),
    "PE-Core-S-16-384/meta": (72.7, "pe"),
    "PE-Core-B-16/meta": (78.4, "pe"),
    "MobileCLIP-B/datacompdr_lt": (77.2, "mobileclip"),
}
RELEASES = "github.com/mlfoundations/open_clip/releases"

README_PAIRS = {  # model column of the README's table → pair, for those that RESULTS lacks
    "ViT-L-14 [(DFN)]": "ViT-L-14/dfn2b_s39b",
    "ViT-L-16-256 [(SigLIP2)]": "ViT-L-16-SigLIP2-256/webli",
    "PE-Core-L-14-336 [(PE)]": "PE-Core-L-14-336/meta",
    "ViT-SO400M-16-SigLIP2-384 [(SigLIP2)]": "ViT-SO400M-16-SigLIP2-384/webli",
    "ViT-gopt-16-SigLIP2-384 [(SigLIP2)]": "ViT-gopt-16-SigLIP2-384/webli",
    "PE-Core-bigG-14-448 [(PE)]": "PE-Core-bigG-14-448/meta",
}

MULTILINGUAL = re.compile(r"xlm-roberta|nllb|i18n|SigLIP2|worldwide")
PURPOSES = {
    "start": "To try everything in seconds.",
    "small": "Small machines: little work an image.",
    "photographs": "Photographs, with names in English.",
    "accuracy": "As accurate as it gets; mind the size.",
    "papers": "Comparing with papers about prompt learning.",
    "languages": "Names in many languages.",
    "medicine": "Medical images, with the words of the field.",
    "biology": "Living things, with their scientific names.",
}
RECOMMENDED: dict[str, tuple[str, str]] = {  # name → purpose and reason, best first
    "bundled:tiny": (
        "start",
        "Small: drawings, and most things in photographs; nothing to download.",
    ),
    "open_clip:ViT-B-32/datacomp_xl_s13b_b90k": ("small", "A third of a ViT-B/16's work."),
    "open_clip:ViT-B-32-256/datacomp_s34b_b86k": (
        "small",
        "Nearly as good as a ViT-B/16, for less than half its work.",
    ),
    "open_clip:ViT-B-32-SigLIP2-256/webli": (
        "small",
        "Better still for as few patches; its many languages make the download large.",
    ),
    "open_clip:ViT-B-16/datacomp_xl_s13b_b90k": ("photographs", "The first choice."),
    "open_clip:ViT-B-16-SigLIP2-256/webli": (
        "photographs",
        "As good as a ViT-L/14, for a third of its work an image; texts cost more.",
    ),
    "open_clip:ViT-L-14/datacomp_xl_s13b_b90k": (
        "photographs",
        "Better; four times the work of a ViT-B/16.",
    ),
    "open_clip:PE-Core-L-14-336/meta": ("accuracy", "The smallest of the strongest."),
    "open_clip:ViT-SO400M-16-SigLIP2-384/webli": ("accuracy", "Reads many languages too."),
    "open_clip:PE-Core-bigG-14-448/meta": ("accuracy", "The highest here; for a large GPU."),
    "open_clip:ViT-B-16/openai": ("papers", "What most papers about prompt learning use."),
    "open_clip:RN50/openai": ("papers", "What CoOp began with."),
    "open_clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k": (
        "languages",
        "Little work an image; trained on LAION-5B.",
    ),
    "open_clip:ViT-B-16-SigLIP2/webli": ("languages", "More accurate in English."),
    "open_clip:ViT-H-14-worldwide/metaclip2_worldwide": (
        "languages",
        "Trained on data of the whole world; not for commercial use.",
    ),
    "open_clip:hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224": (
        "medicine",
        "Of 15 million figures in articles; its card leaves any deployed use out of scope.",
    ),
    "open_clip:hf-hub:imageomics/bioclip": ("biology", "Of 450,000 taxa, from OpenAI's ViT-B/16."),
    "open_clip:hf-hub:imageomics/bioclip-2": ("biology", "Of more images; a ViT-L/14."),
}
VERIFICATIONS = {
    "open_clip": "tests/backbones/test_every_open_clip.py: on random weights of this "
    "architecture's configuration at small sizes, image and text features are equal to those of "
    "open_clip's own model; of one architecture of each kind also with prompts, and the prompts' "
    "gradients. The published weights and tokenizers are no part of it: `promptot backbones check "
    "NAME` compares those on a machine that has them.",
    "transformers": "tests/backbones/test_transformers_models.py for CLIP, "
    "test_transformers_families.py beside it for SigLIP and MetaCLIP 2: on random weights at small "
    "sizes, image and text features are equal to those of transformers' own model of this kind. "
    "The published weights are no part of it: see `promptot backbones check NAME`.",
    "weights": "tests/backbones/test_check.py: on these weights, features, tokens and pixels are "
    "equal to those of a plain computation that shares no code with the towers.",
}
HUB: Sequence[tuple[str, str | None, str | None]] = (  # repository, architecture, tokenizer
    ("microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", None, "transformers"),
    ("imageomics/bioclip", "ViT-B-16", None),
    ("imageomics/bioclip-2", "ViT-L-14", None),
)
"""Models with a repository of their own; open_clip's architecture, where their card names one."""
HF = {  # repository of a transformers CLIPModel → the open_clip pair of the same weights
    "openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "openai/clip-vit-base-patch16": "ViT-B-16/openai",
    "openai/clip-vit-large-patch14": "ViT-L-14/openai",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336/openai",
}
HF_NEWER: dict[str, tuple[str, float | None]] = {
    # repository → open_clip's pair of the same weights, and what their makers measured. The two
    # libraries may read images and texts in other ways, so these are no names of one function.
    "google/siglip-base-patch16-224": ("ViT-B-16-SigLIP/webli", None),
    "google/siglip-so400m-patch14-384": ("ViT-SO400M-14-SigLIP-384/webli", None),
    "google/siglip2-base-patch16-224": ("ViT-B-16-SigLIP2/webli", 78.2),
    "google/siglip2-base-patch16-256": ("ViT-B-16-SigLIP2-256/webli", 79.1),
    "google/siglip2-large-patch16-256": ("ViT-L-16-SigLIP2-256/webli", 82.5),
    "google/siglip2-so400m-patch16-384": ("ViT-SO400M-16-SigLIP2-384/webli", 84.1),
    "facebook/metaclip-2-worldwide-huge-quickgelu": (
        "ViT-H-14-worldwide-quickgelu/metaclip2_worldwide",
        None,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("open_clip", type=Path, help="a clone of open_clip's repository")
    parser.add_argument("--out", type=Path, default=TARGET)
    arguments = parser.parse_args()
    text = catalogue(arguments.open_clip)
    write_text(arguments.out, text)
    print(f"{text.count('- {name')} backbones in {arguments.out}")


def catalogue(repository: Path) -> str:
    """The file's text; one line a backbone, so that a change shows as a line."""
    commit = _git(repository, "rev-parse", "--short", "HEAD").strip()
    sources = {
        key: text.format(commit=commit, version=open_clip.__version__)
        for key, text in SOURCES.items()
    }
    head = {
        "open_clip": open_clip.__version__,
        "sources": sources,
        "purposes": PURPOSES,
        "verifications": VERIFICATIONS,
    }
    lines = [
        "# Made by tools/make_catalogue.py. A figure without a source is left out; the source of",
        "# each stands in `sources` of its row, by the keys below.",
        yaml.safe_dump(head, allow_unicode=True, sort_keys=False, width=98).rstrip(),
        "backbones:",
    ]
    for row in (*_bundled(), *_open_clip(repository)):
        flow = yaml.safe_dump(
            row, allow_unicode=True, sort_keys=False, default_flow_style=True, width=10**6
        )
        lines.append(f"- {flow.rstrip()}")
    return "\n".join(lines) + "\n"


def _bundled() -> Iterator[dict[str, Any]]:
    for name in list_bundled():
        backbone = load_backbone(f"bundled:{name}")
        size = (ASSETS / name / "model.safetensors").stat().st_size
        yield _row(
            f"bundled:{name}",
            parameters=(sum(p.numel() for p in backbone.parameters()), "package"),
            resolution=(backbone.preprocess.resolution, "package"),
            download=(size, "package"),
            licence=("Apache-2.0", "project"),
            verified_by="weights",
        )


def _open_clip(repository: Path) -> Iterator[dict[str, Any]]:
    results = _results(repository)
    readme = _readme(repository)
    counts: dict[str, int | None] = {}
    prompts: dict[str, bool] = {}
    rows: dict[str, dict[str, Any]] = {}
    for architecture, tag in open_clip.list_pretrained():
        if architecture not in counts:
            counts[architecture] = _count(architecture)
            prompts[architecture] = _takes_tokens(architecture)
        pair = f"{architecture}/{tag}"
        settings = get_pretrained_cfg(architecture, tag)
        twin = _twin(architecture, tag, settings)
        quick = pair if architecture.endswith("-quickgelu") else f"{architecture}-quickgelu/{tag}"
        same = [quick, pair, twin] if settings.get("quick_gelu") else [pair]
        measured = next((results[key] for key in same if key in results), None)
        parameters: tuple[int, str] | None = None
        if counts[architecture] is not None:
            parameters = (int(counts[architecture] or 0), "configuration")
        elif measured is not None:
            parameters = (round(1e6 * float(measured["params (M)"])), "results")
        accuracy: tuple[float, str] | None = None
        if measured is not None:
            accuracy = (round(100 * float(measured["ImageNet 1k"]), 2), "results")
        elif pair in readme:
            accuracy = (readme[pair], "readme")
        else:
            accuracy = MAKERS.get(pair)
        rows[pair] = _row(
            f"open_clip:{pair}",
            parameters=parameters,
            resolution=(_resolution(architecture), "configuration"),
            download=None if parameters is None else (BYTES * parameters[0], "computed"),
            gflops=None if measured is None else (float(measured["FLOPs (B)"]), "results"),
            imagenet=accuracy,
            licence=_licence(pair, settings),
            multilingual=bool(MULTILINGUAL.search(architecture)),
            image_prompts=prompts[architecture],
            needs_transformers=_has_outside_tokenizer(architecture),
            verified_by="open_clip",
            same_as=f"open_clip:{twin}" if twin != pair else None,
        )
        yield rows[pair]
    yield from _hub(counts)
    for name, pair in HF.items():
        facts = {key: value for key, value in rows[pair].items() if key in FACTS}
        sources = {key: rows[pair]["sources"][key] for key in facts}
        yield {
            "name": f"hf:{name}", **facts, "sources": sources, "needs_transformers": True,
            "verified_by": "transformers", "same_as": f"open_clip:{pair}",
        }  # fmt: skip
    for name, (pair, accuracy) in HF_NEWER.items():
        yield _newer(name, rows[pair], accuracy)


def _hub(counts: dict[str, int | None]) -> Iterator[dict[str, Any]]:
    for repository, architecture, tokenizer in HUB:
        count = None if architecture is None else counts[architecture]
        side = 224 if architecture is None else _resolution(architecture)
        yield _row(
            f"open_clip:hf-hub:{repository}",
            parameters=None if count is None else (count, "card-architecture"),
            resolution=(side, "name" if architecture is None else "card-architecture"),
            download=None if count is None else (BYTES * count, "computed"),
            licence=("MIT", "card"),
            needs_transformers=tokenizer == "transformers",
        )


def _newer(name: str, pair: dict[str, Any], accuracy: float | None) -> dict[str, Any]:
    google = name.startswith("google/")
    counted = google and "parameters" in pair
    return _row(
        f"hf:{name}",
        parameters=(pair["parameters"], "google") if counted else None,
        resolution=(pair["resolution"], "google" if google else "metaclip2"),
        download=(pair["download"], "computed") if counted else None,
        imagenet=None if accuracy is None else (accuracy, "siglip2"),
        licence=(pair["licence"], pair["sources"]["licence"]),
        multilingual="multilingual" in pair,
        needs_transformers=True,
        verified_by="transformers",
    )


def _row(
    name: str,
    *,
    multilingual: bool = False,
    image_prompts: bool = True,
    needs_transformers: bool = False,
    verified_by: str | None = None,
    same_as: str | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """A backbone's line: facts with a source, each a pair (value, source)."""
    known = {key: facts[key] for key in FACTS if facts.get(key) is not None}
    row: dict[str, Any] = {"name": name, **{key: fact[0] for key, fact in known.items()}}
    row["sources"] = {key: fact[1] for key, fact in known.items()}
    if multilingual:
        row["multilingual"] = True
    if not image_prompts:
        row["image_prompts"] = False
    if needs_transformers:
        row["needs_transformers"] = True
    if verified_by is not None:
        row["verified_by"] = verified_by
    if same_as is not None:
        row["same_as"] = same_as
    if name in RECOMMENDED:
        row["purpose"], row["reason"] = RECOMMENDED[name]
    return row


def _takes_tokens(architecture: str) -> bool:
    """Whether its image tower is one of ours: the loader's answer, of a model without weights."""
    model = build_model(open_clip.get_model_config(architecture))
    return read_image(model.visual) is not None


def _has_outside_tokenizer(architecture: str) -> bool:
    return bool(open_clip.get_model_config(architecture)["text_cfg"].get("hf_tokenizer_name"))


def _twin(architecture: str, tag: str, settings: dict[str, Any]) -> str:
    """Where the same weights have two names, that without "-quickgelu"."""
    plain = architecture.removesuffix("-quickgelu")
    both = settings.get("quick_gelu") and get_pretrained_cfg(plain, tag)
    return f"{plain}/{tag}" if both else f"{architecture}/{tag}"


def _count(architecture: str) -> int | None:
    """Parameters of the model; None where its configuration lies on the hub."""
    config = open_clip.get_model_config(architecture)
    if "hf_model_name" in config["text_cfg"]:
        return None
    kind = open_clip.CLIP
    if config.pop("custom_text", False):
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        with torch.device("meta"):
            model = kind(**config)
    except (RuntimeError, NotImplementedError):  # a timm tower that computes while it is built
        model = kind(**config)
    return sum(parameter.numel() for parameter in model.parameters())


def _resolution(architecture: str) -> int:
    size = open_clip.get_model_config(architecture)["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def _licence(pair: str, settings: dict[str, Any]) -> tuple[str, str] | None:
    for pattern, licence, source in LICENCES:
        if re.fullmatch(pattern, pair):
            return licence, source
    repository = settings.get("hf_hub", "").rstrip("/")
    if repository in CARDS:
        return CARDS[repository]
    return ("MIT", "open_clip") if RELEASES in settings.get("url", "") else None


def _results(repository: Path) -> dict[str, dict[str, str]]:
    table = csv.DictReader(io.StringIO(_git(repository, "show", f"HEAD:{RESULTS}")))
    return {f"{row['name']}/{row['pretrained']}": row for row in table}


def _readme(repository: Path) -> dict[str, float]:
    found = {}
    for line in _git(repository, "show", "HEAD:README.md").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        for start, pair in README_PAIRS.items():
            if len(cells) > 5 and cells[1].startswith(start) and cells[5].endswith("%"):
                found[pair] = float(cells[5].rstrip("%"))
    return found


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
