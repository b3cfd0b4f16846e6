"""Pretraining of the small CLIP on cached trunk features, on a CPU."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from asset_build.concepts import HELD_OUT_GROUP, TASK_GROUPS, Concept
from asset_build.meanings import Word
from asset_build.photographs import Directions, class_of, find_directions
from asset_build.trunk import ARCHITECTURE, Head, load_trunk
from asset_build.vocabulary import (
    CONTEXT_LENGTH,
    PIECES,
    TEMPLATES,
    captions,
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
    """Everything that a training run depends on besides its data.

    But for the pieces that the tokenizer splits at random (`bpe_dropout`): it has no seed.
    """

    seed: int = 1
    image_width: int = 256
    text_width: int = 192
    embed_dim: int = 256
    layers: int = 4
    reading_steps: int = 1300
    reading_batch: int = 1024
    reading_lr: float = 2e-3
    steps: int = 1500
    batch: int = 384
    lr: float = 1e-3
    trunk_lr: float = 0.2
    text_lr: float = 0.4
    warmup: int = 60
    weight_decay: float = 0.1
    label_smoothing: float = 0.1
    token_dropout: float = 0.3
    mixstyle: float = 0.5
    other_weight: float = 0.3
    caption_weight: float = 0.2
    captions_a_step: int = 256
    distill_weight: float = 0.2
    photo_weight: float = 0.5
    photo_batch: int = 128
    photo_mix: float = 0.5
    keep_weight: float = 2.0
    words_weight: float = 2.0
    words_a_step: int = 256
    pairs: float = 0.15
    bpe_dropout: float = 0.1
    ema: float = 0.998
    bf16: bool = True


def architecture(settings: Settings) -> Architecture:
    """Shape of the small CLIP."""

    def shape(width: int) -> TransformerShape:
        return TransformerShape(width, settings.layers, width // 32, 4 * width, "gelu")

    return Architecture(
        embed_dim=settings.embed_dim,
        image=ImageShape(
            shape(settings.image_width),
            patches=TOKENS,
            trunk=ARCHITECTURE,
            pool="class_with_mean",
        ),
        text=TextShape(
            shape(settings.text_width), vocabulary=PIECES, context_length=CONTEXT_LENGTH
        ),
    )


class SmallClip(nn.Module):
    """Both towers and the logit scale, fed with stored trunk features instead of images.

    Args:
        directions: where the image tower begins: its class token carries the projected mean of the
            trunk's features, of which the blocks are to change what they must.
    """

    def __init__(self, settings: Settings, directions: Directions | None = None) -> None:
        super().__init__()
        trunk = load_trunk()
        self.image_tower: ImageTower
        self.text_tower: TextTower
        self.image_tower, self.text_tower = build_towers(architecture(settings))
        weights = {k: v for k, v in trunk.state_dict().items() if not k.startswith("classifier")}
        stem: Any = self.image_tower.stem
        stem.trunk.load_state_dict(weights)
        stem.trunk.requires_grad_(False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(15.0)))
        _initialise(self.image_tower)
        _initialise(self.text_tower)
        if directions is not None:
            stem.proj.weight.data.copy_(directions.weight)
            stem.proj.bias.data.copy_(directions.bias)

    def image_features(self, features: Tensor, dropout: float = 0.0) -> Tensor:
        """Normalised [B, D] of trunk features [B, N, 1280], a share of the tokens left out."""
        tower: Any = self.image_tower
        tokens = tower.stem.proj(features)
        if not dropout:
            return F.normalize(tower.encode(tokens).float(), dim=-1)
        batch, count, width = tokens.shape
        first = (
            tower.class_embedding + tower.positional_embedding[0] + tokens.mean(dim=1, keepdim=True)
        )
        kept = torch.rand(batch, count).topk(round(count * (1 - dropout)), dim=1).indices
        tokens = tokens + tower.positional_embedding[1:]
        tokens = tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, width))
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


class Photographs:
    """The trunk's maps of photographs, for its own head to label."""

    def __init__(self, path: Path) -> None:
        self.maps: Tensor = torch.load(path, weights_only=True)["maps"]

    def sample(self, batch: int, mix: float, generator: torch.Generator) -> Tensor:
        """Maps [B, N, 320]; a share `mix` of them are blends of two."""
        first, second = torch.randint(len(self.maps), (2, batch), generator=generator)
        share = 0.5 * torch.rand(batch, 1, 1, generator=generator)
        share[torch.rand(batch, generator=generator) >= mix] = 0
        return torch.lerp(self.maps[first].float(), self.maps[second].float(), share)


class ReadingList:
    """Words with the directions that the text tower learns to give them.

    Args:
        words: the list.
        directions: unit vectors [n, D], those of the words.
        tokenizer: that of the model, as a file.
        settings: how many of the words are pairs, how often pieces are split further.
    """

    def __init__(
        self, words: Sequence[Word], directions: Tensor, tokenizer: Path, settings: Settings
    ) -> None:
        self.directions, self.pairs = directions, settings.pairs
        self.texts = [word.text for word in words]
        self.weights = torch.tensor(
            [
                3.0 if word.classes else 2.0 if word.above else 0.2 + 0.2 * word.frequency
                for word in words
            ]
        )
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.model.dropout = settings.bpe_dropout

    def sample(self, count: int, generator: torch.Generator) -> tuple[PackedText, Tensor]:
        """(packed texts, unit vectors [n, D]); a pair means what both mean, its last word more."""
        first, second = torch.multinomial(self.weights, 2 * count, generator=generator).chunk(2)
        paired = torch.rand(count, generator=generator) < self.pairs
        templates = torch.randint(len(TEMPLATES), (count,), generator=generator).tolist()
        texts = [
            f"{self.texts[a]} {self.texts[b]}" if both else self.texts[b]
            for a, b, both in zip(first.tolist(), second.tolist(), paired.tolist(), strict=True)
        ]
        filled = [TEMPLATES[t].replace("{}", x) for t, x in zip(templates, texts, strict=True)]
        encoded = [
            [*found.ids[: CONTEXT_LENGTH - 1], found.ids[-1]][-CONTEXT_LENGTH:]
            if len(found.ids) > CONTEXT_LENGTH
            else found.ids
            for found in self.tokenizer.encode_batch(filled)
        ]
        target = self.directions[second]
        blended = F.normalize(0.6 * target + 0.4 * self.directions[first], dim=-1)
        return pack(encoded), torch.where(paired.unsqueeze(1), blended, target)


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
    """Accuracy on drawings in styles outside the pretraining, and on photographs held out of it.

    Args:
        styles: of each the trunk's maps and the slugs of its drawings.
        photographs: file of the held-out photographs' maps.
        concepts: all of them.
    """

    def __init__(
        self,
        styles: dict[str, tuple[Tensor, list[str]]],
        photographs: Path,
        concepts: list[Concept],
    ) -> None:
        self.styles = styles
        held = torch.load(photographs, weights_only=True)
        self.photographs: Tensor = held["maps"]
        self.photographed = [IMAGENET_CLASSNAMES[class_of(file)] for file in held["files"]]
        self.concepts = {concept.slug: concept for concept in concepts}
        self.names = [c for c in concepts if c.in_tasks]

    @torch.inference_mode()
    def accuracy(self, model: SmallClip, head: Head, tokenizer: FileTokenizer) -> dict[str, float]:
        """Per style: mean over the task groups (within group), `all` names, and `unseen`; of the
        photographs: among the names of ImageNet's 1,000 classes."""
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
        classes = list(dict.fromkeys(IMAGENET_CLASSNAMES))
        filled = tokenize_template(tokenizer, classes, "a photo of a {}.", CONTEXT_LENGTH)
        photos = model.image_features(head(self.photographs.float()))
        best = (photos @ model.text_features(pack(filled)).T).argmax(1).tolist()
        right = [classes[i] == name for i, name in zip(best, self.photographed, strict=True)]
        result["photographs/all"] = 100 * sum(right) / len(right)
        return result


class Words:
    """The texts that drawings are contrasted with, tokenized once."""

    def __init__(self, concepts: list[Concept], tokenizer: FileTokenizer) -> None:
        names = [concept.name for concept in concepts]
        self.names = [
            pack(tokenize_template(tokenizer, names, t, CONTEXT_LENGTH)) for t in TEMPLATES
        ]
        self.captions = CaptionSampler(concepts, tokenizer)


@dataclass(frozen=True)
class Data:
    """What a training run learns from.

    Attributes:
        store: drawings.
        photographs: maps of photographs.
        words: the word list.
        shares: of the words, [n, 1000].
        tokenizer: file.
    """

    store: FeatureStore
    photographs: Photographs
    words: Sequence[Word]
    shares: Tensor
    tokenizer: Path


class Trainer:
    """The state of a training run: model, moving average, optimizer, random generator, progress.

    First the text tower alone learns to read (`reading_steps`), then both towers learn together.
    """

    def __init__(self, data: Data, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.store, self.photographs = data.store, data.photographs
        self.texts = Words(data.store.concepts, FileTokenizer(data.tokenizer))
        self.head = Head(load_trunk())
        with torch.no_grad():
            self.directions = find_directions(self.head, data.photographs.maps, settings.embed_dim)
        meant = F.normalize(data.shares.float() @ self.directions.classes, dim=-1)
        self.reading = ReadingList(data.words, meant, data.tokenizer, settings)
        row = {word.text.lower(): i for i, word in enumerate(data.words)}
        self.meant_names = meant[[row[c.name.lower()] for c in data.store.concepts]]
        self.model = SmallClip(settings, self.directions)
        self.averaged = SmallClip(settings)
        self.averaged.load_state_dict(self.model.state_dict())
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.learnable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(list(self._groups()), lr=0.0, betas=(0.9, 0.98))
        self.step = 0
        self.seconds = 0.0

    @property
    def steps(self) -> int:
        """All of them."""
        return self.settings.reading_steps + self.settings.steps

    def _groups(self) -> Iterator[dict[str, Any]]:
        settings = self.settings
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                text = name.startswith("text_tower")
                factor = settings.text_lr if text else 1.0
                factor = settings.trunk_lr if ".stem." in name else factor
                decay = settings.weight_decay if parameter.dim() > 1 else 0.0
                yield {
                    "params": [parameter],
                    "weight_decay": 0.0 if ".stem." in name else decay,
                    "reading": settings.reading_lr if text else 0.0,
                    "together": settings.lr * factor,
                }

    def advance(self) -> float:
        """One optimizer step; returns the loss over the names (over the words while reading)."""
        settings, model = self.settings, self.model
        after = self.step - settings.reading_steps
        for group in self.optimizer.param_groups:
            if after < 0:
                group["lr"] = group["reading"] * _schedule(
                    self.step, settings.reading_steps, settings.warmup, floor=0.1
                )
            else:
                group["lr"] = group["together"] * _schedule(after, settings.steps, settings.warmup)
        precision = (
            torch.autocast("cpu", torch.bfloat16) if settings.bf16 else contextlib.nullcontext()
        )
        with precision, sdpa_kernel(SDPBackend.MATH):  # its backward pass is the fastest here
            if after < 0:
                loss = self._reading_loss(settings.reading_batch)
                total = loss
            else:
                loss, auxiliary = self._losses()
                total = loss + auxiliary
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
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

    def _reading_loss(self, count: int) -> Tensor:
        packed, meant = self.reading.sample(count, self.generator)
        return _apart(self.model.text_features(packed), meant)

    def _losses(self) -> tuple[Tensor, Tensor]:
        """(contrast of drawings with all names, all else by its weight)."""
        settings, model = self.settings, self.model
        maps, labels = self.store.sample(settings.batch, self.generator)
        if torch.rand((), generator=self.generator) < settings.mixstyle:
            maps = _mix_style(maps, self.generator)
        photos = self.photographs.sample(settings.photo_batch, settings.photo_mix, self.generator)
        if torch.rand((), generator=self.generator) < settings.mixstyle:
            photos = _mix_style(photos, self.generator)
        with torch.no_grad():
            trunk_features = self.head(torch.cat([maps, photos]))
            pooled = trunk_features.float().mean(1)
            teacher = self.head.classifier(pooled).float().softmax(-1)
            kept = self.directions.project(pooled[len(maps) :])
        features = model.image_features(trunk_features, settings.token_dropout)
        scale = model.log_scale.exp()
        drawn, seen = (scale * features).split([len(maps), len(photos)])

        template = int(torch.randint(len(TEMPLATES), (), generator=self.generator))
        names = model.text_features(self.texts.names[template])
        loss = F.cross_entropy(drawn @ names.T, labels, label_smoothing=settings.label_smoothing)
        classes = self.directions.classes.T
        taught, own = teacher.split([len(maps), len(photos)])
        photo = F.cross_entropy(seen @ classes, own)
        photo = photo + settings.keep_weight * _apart(features[len(maps) :], kept)
        words = _apart(names, self.meant_names) + self._reading_loss(settings.words_a_step)
        other = settings.photo_weight * photo + settings.words_weight * words
        if self.step % 2:
            packed, fits = self.texts.captions.sample(settings.captions_a_step, self.generator)
            captions = _caption_loss(drawn @ model.text_features(packed).T, fits[:, labels].T)
            return loss, other + settings.caption_weight * captions
        return loss, other + settings.distill_weight * F.cross_entropy(drawn @ classes, taught)

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


def pretrain(folder: Path, data: Data, validation: Validation, settings: Settings) -> None:
    """Train for all steps of `settings`, or go on from `checkpoint.pt` in `folder`.

    Every few minutes and at the end a checkpoint is written and a line with the accuracies of the
    averaged model appended to `log.jsonl`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    tokenizer = FileTokenizer(data.tokenizer)
    trainer = Trainer(data, settings)
    if checkpoint.exists():
        trainer.restore(checkpoint)
    last = time.monotonic()
    losses: list[float] = []
    while trainer.step < trainer.steps:
        losses.append(trainer.advance())
        now = time.monotonic()
        if trainer.step < trainer.steps and now - last < CHECKPOINT_SECONDS:
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
    """Small residual branches, and an image tower that hands on what its class token began with."""
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
    with torch.no_grad():
        tower.class_embedding.zero_()
        tower.proj.copy_(torch.eye(width, tower.embed_dim))


def _schedule(step: int, steps: int, warmup: int, floor: float = 0.01) -> float:
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress))) * (1 - floor) + floor


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


def _apart(features: Tensor, meant: Tensor) -> Tensor:
    """Mean of one minus the cosines of unit vectors, [B, D] and [B, D]."""
    return (1 - (features * meant).sum(1)).mean()


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
