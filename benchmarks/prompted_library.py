"""Prompts in a library's own models: hooks on its modules, nothing of ours.

A hook after the embedding of a text puts the context where placeholder words stand; hooks before
blocks replace tokens there. In an image tower the prompts join the sequence before the first norm
and leave it behind the last block. Everything between is the library's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def context_in_text(text: Any, context: Sequence[Tensor], start: int) -> Iterator[None]:
    """The text tower's tokens from `start` on are the context, [n, W] a block.

    Args:
        text: an open_clip text tower, a CLIP that holds its parts, or an `HFTextEncoder`.
    """
    inner = text.transformer
    place = slice(start, start + len(context[0]))

    def embedded(_: Any, __: Any, out: Tensor) -> Tensor:
        return _with(out, place, context[0])

    with contextlib.ExitStack() as stack:
        stack.callback(_embedding(text).register_forward_hook(embedded).remove)
        for depth, block in enumerate(_blocks(inner)):
            if 0 < depth < len(context):
                stack.callback(_replace_before(block, place, context[depth]))
        yield


def _embedding(text: Any) -> nn.Module:
    inner = text.transformer
    for owner, name in (
        (text, "token_embedding"), (inner, "embed_tokens"),
        (getattr(inner, "embeddings", None), "word_embeddings"),
    ):  # fmt: skip
        if hasattr(owner, name):
            found: nn.Module = getattr(owner, name)
            return found
    raise AssertionError("no embedding of tokens")


def _blocks(inner: Any) -> Any:
    if hasattr(inner, "resblocks"):
        return inner.resblocks
    return inner.layers if hasattr(inner, "layers") else inner.encoder.layer


def _replace_before(block: nn.Module, place: slice, tokens: Tensor) -> Any:
    def replaced(_: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (_with(args[0], place, tokens), *args[1:]), kwargs
        name = "hidden_states"
        return args, {**kwargs, name: _with(kwargs[name], place, tokens)}

    return block.register_forward_pre_hook(replaced, with_kwargs=True).remove


def _with(x: Tensor, place: slice, tokens: Tensor) -> Tensor:
    own = tokens.expand(len(x), *tokens.shape[-2:])
    return torch.cat([x[:, : place.start], own, x[:, place.stop :]], dim=1)


@contextlib.contextmanager
def prompts_in_image(visual: Any, prompts: Sequence[Tensor]) -> Iterator[None]:
    """The image tower's blocks see prompts, [m, W] a block, beside the tokens of the image.

    In timm's towers they follow the class token and count as tokens of its kind, which are not
    rotated; where a token stands does not matter to attention.
    """
    count = len(prompts[0])
    trunk = getattr(visual, "trunk", None)
    before, blocks, after, first = (
        (visual.ln_pre, visual.transformer.resblocks, visual.transformer, None)
        if trunk is None
        else (trunk.norm_pre, trunk.blocks, None, trunk.num_prefix_tokens)
    )

    def joined(_: Any, args: Any) -> Any:
        x = args[0]
        own = prompts[0].expand(len(x), -1, -1)
        at = x.shape[1] if first is None else first
        return (torch.cat([x[:, :at], own, x[:, at:]], dim=1),)

    def place_in(length: int) -> slice:
        return slice(length - count, length) if first is None else slice(first, first + count)

    def left(x: Tensor) -> Tensor:
        place = place_in(x.shape[1])
        return torch.cat([x[:, : place.start], x[:, place.stop :]], dim=1)

    with contextlib.ExitStack() as stack:
        stack.callback(before.register_forward_pre_hook(joined).remove)
        for depth, block in enumerate(blocks):
            if 0 < depth < len(prompts):

                def replaced(_: Any, args: Any, depth: int = depth) -> Any:
                    x = args[0]
                    return (_with(x, place_in(x.shape[1]), prompts[depth]), *args[1:])

                stack.callback(block.register_forward_pre_hook(replaced).remove)
            if trunk is not None and hasattr(block.attn, "num_prefix_tokens"):
                block.attn.num_prefix_tokens += count
                stack.callback(_less, block.attn, count)
        if after is not None:
            hook = after.register_forward_hook(lambda _, __, out: left(out))
            stack.callback(hook.remove)
        else:
            hook = trunk.norm.register_forward_pre_hook(lambda _, args: (left(args[0]),))
            stack.callback(hook.remove)
        yield


def _less(attn: Any, count: int) -> None:
    attn.num_prefix_tokens -= count
