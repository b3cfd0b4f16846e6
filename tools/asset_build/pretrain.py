"""Contrastive pretraining of the small CLIP on cached trunk features, on one core."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
)
from promptot.backbones.build import build_towers
from promptot.backbones.tokenizer import FileTokenizer, tokenize_template
from promptot.backbones.towers.image_tower import ImageTower
from promptot.backbones.towers.packing import PackedText, pack
from promptot.backbones.towers.text_tower import TextTower

TOKENS = 25  # 160 px through a trunk of stride 32
CHECKPOINT_SECONDS = 150


@dataclass(frozen=True)
class Settings:
    """Everything that a training run depends on besides its data."""

    seed: int = 1
    image_width: int = 192
    text_width: int = 160
    embed_dim: int = 256
    layers: int = 4
    batch: int = 512
    steps: int = 2000
    lr: float = 1e-3
    warmup: int = 60
    weight_decay: float = 0.1
    label_smoothing: float = 0.1
    token_dropout: float = 0.3
    mixstyle: float = 0.5
    other_weight: float = 0.3
    caption_weight: float = 0.2
    distill_weight: float = 0.2
    photolike_weight: float = 0.3
    photolike_batch: int = 64
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
        stem: Any = self.image_tower.stem
        stem.trunk.load_state_dict(weights)
        stem.trunk.requires_grad_(False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(12.0)))
        _initialise(self.image_tower)
        _initialise(self.text_tower)

    def image_features(self, features: Tensor, dropout: float = 0.0) -> Tensor:
        """Normalised [B, D] of trunk features [B, N, 1280], a share of the tokens left out."""
        tower: Any = self.image_tower
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


class Photolike:
    """The maps of `photolike.dream`, with their ImageNet classes."""

    def __init__(self, path: Path) -> None:
        stored = torch.load(path, weights_only=True)
        self.maps: Tensor = stored["maps"]
        self.labels: Tensor = stored["labels"]

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(maps [B, N, 320], ImageNet classes [B])."""
        rows = torch.randint(len(self.labels), (batch,), generator=generator)
        return self.maps[rows].float(), self.labels[rows]


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
        names = [c.name for c in self.names]
        packed = pack(tokenize_template(tokenizer, names, "a photo of a {}.", CONTEXT_LENGTH))
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


class Words:
    """All texts that the training contrasts images with, tokenized once."""

    def __init__(self, concepts: list[Concept], tokenizer: FileTokenizer) -> None:
        names = [concept.name for concept in concepts]
        self.names = [
            pack(tokenize_template(tokenizer, names, t, CONTEXT_LENGTH)) for t in TEMPLATES
        ]
        self.captions = CaptionSampler(concepts, tokenizer)
        self.imagenet = [
            [tokenizer.encode(f"a photo of a {name}.") for name in names]
            for names in imagenet_names()
        ]

    def of_imagenet(self, classes: list[int], generator: torch.Generator) -> PackedText:
        """One of the names of each of the given ImageNet classes."""
        chance = torch.rand(len(classes), generator=generator).tolist()
        named = [self.imagenet[index] for index in classes]
        return pack([names[int(p * len(names))] for p, names in zip(chance, named, strict=True)])


class Trainer:
    """The state of a training run: model, moving average, optimizer, random generator, progress."""

    def __init__(
        self,
        store: FeatureStore,
        photolike: Photolike,
        tokenizer: FileTokenizer,
        settings: Settings,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.photolike = photolike
        self.settings = settings
        self.store = store
        self.words = Words(store.concepts, tokenizer)
        self.head = Head(load_trunk())
        self.model = SmallClip(settings)
        self.averaged = SmallClip(settings)
        self.averaged.load_state_dict(self.model.state_dict())
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.learnable = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {
                "params": [p for p in self.learnable if p.dim() > 1],
                "weight_decay": settings.weight_decay,
            },
            {"params": [p for p in self.learnable if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98))
        self.step = 0
        self.seconds = 0.0

    def advance(self) -> float:
        """One optimizer step; returns the loss over the names."""
        settings, model = self.settings, self.model
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * _schedule(self.step, settings)
        maps, labels = self.store.sample(settings.batch, self.generator)
        if torch.rand((), generator=self.generator) < settings.mixstyle:
            maps = _mix_style(maps, self.generator)
        precision = (
            torch.autocast("cpu", torch.bfloat16) if settings.bf16 else contextlib.nullcontext()
        )
        with precision, sdpa_kernel(SDPBackend.MATH):  # its backward pass is the fastest here
            loss, auxiliary = self._losses(maps, labels)
        self.optimizer.zero_grad(set_to_none=True)
        (loss + auxiliary).backward()
        nn.utils.clip_grad_norm_(self.learnable, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            model.log_scale.clamp_(max=math.log(60.0))
            decay = min(settings.ema, (1 + self.step) / (10 + self.step))
            for mean, value in zip(self.averaged.parameters(), model.parameters(), strict=True):
                if value.requires_grad:
                    mean.lerp_(value, 1 - decay)
        self.step += 1
        return loss.item()

    def _losses(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(contrast with all names, weighted contrast with captions or ImageNet names)."""
        settings, model, words = self.settings, self.model, self.words
        with torch.no_grad():
            trunk_features = self.head(maps)
        image = model.log_scale.exp() * model.image_features(trunk_features, settings.token_dropout)
        template = int(torch.randint(len(words.names), (), generator=self.generator))
        logits = image @ model.text_features(words.names[template]).T
        loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        if self.step % 2:
            packed, fits = words.captions.sample(settings.words_a_step, self.generator)
            logits = image @ model.text_features(packed).T
            return loss, settings.caption_weight * _caption_loss(logits, fits[:, labels].T)
        maps, classes = self.photolike.sample(settings.photolike_batch, self.generator)
        others = torch.randperm(1000, generator=self.generator)
        rows = list(dict.fromkeys([*classes.tolist(), *others.tolist()]))[: settings.words_a_step]
        text = model.text_features(words.of_imagenet(rows, self.generator))
        teacher = self.head.classifier(trunk_features.float().mean(1))[:, rows].float()
        distilled = F.cross_entropy(image @ text.T, teacher.softmax(-1))
        with torch.no_grad():
            trunk_features = self.head(_mix_style(maps, self.generator))
        image = model.log_scale.exp() * model.image_features(trunk_features, settings.token_dropout)
        targets = torch.tensor([rows.index(index) for index in classes.tolist()])
        photo = F.cross_entropy(image @ text.T, targets, label_smoothing=settings.label_smoothing)
        return loss, settings.distill_weight * distilled + settings.photolike_weight * photo

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically."""
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "step": self.step,
            "seconds": self.seconds,
            "settings": asdict(self.settings),
        }
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        self.step, self.seconds = state["step"], state["seconds"]


def pretrain(
    folder: Path,
    features: Path,
    photolike: Path,
    tokenizer_path: Path,
    concepts: list[Concept],
    validation: Validation,
    settings: Settings,
) -> None:
    """Train for `settings.steps` steps, or go on from `checkpoint.pt` in `folder`.

    Every few minutes and at the end a checkpoint is written and a line with the accuracies of the
    averaged model appended to `log.jsonl`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    tokenizer = FileTokenizer(tokenizer_path)
    store = FeatureStore(features, concepts, settings)
    trainer = Trainer(store, Photolike(photolike), tokenizer, settings)
    if checkpoint.exists():
        trainer.restore(checkpoint)
    last = time.monotonic()
    losses: list[float] = []
    while trainer.step < settings.steps:
        losses.append(trainer.advance())
        now = time.monotonic()
        if trainer.step < settings.steps and now - last < CHECKPOINT_SECONDS:
            continue
        trainer.seconds += now - last
        trainer.save(checkpoint)
        trainer.store.refresh()
        scores = validation.accuracy(trainer.averaged.eval(), trainer.head, tokenizer)
        line = {
            "step": trainer.step,
            "seconds": round(trainer.seconds),
            "views": len(trainer.store.views),
            "loss": round(float(np.mean(losses)), 4),
            "scale": round(trainer.model.log_scale.exp().item(), 2),
            **{key: round(value, 1) for key, value in scores.items()},
        }
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        short = {k: v for k, v in line.items() if "/" not in k or k.endswith(("within", "all"))}
        print(json.dumps(short), flush=True)
        losses.clear()
        last = time.monotonic()


def _initialise(tower: Any) -> None:
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
