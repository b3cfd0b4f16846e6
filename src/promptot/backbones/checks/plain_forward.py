"""A CLIP the plain way, as a reference: nothing is packed, shared, fused or skipped.

It reads a state dict in the OpenAI layout and shares no code with the towers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PlainClip:
    """Weights in the OpenAI layout, with what the tensors don't tell.

    Attributes:
        weights: name → tensor, fp32.
        image_heads, text_heads: of each block.
        image_activation, text_activation: "quick_gelu" or "gelu".
        eps: of the norms.
        stem: images [B, 3, R, R] → patch tokens [B, N, W]; CLIP's convolution if None.
        class_with_mean: whether the mean of the patch tokens is added to the class token.
    """

    weights: Mapping[str, Tensor]
    image_heads: int
    text_heads: int
    image_activation: str = "quick_gelu"
    text_activation: str = "quick_gelu"
    eps: float = 1e-5
    stem: Callable[[Tensor], Tensor] | None = None
    class_with_mean: bool = False

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """L2-normalised features [B, D] of preprocessed images [B, 3, R, R]."""
        w = self.weights
        if self.stem is None:
            kernel = w["visual.conv1.weight"]
            x = F.conv2d(pixels, kernel, stride=kernel.shape[-1]).flatten(2).mT  # [B, N, W]
        else:
            x = self.stem(pixels)
        first = w["visual.class_embedding"].expand(len(x), 1, -1)
        if self.class_with_mean:
            first = first + x.sum(dim=1, keepdim=True) / x.shape[1]
        x = torch.cat([first, x], dim=1) + w["visual.positional_embedding"]
        x = self._norm(x, "visual.ln_pre")
        x = self._blocks(x, "visual.transformer", self.image_heads, self.image_activation, False)
        return F.normalize(self._norm(x[:, 0], "visual.ln_post") @ w["visual.proj"], dim=-1)

    @torch.no_grad()
    def encode_texts(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """L2-normalised features [S, D] of token ids, [SOS] first and [EOS] last."""
        w = self.weights
        rows = []
        for ids in sequences:
            x = (
                w["token_embedding.weight"][torch.tensor(ids)]
                + w["positional_embedding"][: len(ids)]
            )
            x = self._blocks(x[None], "transformer", self.text_heads, self.text_activation, True)
            rows.append(self._norm(x[0, -1], "ln_final") @ w["text_projection"])
        return F.normalize(torch.stack(rows), dim=-1)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, correction=0, keepdim=True)
        scaled = (x - mean) / (variance + self.eps).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _linear(self, x: Tensor, name: str, kind: str = ".weight", bias: str = ".bias") -> Tensor:
        return x @ self.weights[f"{name}{kind}"].T + self.weights[f"{name}{bias}"]

    def _blocks(self, x: Tensor, name: str, heads: int, activation: str, causal: bool) -> Tensor:
        length = x.shape[1]
        future = torch.full((length, length), -torch.inf).triu(1) if causal else 0.0
        index = 0
        while f"{name}.resblocks.{index}.ln_1.weight" in self.weights:
            block = f"{name}.resblocks.{index}"
            qkv = self._linear(
                self._norm(x, f"{block}.ln_1"), f"{block}.attn", ".in_proj_weight", ".in_proj_bias"
            )
            q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
            scores = q @ k.mT / q.shape[-1] ** 0.5 + future  # [B, H, L, L]
            attended = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(-2)
            x = x + self._linear(attended, f"{block}.attn.out_proj")
            hidden = self._linear(self._norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
            quick = activation == "quick_gelu"
            active = hidden * torch.sigmoid(1.702 * hidden) if quick else F.gelu(hidden)
            x = x + self._linear(active, f"{block}.mlp.c_proj")
            index += 1
        return x
