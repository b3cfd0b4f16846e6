"""How much arithmetic one Prompt-OT step needs, counted from the shapes.

Counted are the matrix products that no exact implementation can do without, two operations a
multiply-add; everything else (norms, activations, softmax) is left out, so the count is a lower
bound. With W the width, H = 4 W the hidden width of the MLP, a block costs

    rows · (4 W² + 4 W H)    query, output projection and MLP of the positions whose output is used
  + keys · 4 W²              keys and values of the positions that are looked at
  + pairs · 4 W              each query with each key it may look at, scores and weighted values

forward. Backward, only gradients towards the prompts are needed, none of the weights': products
with a constant matrix cost the same again, attention (two operands that vary) twice its forward.

What is not needed is not counted:

- positions whose output nobody reads: those of deep prompts, which the next block replaces, and in
  the last block all but the class token, or the end token of each class;
- in the first block, gradients of queries, keys and values that come from constants (patches, class
  names);
- in the text tower, everything after a class's end token, the shared context more than once, and
  the start token, which is a constant in all blocks;
- the teacher's text features, which are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from _common import Shape


@dataclass(frozen=True)
class Work:
    """Positions and pairs of one block."""

    rows: int
    keys: int
    pairs: int
    learned_rows: int  # of the first block: positions that gradients must reach
    learned_keys: int


@dataclass(frozen=True)
class NeededFlops:
    """Operations of one step, by part."""

    stem: int
    teacher_image: int
    student_image: int
    student_text: int
    loss: int

    @property
    def total(self) -> int:
        parts = (self.stem, self.teacher_image, self.student_image, self.student_text, self.loss)
        return sum(parts)


def needed_flops(
    shape: Shape,
    batch: int,
    name_lengths: Sequence[int],
    text_tokens: int = 4,
    text_depth: int = 12,
    vision_tokens: int = 4,
    vision_depth: int = 12,
) -> NeededFlops:
    """Operations of one step.

    Args:
        shape: of the model.
        batch: images.
        name_lengths: tokens of each class of its own: its name, the full stop and the end token.
        text_tokens, vision_tokens: prompts a block.
        text_depth, vision_depth: blocks that get prompts of their own.
    """
    patches = (shape.resolution // shape.patch) ** 2
    classes, own = len(name_lengths), sum(name_lengths)
    width, features = shape.image_width, shape.embed_dim

    def image_blocks(prompts: int, depth: int) -> list[Work]:
        positions = 1 + patches
        blocks = []
        for layer in range(shape.image_layers):
            last = layer == shape.image_layers - 1
            used = 1 if last else positions + (0 if layer + 1 < depth else prompts)
            learned = 0 if used <= positions else prompts
            blocks.append(
                Work(
                    batch * used,
                    batch * (positions + prompts),
                    batch * used * (positions + prompts),
                    batch * learned,
                    batch * prompts,
                )
            )
        return blocks

    def text_blocks() -> list[Work]:
        causal = sum(length * (length + 1) // 2 for length in name_lengths)
        blocks = []
        for layer in range(shape.text_layers):
            seen = 1 + text_tokens  # the start token and the context
            if layer == shape.text_layers - 1:
                used, context, pairs = classes, 0, classes * seen + own
            else:
                context = 0 if layer + 1 < text_depth else text_tokens
                used, pairs = own + context, own * seen + causal + context * (seen + 1) // 2
            blocks.append(Work(used, own + text_tokens, pairs, context, text_tokens))
        return blocks

    frozen = image_blocks(0, 0)
    prompted = image_blocks(vision_tokens, vision_depth)
    text = text_blocks()
    project_image = 2 * batch * width * features
    project_text = 2 * classes * shape.text_width * features
    return NeededFlops(
        stem=2 * batch * patches * 3 * shape.patch**2 * width,
        teacher_image=_forward(frozen, width) + project_image,
        student_image=_forward(prompted, width) + _backward(prompted, width) + 2 * project_image,
        student_text=_forward(text, shape.text_width)
        + _backward(text, shape.text_width)
        + 2 * project_text,
        # logits: one product forward, two backward; joint costs: one forward, one backward
        loss=6 * batch * classes * features + 2 * 2 * batch * batch * 2 * features,
    )


def _forward(blocks: Sequence[Work], width: int) -> int:
    return sum(
        block.rows * 20 * width**2 + block.keys * 4 * width**2 + block.pairs * 4 * width
        for block in blocks
    )


def _backward(blocks: Sequence[Work], width: int) -> int:
    total = 0
    for layer, block in enumerate(blocks):
        rows = block.learned_rows if layer == 0 else block.rows
        keys = block.learned_keys if layer == 0 else block.keys
        total += block.rows * 18 * width**2  # output projection and MLP
        total += rows * 2 * width**2 + keys * 4 * width**2 + block.pairs * 8 * width
    return total
