"""Which models of transformers are read, and what each kind asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from promptot.backbones.architecture import Architecture
from promptot.backbones.layouts import from_siglip, from_transformers
from promptot.backbones.loaders.transformers_shapes import clip_architecture, siglip_architecture
from promptot.backbones.loaders.transformers_tokenizers import (
    TransformersTokenizer,
    check_size,
    read_at_end,
    read_padded,
)
from promptot.backbones.tokenizer import Tokenizer
from promptot.errors import PromptotError

Weights = Mapping[str, Tensor]
OLDEST = "4.56"
"""The first version of transformers that has all of them."""
CLIP_EXAMPLE = "'hf:openai/clip-vit-base-patch16'"


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Attributes:
        prefix: of its classes in transformers: "CLIP" of CLIPModel and CLIPConfig.
        processor: its image processor.
        tokenizers: classes of its tokenizer, without "Fast"; its own first.
        weights: of its state dict, those under our names.
        architecture: of its configuration, weights under our names and tokenizer.
        tokenizer: of transformers' tokenizer, configuration and source, ours.
    """

    prefix: str
    processor: str
    tokenizers: tuple[str, ...]
    weights: Callable[[Weights], dict[str, Tensor]]
    architecture: Callable[[Any, Weights, Tokenizer], Architecture]
    tokenizer: Callable[[Any, Any, str], TransformersTokenizer]

    @property
    def model(self) -> str:
        return f"{self.prefix}Model"

    def classes(self) -> tuple[Any, Any]:
        """Its model and its configuration in transformers.

        Raises:
            PromptotError: the version that is installed does not have them.
        """
        import transformers

        found = tuple(getattr(transformers, f"{self.prefix}{n}", None) for n in ("Model", "Config"))
        if None in found:
            raise PromptotError(
                f"A {self.model} needs transformers {OLDEST} or newer, and "
                f"{transformers.__version__} is installed.",
                fix=f"pip install -U 'transformers>={OLDEST}'",
            )
        return found[0], found[1]


def _clip_tokenizer(tokenizer: Any, config: Any, source: str) -> TransformersTokenizer:
    text = config.text_config
    check_size(tokenizer, text.vocab_size, source)
    # transformers reads at the largest id where the configuration says 2, as old ones wrongly do
    read_at = len(tokenizer) - 1 if text.eos_token_id == 2 else text.eos_token_id
    return read_at_end(tokenizer, read_at, source)


def _metaclip_2_tokenizer(tokenizer: Any, config: Any, source: str) -> TransformersTokenizer:
    check_size(tokenizer, config.text_config.vocab_size, source)
    return read_at_end(tokenizer, config.text_config.eos_token_id, source)


def _siglip_tokenizer(tokenizer: Any, config: Any, source: str) -> TransformersTokenizer:
    check_size(tokenizer, config.text_config.vocab_size, source)
    return read_padded(tokenizer, source)


_ANY_FILE = ("PreTrainedTokenizer", "TokenizersBackend")  # a tokenizer.json, read as it is
FAMILIES = {
    "clip": Family(
        "CLIP",
        "CLIPImageProcessor",
        ("CLIPTokenizer",),
        from_transformers,
        clip_architecture,
        _clip_tokenizer,
    ),
    "siglip": Family(
        "Siglip",
        "SiglipImageProcessor",
        ("SiglipTokenizer", "GemmaTokenizer", "Siglip2Tokenizer", *_ANY_FILE),
        from_siglip,
        siglip_architecture,
        _siglip_tokenizer,
    ),
    "metaclip_2": Family(
        "MetaClip2",
        "CLIPImageProcessor",
        ("XLMRobertaTokenizer", *_ANY_FILE),
        from_transformers,
        clip_architecture,
        _metaclip_2_tokenizer,
    ),
}
"""By "model_type" in config.json; SigLIP 2 with a fixed grid says "siglip" there too."""


def find_family(config: Mapping[str, Any], source: str) -> Family:
    """The family of a model by its config.json.

    Raises:
        PromptotError: it is of none, or needs code of its own.
    """
    kind = str(config.get("model_type"))
    family = FAMILIES.get(kind)
    if family is None or family.model not in (config.get("architectures") or ()):
        refuse_code(config, source)
    if kind == "siglip2":
        raise PromptotError(
            f"'{source}' is a SigLIP 2 of the kind NaFlex, whose grid of patches is another one "
            "for each image, and that is not supported.",
            fix="Use a SigLIP 2 with a fixed grid, such as 'hf:google/siglip2-base-patch16-256' or "
            "'open_clip:ViT-B-16-SigLIP2-256/webli'.",
        )
    if family is None:
        known = ", ".join(each.model for each in FAMILIES.values())
        raise PromptotError(
            f"A transformers model of the type '{kind}' is not supported yet.",
            fix=f"Use one of: {known}; such as {CLIP_EXAMPLE}.",
        )
    return family


def refuse_code(config: Mapping[str, Any], source: str) -> None:
    """Refuse what a configuration would have run.

    Raises:
        PromptotError: it names code of the repository.
    """
    named = (config.get("auto_map") or {}).values()
    code = sorted({str(one) for value in named for one in _listed(value) if one is not None})
    if code:
        raise PromptotError(
            f"'{source}' needs code of its own ({', '.join(code)}), and no code of a repository "
            "is run.",
            fix=f"Use a CLIPModel of transformers, such as {CLIP_EXAMPLE}.",
        )


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]
