"""Low-rank changes of frozen matrices (LoRA), in either tower."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from promptot.adaptation.adaptation import MOST_BLOCKS, Adaptation
from promptot.backbones.injection import Injection
from promptot.backbones.low_rank import MATRICES, Deltas, LowRank

MOST_ROWS = 2**20  # of a thin matrix, in a card that is not to be trusted


class LoRA(Adaptation):
    """Two thin matrices beside each chosen one of every block (Hu et al., 2021, arXiv:2106.09685).

    CLIP-LoRA (Zanella and Ben Ayed, 2024, arXiv:2405.18541) has them beside queries, keys and
    values of both towers, with rank 2. `down` starts uniform in ±1/√K and `up` at 0, so that the
    student begins as the teacher. Texts are read in the template, without learned context.

    Args:
        text_width, vision_width: widths of the towers.
        text_hidden, vision_hidden: widths within their MLPs.
        text_layers, vision_layers: their blocks; 0 leaves a tower as it is.
        rank: r.
        alpha: the factor of a change is α / √r, as CLIP-LoRA has it (LoRA itself: α / r).
        targets: some of `MATRICES`, with commas between them.
        dropout: share of the entries that a change does not see in a training step.
        generator: source of the random start, and of what is dropped.

    Example:
        >>> lora = LoRA(512, 768, 2048, 3072, text_layers=12, vision_layers=12)
        >>> sum(p.numel() for p in lora.parameters())
        184320
    """

    name = "lora"

    def __init__(
        self,
        text_width: int,
        vision_width: int,
        text_hidden: int,
        vision_hidden: int,
        text_layers: int,
        vision_layers: int,
        rank: int = 2,
        alpha: float = 1.0,
        targets: str = "q,k,v",
        dropout: float = 0.0,
        fixed_words: str = "",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            fixed_words,
            text_width=text_width,
            vision_width=vision_width,
            text_hidden=text_hidden,
            vision_hidden=vision_hidden,
            text_layers=text_layers,
            vision_layers=vision_layers,
            rank=rank,
            alpha=alpha,
            targets=targets,
        )
        names = targets.split(",")
        if not set(names) <= set(MATRICES) or max(text_layers, vision_layers) > MOST_BLOCKS:
            raise ValueError(
                f"no such targets or layers: {targets}, {text_layers}, {vision_layers}"
            )
        self.scale, self.dropout = alpha * rank**-0.5, dropout
        towers = (
            (text_width, text_hidden, text_layers),
            (vision_width, vision_hidden, vision_layers),
        )
        self.text, self.vision = (
            nn.ModuleList(_Pairs(names, width, hidden, rank, generator) for _ in range(layers))
            for width, hidden, layers in towers
        )
        drawn = torch.randint(2**62, (), generator=generator, device="cpu")
        self._seed = 0 if drawn.is_meta else int(drawn)
        self._generators: dict[torch.device, torch.Generator] = {}
        self.eval()  # what is trained says so

    def draw(self, epoch: int, step: int) -> None:
        """Decide what this training step drops: the same in every run, and in one that goes on."""
        if self.dropout > 0:
            key = f"{self._seed} {epoch} {step}".encode()
            digest = hashlib.blake2b(key, digest_size=7).digest()
            self._generator().manual_seed(int.from_bytes(digest, "big"))

    def _generator(self) -> torch.Generator:
        device = next(self.parameters()).device
        if device.type == "cuda":  # the one that CUDA graphs know
            index = torch.cuda.current_device() if device.index is None else device.index
            return torch.cuda.default_generators[index]
        return self._generators.setdefault(device, torch.Generator(device))

    def forward(self) -> Injection:
        drops = self.training and self.dropout > 0
        how = (self.dropout, self._generator()) if drops else (0.0, None)
        text, image = (
            tuple(block.deltas(self.scale, *how) for block in tower if isinstance(block, _Pairs))
            for tower in (self.text, self.vision)
        )
        return Injection(text_deltas=text, image_deltas=image)


@torch.no_grad()
def mean(parts: Sequence[LoRA], weights: Sequence[float]) -> LoRA:
    """What has the weighted mean of the changes of several, of the sum of their ranks.

    The mean of thin matrices would be another: the product of means is no mean of products.

    Args:
        parts: of the same towers and targets.
        weights: one for each.
    """
    scales = [own.scale for own in parts]
    first = parts[0]
    rank = sum(int(str(own.arguments["rank"])) for own in parts)
    found = type(first)(**{**first.arguments, "rank": rank, "alpha": rank**0.5})  # a factor of 1
    states = [own.state_dict() for own in parts]
    state = {}
    for key in found.state_dict():
        own = [values[key] for values in states]
        if key.endswith("up"):
            shares = zip(own, weights, scales, strict=True)
            own = [up * weight * scale for up, weight, scale in shares]
        state[key] = torch.cat(own, dim=0 if key.endswith("down") else 1)
    found.load_state_dict(state)
    return found


class _Pair(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, rank: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        if max(inputs, outputs, rank) > MOST_ROWS:
            raise ValueError(f"a matrix of {max(inputs, outputs, rank)} rows")
        bound = inputs**-0.5
        start = torch.rand(rank, inputs, generator=generator) * 2 * bound - bound
        self.down = nn.Parameter(start)
        self.up = nn.Parameter(torch.zeros(outputs, rank))


class _Pairs(nn.ModuleDict):
    """Of one block, by the names of what they change."""

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        hidden: int,
        rank: int,
        generator: torch.Generator | None,
    ) -> None:
        sizes = {"fc": (width, hidden), "proj": (hidden, width)}
        super().__init__(
            {name: _Pair(*sizes.get(name, (width, width)), rank, generator) for name in names}
        )

    def deltas(self, scale: float, dropout: float, generator: torch.Generator | None) -> Deltas:
        return {
            name: LowRank(pair.down, pair.up, scale, dropout, generator)
            for name, pair in self.items()
            if isinstance(pair, _Pair)
        }
