"""The plain way to take a Prompt-OT step, as the baseline of `training_step.py`.

Written for this comparison, after what published implementations of prompt learning amount to:

- the prompted text tower runs the full padded 77 positions of every class, in every block, and the
  feature at the end token is picked afterwards;
- the teacher is a second full copy of the frozen model; its text features are constants, computed
  once (nothing is computed and thrown away here);
- the plan comes from POT on NumPy arrays (where POT is not installed, from SciPy's assignment
  solver: the plan of a batch is a permutation, and both find the best one).

It is not slowed down on purpose: frozen weights need no gradient, attention is torch's fused
kernel, token embeddings of the names are looked up once, and the teacher keeps nothing for
backward. `PlainStep.to(device)` moves all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _common import CONTEXT_LENGTH, LOGIT_SCALE, Shape
from promptot.backbones.tokenizer import ClipTokenizer


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 64
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:  # [B, L, W] → [B, L, W]
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, H, L, d]
        mask = None if mask is None else mask.to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))


class Stem(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)


class ImageTower(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, patches = shape.image_width, (shape.resolution // shape.patch) ** 2
        self.stem = Stem(width, shape.patch)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, shape.image_layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, shape.embed_dim))

    def forward(self, images: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
        x = self.stem.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        x = x + self.positional_embedding.to(x.dtype)
        kept = x.shape[1]
        for depth, block in enumerate(self.transformer.resblocks):
            if depth < len(prompts):
                own = prompts[depth].expand(len(x), -1, -1).to(x.dtype)
                x = torch.cat([x[:, :kept], own], dim=1)
            if depth == 0:
                x = self.ln_pre(x)
            x = block(x)
        return F.normalize(self.ln_post(x[:, 0]) @ self.proj, dim=-1)


class TextTower(nn.Module):
    def __init__(self, shape: Shape, vocabulary: int) -> None:
        super().__init__()
        width = shape.text_width
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT_LENGTH, width))
        self.transformer = Transformer(width, shape.text_layers)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, shape.embed_dim))
        mask = torch.full((CONTEXT_LENGTH,) * 2, float("-inf"), device="cpu").triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, embedded: Tensor, ends: Tensor, context: Sequence[Tensor] = ()) -> Tensor:
        """Features [C, D] of embedded texts [C, 77, W] whose end tokens are at `ends` [C]."""
        x = embedded
        for depth, block in enumerate(self.transformer.resblocks):
            if depth < len(context):
                own = context[depth].expand(len(x), -1, -1).to(x.dtype)
                x = torch.cat([x[:, :1], own, x[:, 1 + own.shape[1] :]], dim=1)
            if depth == 0:
                x = x + self.positional_embedding.to(x.dtype)
            x = block(x, self.mask)
        x = self.ln_final(x)
        rows = torch.arange(len(x), device=x.device)
        return F.normalize(x[rows, ends] @ self.text_projection, dim=-1)


class PlainCLIP(nn.Module):
    """Both towers; parameter names are those of `promptot.backbones`. Uses `weights` themselves."""

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):
            self.image_tower = ImageTower(shape)
            self.text_tower = TextTower(shape, len(weights["text_tower.token_embedding.weight"]))
        towers = {key: value for key, value in weights.items() if "tower." in key}
        self.load_state_dict(towers, assign=True)
        self.to(self.text_tower.token_embedding.weight.device)  # the mask is with the weights
        self.requires_grad_(False)
        self.eval()


class PlainStep(nn.Module):
    """Student, teacher and loss.

    Args:
        shape: of the model.
        weights: in fp32; the student uses them, the teacher a copy.
        names: of the classes.
        text, vision: initial prompts, one tensor a block; copied.
        strength, eta: λ and η of the objective.
    """

    def __init__(
        self,
        shape: Shape,
        weights: Mapping[str, Tensor],
        names: Sequence[str],
        text: Sequence[Tensor],
        vision: Sequence[Tensor],
        strength: float = 10.0,
        eta: float = 0.5,
    ) -> None:
        super().__init__()
        self.student = PlainCLIP(shape, weights)
        self.teacher = PlainCLIP(shape, {key: value.clone() for key, value in weights.items()})
        self.text = nn.ParameterList(nn.Parameter(tokens.detach().clone()) for tokens in text)
        self.vision = nn.ParameterList(nn.Parameter(tokens.detach().clone()) for tokens in vision)
        self.strength, self.eta = strength, eta
        # The context's places hold any token: they are overwritten in `TextTower.forward`.
        filler = " ".join(["x"] * len(text[0]))
        with torch.no_grad():
            embedded, ends = _embed(self.student, [f"{filler} {n}." for n in names])
            teacher_texts = _embed(self.teacher, [f"a photo of a {name}." for name in names])
            teacher_text = torch.cat(
                [
                    self.teacher.text_tower(texts, ends)
                    for texts, ends in zip(*(t.split(64) for t in teacher_texts), strict=True)
                ]
            )
        self.register_buffer("embedded", embedded)
        self.register_buffer("ends", ends)
        self.register_buffer("teacher_text", teacher_text)

    def loss(self, images: Tensor, labels: Tensor, autocast: torch.dtype | None = None) -> Tensor:
        """The loss of one batch, 0-d."""
        with torch.autocast(images.device.type, autocast, enabled=autocast is not None):
            image = self.student.image_tower(images, list(self.vision))
            text = self.student.text_tower(self.embedded, self.ends, list(self.text))
            with torch.no_grad():
                teacher_image = self.teacher.image_tower(images)
        image, text = image.float(), text.float()
        cross_entropy = F.cross_entropy(LOGIT_SCALE * image @ text.T, labels)
        ours = torch.cat([image, text[labels]], dim=1)
        theirs = torch.cat([teacher_image.float(), self.teacher_text[labels]], dim=1)
        cost = self.eta * (ours[:, None] - theirs).square().sum(dim=-1)  # [B, B]
        plan = _plan(cost.detach().cpu().double().numpy())
        transport = (torch.as_tensor(plan, dtype=cost.dtype, device=cost.device) * cost).sum()
        return cross_entropy + self.strength * transport


def _plan(cost: np.ndarray) -> np.ndarray:
    """The cheapest coupling of two uniform populations, [B, B]."""
    size = len(cost)
    try:
        import ot
    except ImportError:
        from scipy.optimize import linear_sum_assignment

        plan = np.zeros_like(cost)
        plan[linear_sum_assignment(cost)] = 1 / size
        return plan
    uniform = np.full(size, 1 / size)
    return ot.emd(uniform, uniform, cost)


def _embed(model: PlainCLIP, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token embeddings [C, 77, W] of texts, padded, and the places of their end tokens [C]."""
    tokenizer = ClipTokenizer()
    ids = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.long)
    ends = []
    for row, text in zip(ids, texts, strict=True):
        tokens = tokenizer.encode(text)
        row[: len(tokens)] = torch.tensor(tokens)
        ends.append(len(tokens) - 1)
    device = model.text_tower.token_embedding.weight.device
    return model.text_tower.token_embedding(ids.to(device)), torch.tensor(ends, device=device)
