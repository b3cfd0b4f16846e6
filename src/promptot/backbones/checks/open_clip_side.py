"""The side of open_clip: its own model and tokenizer, by its public functions alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from promptot.backbones.checks.library_towers import (
    reads_at_end,
    told_by_open_clip_image,
    told_by_open_clip_text,
    up_to_end,
)
from promptot.backbones.checks.side import Reading, Side, settings_of


def open_clip_side(spec: str) -> Side:
    """The model that open_clip makes of `<arch>/<tag>`, `hf-hub:…` or `local-dir:…`."""
    import open_clip

    if spec.startswith(("local-dir:", "hf-hub:")):
        model_name, tag, chosen = spec, None, {}
    else:
        model_name, _, tag = spec.rpartition("/")
        described = open_clip.pretrained.get_pretrained_cfg(model_name, tag)
        chosen = {key: described[key] for key in ("quick_gelu",) if key in described}
    model, _, transform = open_clip.create_model_and_transforms(
        model_name, pretrained=tag, precision="fp32", **chosen
    )
    model = model.eval()
    tokenizer = open_clip.get_tokenizer(model_name)
    visual, text = model.visual, getattr(model, "text", model)
    config = visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    names = ("mean", "std", "interpolation", "resize_mode")
    reading = Reading(size, *(config[name] for name in names))

    def tokens(words: str) -> list[int]:
        ids: list[int] = tokenizer([words])[0].tolist()
        return up_to_end(text, ids) if reads_at_end(text) else ids

    def encode_texts(texts: Sequence[str]) -> Tensor:
        features: Tensor = model.encode_text(tokenizer(list(texts)), normalize=True)
        return features

    bias = getattr(model, "logit_bias", None)
    return Side(
        f"open_clip {open_clip.__version__}",
        settings_of(
            told_by_open_clip_image(visual),
            told_by_open_clip_text(text, tokenizer(["x"])[0].tolist()),
            reading,
        ),
        float(model.logit_scale.detach().exp()),
        transform,
        tokens,
        partial(model.encode_image, normalize=True),
        encode_texts,
        None if bias is None else float(bias.detach()),
    )
