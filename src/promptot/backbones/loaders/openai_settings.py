"""What a state dict in the OpenAI layout doesn't say: heads, activation and preprocessing.

The shapes of a LAION ViT-B/32 are those of OpenAI's, and its activation is another; a width of 1280
may be 20 heads of 64 or 16 of 80; no tensor tells how images were normalised. So whoever names
the file says it too, behind a question mark or in a JSON file beside it:

    openai:clip.safetensors?activation=gelu&heads=16&preprocess=openai
    clip.safetensors.json: {"activation": "gelu", "heads": [12, 8], "preprocess": "openai"}

One kind of file tells it all: OpenAI's own archives hold three numbers beside their weights
(`input_resolution`, `context_length`, `vocab_size`). All of OpenAI's Vision Transformers have
QuickGELU, heads of 64 and one preprocessing; and open_clip, transformers and OpenAI's own code drop
the numbers when they read the file, so that whatever was trained or saved with them has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from promptot.backbones.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from promptot.errors import PromptotError, nearest
from promptot.files.reading import Unreadable, read_json

OPENAI_HEAD_WIDTH = 64
OPENAI_PREPROCESS = {
    "mean": CLIP_MEAN,
    "std": CLIP_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
Channels = tuple[float, float, float]


class Unstated(PromptotError):  # noqa: N818 - what it is, not how it ends
    """Something that weights can't tell was not said.

    Attributes:
        as_openai: what appended to the name says that they are like OpenAI's own, or None if
            something else was said.
    """

    as_openai: str | None = None


class FileSettings(BaseModel):
    """What is said of a file; None where nothing is.

    Attributes:
        activation: of both towers.
        heads: of each block of the image tower and of the text tower; one number stands for both.
        preprocess: "openai" for what OpenAI's own code does, which the others here go before.
        mean, std: per channel, of pixel values in 0..1; one number stands for three.
        interpolation, resize_mode, fill: see `Preprocess`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    activation: Literal["gelu", "quick_gelu"] | None = None
    heads: tuple[int, int] | None = None
    preprocess: Literal["openai"] | None = None
    mean: Channels | None = None
    std: Channels | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill: int | None = None

    @field_validator("heads", "mean", "std", mode="before")
    @classmethod
    def _one_for_all(cls, value: Any, info: Any) -> Any:
        """ "12,8", [12, 8], "16" or 16 → a tuple."""
        parts = value.split(",") if isinstance(value, str) else value
        parts = list(parts) if isinstance(parts, list | tuple) else [parts]
        return tuple(parts * (2 if info.field_name == "heads" else 3) if len(parts) == 1 else parts)

    def over(self, other: FileSettings) -> FileSettings:
        """These, and what `other` says where these say nothing."""
        return FileSettings(
            **other.model_dump(exclude_none=True) | self.model_dump(exclude_none=True)
        )

    def preprocessing(self, resolution: int) -> Preprocess | None:
        """How images are read, or None if not all of it was said."""
        values: dict[str, Any] = dict(OPENAI_PREPROCESS) if self.preprocess else {}
        for key in (*OPENAI_PREPROCESS, "fill"):
            if getattr(self, key) is not None:
                values[key] = getattr(self, key)
        if not OPENAI_PREPROCESS.keys() <= values.keys():
            return None
        return Preprocess(resolution, **values)


OF_OPENAI = {"activation": "quick_gelu", "preprocess": "openai"}


def split_name(name: str) -> tuple[Path, FileSettings]:
    """ "FILE?key=value&key=value" → the file and what is said of it.

    Raises:
        PromptotError: an unknown key or value.

    Example:
        >>> path, said = split_name("clip.pt?heads=12,8&activation=gelu")
        >>> path.name, said.heads, said.activation
        ('clip.pt', (12, 8), 'gelu')
    """
    path, separator, query = name.rpartition("?")
    if not separator or Path(name).is_file():
        return Path(name), FileSettings()
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise PromptotError(
            f"'?{query}' does not say anything of the weights ({error}).",
            fix="Write it like '?activation=gelu&heads=12,8&preprocess=openai'.",
        ) from error
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise PromptotError(f"'?{query}' says something twice.", fix="Say each thing once.")
    return Path(path), _validate(dict(pairs), f"'?{query}'")


def beside(path: Path) -> FileSettings:
    """What the JSON file beside the weights says, "<file>.json"; nothing if there is none.

    Raises:
        PromptotError: it can't be read, or holds an unknown key or value.
    """
    file = path.with_name(f"{path.name}.json")
    if not file.is_file():
        return FileSettings()
    try:
        values = read_json(file)
    except Unreadable as error:
        raise PromptotError(
            f"'{file}', which should describe the weights beside it, can't be read ({error}).",
            fix='Write it like {"activation": "gelu", "heads": [12, 8], "preprocess": "openai"}.',
        ) from error
    return _validate(values, f"'{file}'")


def openai_own(image_width: int, text_width: int) -> FileSettings:
    """What is true of all of OpenAI's Vision Transformers."""
    heads = image_width // OPENAI_HEAD_WIDTH, text_width // OPENAI_HEAD_WIDTH
    return FileSettings(heads=heads, **OF_OPENAI)


def require(
    said: FileSettings, path: Path, image_width: int, text_width: int
) -> tuple[tuple[int, int], str]:
    """Heads and activation of a file; one of which not all is known is refused.

    Raises:
        Unstated: something was not said; the fix is what to append to the name.
        PromptotError: the heads don't divide the widths.
    """
    missing = {
        "its activation": ("activation=quick_gelu", said.activation is None),
        "its numbers of heads": (
            f"heads={image_width // OPENAI_HEAD_WIDTH},{text_width // OPENAI_HEAD_WIDTH}",
            said.heads is None,
        ),
        "how it wants its images": ("preprocess=openai", said.preprocessing(1) is None),
    }
    asked = [text for text, absent in missing.values() if absent]
    if asked:
        query = "&".join(asked)
        what = " and ".join(name for name, (_, absent) in missing.items() if absent)
        sign = "&" if said != FileSettings() else "?"
        error = Unstated(
            f"The tensors of '{path}' don't tell {what}.",
            fix=f"Append '{sign}{query}' to the name (in a shell, the whole name in quotes) if "
            "that is how the model was trained: it is for OpenAI's own, whose shapes other models "
            "share. For LAION, DataComp and others, "
            "take activation=gelu or quick_gelu, heads=IMAGE,TEXT and preprocess=openai (or mean, "
            "std, interpolation, resize_mode) from the model's card. "
            f"'{path.name}.json' beside the file may say the same.",
        )
        error.as_openai = f"?{query}" if said == FileSettings() else None
        raise error
    assert said.heads is not None
    assert said.activation is not None
    for tower, heads, width in zip(
        ("image", "text"), said.heads, (image_width, text_width), strict=True
    ):
        if heads < 1 or width % heads:
            raise PromptotError(
                f"The {tower} tower of '{path}' is {width} wide, which {heads} heads don't divide.",
                fix="Correct 'heads' (first those of the image tower, then those of the text "
                "tower).",
            )
    return said.heads, said.activation


def _validate(values: Mapping[str, Any] | Any, where: str) -> FileSettings:
    try:
        return FileSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            raise PromptotError(
                f"{where} says '{key}', which is nothing that can be said of weights.",
                fix=nearest(key, FileSettings.model_fields),
            ) from error
        raise PromptotError(
            f"{where}: {key or 'it'} is not understood ({first['msg'].rstrip('.')}).",
            fix="Write it like '?activation=gelu&heads=12,8&preprocess=openai'.",
        ) from error
