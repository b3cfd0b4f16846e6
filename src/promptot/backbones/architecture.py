"""The shape of a CLIP, and reading it from weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of one tower's transformer, and what its blocks are like.

    Attributes:
        width: W, of the tokens.
        layers: number of blocks.
        heads: of each block's attention.
        mlp_width: of what lies between the two products of an MLP.
        activation: a key of `transformer.ACTIVATIONS`.
        eps: of all norms.
        norms: where a block's two norms are: "before" what is added to the tokens is computed
            (CLIP), on the "branch" that is added (EVA02-E), or "after" it was added (BERT).
        gated: whether the MLP's activation is a factor on a second product (SwiGLU, GeGLU).
        attention_norm: whether what was attended is normalised before the last product (EVA02).
        mlp_norm: a norm of the MLP's own: on its "input" (ViTamin), on what is "hidden" between
            its products (EVA02), or None.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    eps: float = 1e-5
    norms: str = "before"
    gated: bool = False
    attention_norm: bool = False
    mlp_norm: str | None = None


@dataclass(frozen=True)
class PoolShape:
    """Attention pooling: one learned query looks at all tokens.

    Attributes:
        width: E, of the query.
        heads: of its attention.
        output: width of what comes out.
        mlp_width: of an MLP that is added at the end; None where there is none.
        activation: of that MLP.
        eps: of all norms.
        input_norm: whether the tokens are normalised first (CoCa).
        class_token: whether the class token is looked at too, where there is one (PE).
    """

    width: int
    heads: int
    output: int
    mlp_width: int | None = None
    activation: str = "gelu"
    eps: float = 1e-5
    input_norm: bool = False
    class_token: bool = True


@dataclass(frozen=True)
class ImageShape:
    """The image tower: its stem, then its transformer.

    Attributes:
        transformer: sizes of the blocks.
        patches: N, tokens that the stem gives.
        patch, patch_bias: side of CLIP's convolution, and whether it has a bias.
        trunk: a timm model whose feature map gives the tokens. At most one of `patch` and `trunk`
            is set; with neither, the stem comes as a module.
        pool: where the feature is read, see `ImageTower`.
        pre_norm: whether the tokens are normalised before the first block.
        class_token: whether a class token stands before the patches.
        rotary: whether queries and keys of the patches are rotated by their place (RoPE).
        final_norm: whether the tokens, or what was pooled of them, are normalised.
        projection: whether a matrix maps to the features; `projection_bias`: and a bias.
        attention_pool: for a `pool` by attention.
    """

    transformer: TransformerShape
    patches: int
    patch: int | None = None
    patch_bias: bool = False
    trunk: str | None = None
    pool: str = "class"
    pre_norm: bool = True
    class_token: bool = True
    rotary: bool = False
    final_norm: bool = True
    projection: bool = True
    projection_bias: bool = False
    attention_pool: PoolShape | None = None


@dataclass(frozen=True)
class TextShape:
    """The causal text tower, read at the end token.

    Attributes:
        transformer: sizes of the blocks.
        vocabulary, context_length: numbers of tokens and positions.
        projection: whether a matrix maps to the features; `projection_bias`: and a bias.
    """

    transformer: TransformerShape
    vocabulary: int
    context_length: int
    projection_bias: bool = False
    projection: bool = True


@dataclass(frozen=True)
class PaddedTextShape:
    """A text tower whose function includes its padding, see `PaddedTextTower`.

    Attributes:
        transformer: sizes of the blocks.
        vocabulary, context_length: numbers of tokens and positions.
        pad: the token that fills a text up.
        starts: tokens that begin every text, 0 or 1; learned context goes behind them.
        pool: where the feature is read: at the "first" position, the "last" of the whole length,
            the text's "end" (its last token), the "mean" of the text, or a "class" token of its
            own at the last position (CoCa).
        hidden_padding: whether padding is never looked at. Then a text is only as long as it is.
        token_norm: whether the tokens are normalised before the first block (BERT).
        final_norm: whether they are behind the last one.
        head: how what was read becomes the feature: "linear", "mlp" (GELU between two matrices),
            or "none"; `head_bias`: whether with a bias; `head_width`: between the matrices.
        pooler: whether it passes a layer with tanh first (BERT).
    """

    transformer: TransformerShape
    vocabulary: int
    context_length: int
    pad: int = 0
    starts: int = 1
    pool: str = "end"
    hidden_padding: bool = False
    token_norm: bool = False
    final_norm: bool = True
    head: str = "linear"
    head_bias: bool = False
    head_width: int | None = None
    pooler: bool = False


@dataclass(frozen=True)
class Architecture:
    """A CLIP's shape; every number of it is read from the weights or their configuration."""

    embed_dim: int
    image: ImageShape
    text: TextShape | PaddedTextShape


@dataclass(frozen=True)
class Untold:
    """What the tensors of a transformer don't tell."""

    heads: int
    activation: str
    eps: float = 1e-5


def infer_architecture(
    weights: Mapping[str, Tensor], untold: Sequence[Untold], pool: str = "class"
) -> Architecture:
    """The architecture of a plain CLIP's weights (keys `image_tower.*` and `text_tower.*`).

    Args:
        untold: what the tensors of the image tower and of the text tower don't tell.
        pool: where the image feature is read, see `ImageTower`.
    """
    image, text = untold
    kernel = weights.get("image_tower.stem.conv1.weight")
    return Architecture(
        embed_dim=weights["image_tower.proj"].shape[1],
        image=ImageShape(
            _infer_transformer(weights, "image_tower", image),
            patches=len(weights["image_tower.positional_embedding"]) - 1,
            patch=None if kernel is None else kernel.shape[-1],
            patch_bias="image_tower.stem.conv1.bias" in weights,
            pool=pool,
            pre_norm="image_tower.ln_pre.weight" in weights,
        ),
        text=TextShape(
            _infer_transformer(weights, "text_tower", text),
            vocabulary=len(weights["text_tower.token_embedding.weight"]),
            context_length=len(weights["text_tower.positional_embedding"]),
            projection_bias="text_tower.projection_bias" in weights,
        ),
    )


def _infer_transformer(
    weights: Mapping[str, Tensor], tower: str, untold: Untold
) -> TransformerShape:
    prefix = f"{tower}.transformer.resblocks."
    numbers = [key.removeprefix(prefix).split(".")[0] for key in weights if key.startswith(prefix)]
    return TransformerShape(
        width=weights[f"{tower}.positional_embedding"].shape[-1],
        layers=1 + max(map(int, numbers)),
        mlp_width=len(weights[f"{prefix}0.mlp.c_fc.weight"]),
        **asdict(untold),
    )
