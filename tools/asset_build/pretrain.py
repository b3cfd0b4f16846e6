"""Contrastive pretraining of the small CLIP on cached trunk features, on one core."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from asset_build.concepts import HELD_OUT_GROUP, TASK_GROUPS, Concept
from asset_build.trunk import ARCHITECTURE, Head, load_trunk
from asset_build.vocabulary import (
    CONTEXT_LENGTH,
    PIECES,
    TEMPLATES,
    captions,
    imagenet_names,
)
from promptot.backbones.architecture import (
    Architecture,
    ImageShape,
    TextShape,
    TransformerShape,
    build_towers,
)
from promptot.backbones.image_tower import ImageTower
from promptot.backbones.packing import PackedText, pack
from promptot.backbones.text_tower import TextTower
from promptot.backbones.tokenizer import FileTokenizer, tokenize_template

TOKENS = 25  # 160 px through a trunk of stride 32


@dataclass(frozen=True)
class Settings:
    """Everything that a training run depends on besides its data."""

    seed: int = 1
    image_width: int = 192
    text_width: int = 160
    embed_dim: int = 256
    layers: int = 4
    batch: int = 512
    steps: int = 2200
    lr: float = 1e-3
    warmup: int = 60
    weight_decay: float = 0.1
    label_smoothing: float = 0.1
    token_dropout: float = 0.3
    mixstyle: float = 0.5
    other_weight: float = 0.3
    caption_weight: float = 0.2
    distill_weight: float = 0.2
    words_a_step: int = 256
    ema: float = 0.998
    bf16: bool = True


def architecture(settings: Settings) -> Architecture:
    """Shape of the small CLIP."""

    def shape(width: int) -> TransformerShape:
        return TransformerShape(width, settings.layers, width // 32, 4 * width, "gelu")

    return Architecture(
        embed_dim=settings.embed_dim,
        image=ImageShape(shape(settings.image_width), patches=TOKENS, trunk=ARCHITECTURE),
        text=TextShape(
            shape(settings.text_width), vocabulary=PIECES, context_length=CONTEXT_LENGTH
        ),
    )


class SmallClip(nn.Module):
    """Both towers and the logit scale, fed with stored trunk features instead of images."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        trunk = load_trunk()
        self.image_tower: ImageTower
        self.text_tower: TextTower
        self.image_tower, self.text_tower = build_towers(architecture(settings))
        weights = {k: v for k, v in trunk.state_dict().items() if not k.startswith("classifier")}
        self.image_tower.stem.trunk.load_state_dict(weights)
        self.image_tower.stem.trunk.requires_grad_(False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(12.0)))
        _initialise(self.image_tower)
        _initialise(self.text_tower)

    def image_features(self, features: Tensor, dropout: float = 0.0) -> Tensor:
        """Normalised [B, D] of trunk features [B, N, 1280], a share of the tokens left out."""
        tower = self.image_tower
        tokens = tower.stem.proj(features)
        if not dropout:
            return F.normalize(tower.encode(tokens).float(), dim=-1)
        batch, count, width = tokens.shape
        kept = torch.rand(batch, count).topk(round(count * (1 - dropout)), dim=1).indices
        tokens = tokens + tower.positional_embedding[1:]
        tokens = tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, width))
        first = (tower.class_embedding + tower.positional_embedding[0]).expand(batch, 1, -1)
        x = tower.ln_pre(torch.cat([first, tokens], dim=1))
        *blocks, last = tower.transformer.resblocks
        for block in blocks:
            x = block(x)
        pooled = tower.ln_post(last.read(x, position=0)[:, 0])
        return F.normalize((pooled @ tower.proj).float(), dim=-1)

    def text_features(self, text: PackedText) -> Tensor:
        """Normalised [C, D] of packed texts."""
        return F.normalize(self.text_tower(text).float(), dim=-1)


class FeatureStore:
    """The cached views [V, n, N, 320] of all drawings, and which concept each drawing shows."""

    def __init__(self, folder: Path, concepts: list[Concept], settings: Settings) -> None:
        self.folder = folder
        self.slugs = [slug for _, _, slug in json.loads((folder / "drawings.json").read_text())]
        seen = set(self.slugs)
        self.concepts = [c for c in concepts if c.slug in seen]
        index = {concept.slug: i for i, concept in enumerate(self.concepts)}
        self.labels = torch.tensor([index[slug] for slug in self.slugs])
        counts = torch.bincount(self.labels, minlength=len(self.concepts)).float()
        in_tasks = torch.tensor([float(c.in_tasks) for c in self.concepts])
        per_concept = counts.rsqrt() * (in_tasks + (1 - in_tasks) * settings.other_weight)
        self.weights = per_concept[self.labels]
        self.views: list[np.ndarray] = []
        self.refresh()

    def refresh(self) -> None:
        """Pick up the passes that are on disk by now."""
        paths = [p for p in sorted(self.folder.glob("view-?*.npy")) if "partial" not in p.name]
        self.views = [np.load(path, mmap_mode="r") for path in paths]

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(maps [B, N, 320], concept indices [B]) of random views of random drawings."""
        rows = torch.multinomial(self.weights, batch, replacement=True, generator=generator)
        views = torch.randint(len(self.views), (batch,), generator=generator)
        maps = np.stack(
            [self.views[v][row] for v, row in zip(views.tolist(), rows.tolist(), strict=True)]
        )
        return torch.from_numpy(maps).float(), self.labels[rows]


class CaptionSampler:
    """Random captions of a step, with the concepts that each fits."""

    def __init__(self, concepts: list[Concept], tokenizer: FileTokenizer) -> None:
        fits = captions(concepts)
        index = {concept.slug: i for i, concept in enumerate(concepts)}
        self.words = sorted(fits)
        self.matrix = torch.zeros(len(self.words), len(concepts), dtype=torch.bool)
        for row, word in enumerate(self.words):
            self.matrix[row, [index[slug] for slug in sorted(fits[word]) if slug in index]] = True
        self.tokens = [tokenizer.encode(f"a photo of a {word}.") for word in self.words]

    def sample(self, count: int, generator: torch.Generator) -> tuple[PackedText, Tensor]:
        """(packed captions, fits [W, C])."""
        rows = torch.randperm(len(self.words), generator=generator)[:count]
        return pack([self.tokens[row] for row in rows.tolist()]), self.matrix[rows]


class Validation:
    """Trunk features of the styles outside the pretraining; accuracy within groups and overall."""

    def __init__(self, styles: dict[str, tuple[Tensor, list[str]]], concepts: list[Concept]):
        self.styles = styles
        self.concepts = {concept.slug: concept for concept in concepts}
        self.names = [c for c in concepts if c.in_tasks]

    @torch.inference_mode()
    def accuracy(self, model: SmallClip, head: Head, tokenizer: FileTokenizer) -> dict[str, float]:
        """Per style: mean over the task groups (within group), `all` names, and `unseen`."""
        packed = tokenize_template(
            tokenizer, [c.name for c in self.names], "a photo of a {}.", CONTEXT_LENGTH
        )
        text = model.text_features(packed)
        groups = [c.group for c in self.names]
        seen = torch.tensor([group != HELD_OUT_GROUP for group in groups])
        result: dict[str, float] = {}
        for style, (maps, slugs) in self.styles.items():
            logits = model.image_features(head(maps.float())) @ text.T
            columns = {c.slug: i for i, c in enumerate(self.names)}
            labels = torch.tensor([columns[slug] for slug in slugs])
            image_seen = seen[labels]
            within = []
            for group in (*TASK_GROUPS.values(), HELD_OUT_GROUP):
                member = torch.tensor([g == group for g in groups])
                rows = member[labels]
                hits = logits[rows].masked_fill(~member, -9).argmax(1) == labels[rows]
                result[f"{style}/{group}"] = 100 * hits.float().mean().item()
                within.append(result[f"{style}/{group}"])
            result[f"{style}/within"] = sum(within[:-1]) / (len(within) - 1)
            hits = logits[image_seen].masked_fill(~seen, -9).argmax(1) == labels[image_seen]
            result[f"{style}/all"] = 100 * hits.float().mean().item()
        return result


def pretrain(
    folder: Path,
    features: Path,
    tokenizer_path: Path,
    concepts: list[Concept],
    validation: Validation,
    settings: Settings,
    seconds: float = math.inf,
) -> Path:
    """Train, or go on from the checkpoint in `folder`; returns the checkpoint's path.

    Stops after `settings.steps` steps or `seconds`, whichever is first; a checkpoint is written
    every few minutes and at the end, an accuracy line is appended to `log.jsonl` with each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    store = FeatureStore(features, concepts, settings)
    tokenizer = FileTokenizer(tokenizer_path)
    names = [concept.name for concept in store.concepts]
    packs = [tokenize_template(tokenizer, names, t, CONTEXT_LENGTH) for t in TEMPLATES]
    sampler = CaptionSampler(store.concepts, tokenizer)
    imagenet = [tokenizer.encode(f"a photo of a {name}.") for name in imagenet_names()]

    head = Head(load_trunk())
    model = SmallClip(settings)
    averaged = SmallClip(settings)
    averaged.load_state_dict(model.state_dict())
    learnable = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in learnable if p.dim() > 1]
    plain = [p for p in learnable if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98))
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        step, spent = state["step"], state["seconds"]

    started = last_saved = time.monotonic()
    totals: list[float] = []
    while step < settings.steps and time.monotonic() - started < seconds:
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * _schedule(step, settings)
        maps, labels = store.sample(settings.batch, generator)
        if torch.rand((), generator=generator) < settings.mixstyle:
            maps = _mix_style(maps, generator)
        precision = (
            torch.autocast("cpu", torch.bfloat16) if settings.bf16 else contextlib.nullcontext()
        )
        with precision, sdpa_kernel(SDPBackend.MATH):  # its backward pass is the fastest here
            with torch.no_grad():
                trunk_features = head(maps)
            image = model.image_features(trunk_features, settings.token_dropout)
            choice = int(torch.randint(len(packs), (), generator=generator))
            text = model.text_features(packs[choice])
            scale = model.log_scale.exp()
            logits = scale * image @ text.T
            loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
            total = loss
            if step % 2:
                packed, fits = sampler.sample(settings.words_a_step, generator)
                words = model.text_features(packed)
                total = total + settings.caption_weight * _caption_loss(
                    scale * image @ words.T, fits[:, labels].T
                )
            else:
                rows = torch.randperm(1000, generator=generator)[: settings.words_a_step].tolist()
                words = model.text_features(pack([imagenet[row] for row in rows]))
                teacher = head.classifier(trunk_features.float().mean(1))[:, rows]
                total = total + settings.distill_weight * F.cross_entropy(
                    scale * image @ words.T, teacher.float().softmax(-1)
                )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(learnable, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.log_scale.clamp_(max=math.log(60.0))
            decay = min(settings.ema, (1 + step) / (10 + step))
            for mean, value in zip(averaged.parameters(), model.parameters(), strict=True):
                if value.requires_grad:
                    mean.lerp_(value, 1 - decay)
        totals.append(loss.item())
        step += 1

        done = step >= settings.steps or time.monotonic() - started >= seconds
        if done or time.monotonic() - last_saved > 150:
            last_saved = time.monotonic()
            state = {
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "torch_rng": torch.get_rng_state(),
                "step": step,
                "seconds": spent + last_saved - started,
                "settings": asdict(settings),
            }
            torch.save(state, checkpoint.with_suffix(".partial"))
            os.replace(checkpoint.with_suffix(".partial"), checkpoint)
            store.refresh()
            scores = validation.accuracy(averaged.eval(), head, tokenizer)
            line = {
                "step": step,
                "seconds": round(spent + last_saved - started),
                "views": len(store.views),
                "loss": round(float(np.mean(totals)), 4),
                "scale": round(float(model.log_scale.exp()), 2),
                **{key: round(value, 1) for key, value in scores.items()},
            }
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            short = {k: v for k, v in line.items() if "/" not in k or k.endswith(("within", "all"))}
            print(json.dumps(short), flush=True)
            totals.clear()
    return checkpoint


def _initialise(tower: ImageTower | TextTower) -> None:
    """Small residual branches, and a last attention that starts as a plain average."""
    width, layers = tower.width, tower.layers
    for block in tower.transformer.resblocks:
        nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(block.attn.out_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
        nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(block.mlp.c_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5 / 2)
        for bias in (block.attn.out_proj.bias, block.mlp.c_fc.bias, block.mlp.c_proj.bias):
            nn.init.zeros_(bias)
    if isinstance(tower, TextTower):
        nn.init.normal_(tower.token_embedding.weight, std=0.02)
        return
    nn.init.normal_(tower.positional_embedding, std=0.02)
    nn.init.normal_(tower.class_embedding, std=0.02)
    nn.init.normal_(tower.stem.proj.weight, std=tower.stem.proj.in_features**-0.5)
    last = tower.transformer.resblocks[-1].attn
    with torch.no_grad():
        last.in_proj_weight[: 2 * width] *= 0.2
        last.in_proj_weight[2 * width :] = torch.eye(width)
        last.out_proj.weight.copy_(torch.eye(width))


def _schedule(step: int, settings: Settings) -> float:
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress))) * 0.99 + 0.01


def _mix_style(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Give each image a blend of its own and another's channel means and deviations.

    Zhou et al., "Domain Generalization with MixStyle", ICLR 2021. maps: [B, N, C].
    """
    mean, deviation = maps.mean(1, keepdim=True), maps.std(1, keepdim=True) + 1e-5
    other = torch.randperm(len(maps), generator=generator)
    share = 1 - 0.5 * torch.rand((len(maps), 1, 1), generator=generator) ** 2
    new_mean = share * mean + (1 - share) * mean[other]
    new_deviation = share * deviation + (1 - share) * deviation[other]
    return (maps - mean) / deviation * new_deviation + new_mean


def _caption_loss(logits: Tensor, fits: Tensor) -> Tensor:
    """Cross-entropy to the uniform distribution over an image's captions, [B, W] and [B, W]."""
    chosen = fits.any(1)
    if not chosen.any():
        return logits.sum() * 0
    target = fits[chosen].float()
    return F.cross_entropy(logits[chosen], target / target.sum(1, keepdim=True))


def load_averaged(checkpoint: Path) -> tuple[SmallClip, Settings, Sequence[float]]:
    """(averaged model, its settings, (steps, seconds)) of a checkpoint."""
    state = torch.load(checkpoint, weights_only=True)
    settings = Settings(**state["settings"])
    model = SmallClip(settings)
    model.load_state_dict(state["averaged"])
    return model.eval(), settings, (state["step"], state["seconds"])
