"""Text towers whose function includes their padding.

Where attention is not causal, a text is not a prefix of anything: what a token becomes depends on
all that follow it, and in most of these models the padding is part of that. So texts are filled up
as the model was trained, and two things remain that are exact and free: in the last block only the
position is computed that is read, and what a block makes of learned context is not computed where
the next block replaces it. Where padding is hidden from attention, it is left out.

Names are computed some at a time, always the same ones together. In the backward pass each part can
be computed again instead of being kept (`recompute`), which changes no bit of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from promptot.backbones.architecture import PaddedTextShape
from promptot.backbones.encoders import Packed, TextEncoder, TokenTable
from promptot.backbones.injection import FROZEN, Injection
from promptot.backbones.towers.activations import delta_bytes, padded_text_bytes
from promptot.backbones.towers.adapted_block import adapted
from promptot.backbones.towers.transformer import Block, Transformer
from promptot.errors import PromptotError

TOGETHER = 64
"""Texts that are computed at a time: enough rows for the products, little enough to keep."""
POOLS = ("first", "last", "end", "mean", "class")
HEADS = ("linear", "mlp", "none")


@dataclass(frozen=True, eq=False)
class PaddedText:
    """C token sequences, filled up to the longest.

    Attributes:
        ids: token ids [C, R].
        lengths: tokens of each, without padding, [C].
        places: positions that each takes in the tower, learned context not counted.
    """

    ids: Tensor
    lengths: Tensor
    places: int

    @property
    def classes(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        return self.classes * self.places

    def to(self, device: torch.device | str) -> PaddedText:
        return PaddedText(self.ids.to(device), self.lengths.to(device), self.places)


class PaddedTextTower(TextEncoder):
    """Transformer over class names that are filled up as the model was trained.

    Learned context stands where words would, behind the tokens that begin a text, and gets their
    position embeddings; a mean over the text counts it, as it counts words.

    Args:
        shape: sizes, and what the model does with padding.
        embed_dim: size D of the features.

    Attributes:
        recompute: whether what the backward pass needs is computed again rather than kept.
    """

    def __init__(self, shape: PaddedTextShape, embed_dim: int) -> None:
        super().__init__()
        for what, value, known in (("pool", shape.pool, POOLS), ("head", shape.head, HEADS)):
            if value not in known:
                raise ValueError(f"{what} must be one of {known}, not {value!r}")
        self.shape = shape
        self.width = width = shape.transformer.width
        self.context_length = length = shape.context_length
        self.starts = shape.starts
        self.pad = shape.pad
        self.pool = shape.pool
        self.hidden_padding = shape.hidden_padding
        self.recompute = False
        eps = shape.transformer.eps
        positions = length + (shape.pool == "class")
        self.token_embedding = nn.Embedding(shape.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(positions, width) * 0.01)
        own = nn.Parameter(torch.randn(width) * 0.01) if shape.pool == "class" else None
        self.class_embedding = own
        self.ln_tokens = nn.LayerNorm(width, eps=eps) if shape.token_norm else nn.Identity()
        self.transformer = Transformer(shape.transformer)
        self.ln_final = nn.LayerNorm(width, eps=eps) if shape.final_norm else nn.Identity()
        self.pooler = nn.Linear(width, width) if shape.pooler else None
        sizes = {"linear": (width, embed_dim), "mlp": (shape.head_width or width, embed_dim)}
        self.hidden_projection: nn.Parameter | None = None
        self.text_projection: nn.Parameter | None = None
        if shape.head != "none":
            rows, columns = sizes[shape.head]
            self.text_projection = nn.Parameter(torch.randn(rows, columns) * rows**-0.5)
            if shape.head == "mlp":
                self.hidden_projection = nn.Parameter(torch.randn(width, rows) * width**-0.5)
        bias = nn.Parameter(torch.zeros(embed_dim)) if shape.head_bias else None
        self.projection_bias = bias

    @property
    def layers(self) -> int:
        return len(self.transformer.resblocks)

    @property
    def mlp_width(self) -> int:
        return self.shape.transformer.mlp_width

    @property
    def _grows(self) -> bool:
        """Whether a text takes only the places that it needs."""
        return self.hidden_padding or self.pool == "class"

    def store_matrices(self, dtype: torch.dtype) -> None:
        self.transformer.store_matrices(dtype)

    def pack(self, sequences: Sequence[Sequence[int]], *, prompted: bool = False) -> PaddedText:
        if not sequences:
            raise PromptotError("There are no class names.", fix="Give at least one.")
        lengths = torch.tensor([len(tokens) for tokens in sequences])
        longest = int(lengths.max())
        ids = torch.full((len(sequences), longest), self.pad)
        for row, tokens in zip(ids, sequences, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        found = PaddedText(ids, lengths, self._places(longest))
        return found.to(self.positional_embedding.device)

    def _places(self, longest: int) -> int:
        if self._grows:
            return min(self.context_length, longest + 2 * (self.pool == "class"))
        return self.context_length

    def add_words(self, packed: Packed, words: TokenTable) -> PaddedText:
        text = _own(packed)
        longest = max(text.ids.shape[1], words.ids.shape[1])
        places = torch.arange(words.ids.shape[1], device=text.ids.device)
        ids = words.ids.masked_fill(places >= words.lengths[:, None], self.pad)
        both = [F.pad(own, (0, longest - own.shape[1]), value=self.pad) for own in (text.ids, ids)]
        lengths = torch.cat([text.lengths, words.lengths])
        return PaddedText(torch.cat(both), lengths, self._places(longest))

    def activation_bytes(self, packed: Packed, injection: Injection, images: int) -> int:
        text = _own(packed)
        if not injection.changes_text:
            return 0
        own = injection.text_tokens[0].shape[-2] if injection.text_tokens else 0
        places = min(text.places + own * self._grows, self.context_length + 1)
        rows = text.classes * (1 if injection.text_shift is None else images)
        if self.recompute:
            rows = min(rows, TOGETHER)
        kept = padded_text_bytes(self.transformer, rows * places, whole=self.pool == "mean")
        return kept + delta_bytes(rows * places, injection.text_deltas)

    def encode(self, packed: Packed, injection: Injection = FROZEN) -> Tensor:
        """Features [C, D], not normalised, in the order of the class names.

        The first of the injected tokens, [n, W] or, class-specific, [C, n, W], are inserted behind
        the tokens that begin every text; those of each later block replace them there. With one
        context an image, [B, n, W], the features are [B, C, D].
        """
        text, images = _own(packed), injection.images
        names = torch.arange(text.classes, device=text.ids.device)
        contexts = names
        if images is not None:
            names = names.repeat(images)
            contexts = torch.arange(images, device=names.device).repeat_interleave(text.classes)
        context = injection.text_tokens
        deltas = injection.text_deltas
        blocks = adapted(self.transformer.blocks, deltas)
        # entries that are dropped would be other ones the second time
        same = not any(own.dropout for block in deltas for own in block.values())
        learns = torch.is_grad_enabled() and injection.changes_text
        recomputed = self.recompute and learns and same
        features = []
        for some, own in zip(names.split(TOGETHER), contexts.split(TOGETHER), strict=True):
            chosen = [tokens[own] if tokens.dim() == 3 else tokens for tokens in context]
            part = text.ids[some], text.lengths[some], *chosen
            if recomputed:
                found = checkpoint(
                    self._encode, blocks, *part, use_reentrant=False, preserve_rng_state=False
                )
                assert isinstance(found, Tensor)
                features.append(found)
            else:
                features.append(self._encode(blocks, *part))
        together = torch.cat(features)
        return together if images is None else together.unflatten(0, (images, text.classes))

    def _encode(
        self, blocks: Sequence[Block], ids: Tensor, lengths: Tensor, *context: Tensor
    ) -> Tensor:
        """Features [c, D] of some texts, each with its context [c, n, W] or the same one [n, W]."""
        own = context[0].shape[-2] if context else 0
        ids = self._filled(ids, own)
        x, kept = self._embed(ids, context)
        visible = self._visible(ids, own)
        *others, last = blocks
        for depth, block in enumerate(others, start=1):
            if depth < len(context):  # what this block makes of the context, the next does not read
                replaced = context[depth].expand(len(x), -1, -1)
                x = torch.cat([block(x, kept, visible=visible), replaced], dim=1)
            else:
                x = block(x, visible=visible)
        return self._project(self._read(last, x, kept, lengths, visible))

    def _filled(self, ids: Tensor, own: int) -> Tensor:
        """Token ids [c, R] with as much padding as belongs to the function."""
        if self.hidden_padding:
            return ids
        places = self.context_length - own
        if self.pool == "class":  # one place behind the text is looked at, what follows is not
            places = min(places, ids.shape[1] + 1)
        return F.pad(ids, (0, places - ids.shape[1]), value=self.pad)

    def _embed(self, ids: Tensor, context: Sequence[Tensor]) -> tuple[Tensor, int]:
        """Tokens [c, kept + n, W], the context behind the others; and how many others there are."""
        own = context[0].shape[-2] if context else 0
        places, starts = self.positional_embedding, self.starts
        count = ids.shape[1]
        x = self.token_embedding(ids)
        x = x + torch.cat([places[:starts], places[starts + own : count + own]])
        if self.class_embedding is not None:
            last = (self.class_embedding + places[-1]).expand(len(x), 1, -1)
            x = torch.cat([x, last], dim=1)
        kept = x.shape[1]
        if context:
            inserted = context[0] + places[starts : starts + own]
            x = torch.cat([x, inserted.expand(len(x), -1, -1)], dim=1)
        return self.ln_tokens(x), kept

    def _visible(self, ids: Tensor, own: int) -> Tensor | None:
        """True where a token may look, [c, 1, 1 or L, L]; None where it may look anywhere."""
        if self.pool != "class" and not self.hidden_padding:
            return None
        word = ids != self.pad  # [c, R]
        if self.hidden_padding:
            context = word.new_ones(len(word), own)
            return torch.cat([word, context], dim=1)[:, None, None]
        # CoCa hides padding one place too late, which its weights were trained with: a token is
        # looked at if the one before it is a word, the class token if the last of all is one.
        count = ids.shape[1]
        order = self._order(count, own)  # the place of each token, [L]
        words = word.new_ones(len(word), count + own + 1)  # by place, the class token last
        words[:, order[:count]] = word
        full = count + own == self.context_length
        words[:, -1] = word[:, -1] if full else False
        shown = torch.cat([words.new_ones(len(word), 1), words[:, :-2], words[:, -1:]], dim=1)
        causal = order[None, :] <= order[:, None]  # [L, L]
        return (shown[:, order][:, None] & causal)[:, None]

    def _order(self, count: int, own: int) -> Tensor:
        """The place in the text of each token: of `count` words, the class token, the context."""
        place = torch.arange(count + own + 1, device=self.positional_embedding.device)
        starts = self.starts
        return torch.cat([place[:starts], place[starts + own :], place[starts : starts + own]])

    def _read(
        self, last: Block, x: Tensor, kept: int, lengths: Tensor, visible: Tensor | None
    ) -> Tensor:
        """What the last block makes of the position that is read, [c, W], normalised."""
        if self.pool == "mean":
            out = self.ln_final(last(x, visible=visible))  # [c, L, W]
            if visible is None:
                return out.mean(dim=1)
            words = visible[:, 0, 0, :, None].to(out.dtype)
            return (out * words).sum(dim=1) / words.sum(dim=1)
        position: int | Tensor = 0 if self.pool == "first" else kept - 1
        if self.pool == "end":
            position = lengths - 1
        rows = visible
        if visible is not None and visible.shape[-2] > 1:
            rows = visible[..., kept - 1, None, :]
        return self.ln_final(last.read(x, position, visible=rows)[:, 0])

    def _project(self, x: Tensor) -> Tensor:  # [c, W] → [c, D]
        if self.pooler is not None:
            x = torch.tanh(self.pooler(x))
        if self.hidden_projection is not None:
            x = F.gelu(x @ self.hidden_projection)
        if self.text_projection is not None:
            x = x @ self.text_projection
        return x if self.projection_bias is None else x + self.projection_bias


def _own(packed: Packed) -> PaddedText:
    assert isinstance(packed, PaddedText), "this tower packed it"
    return packed
