"""Weights from transformers' CLIP, SigLIP and MetaCLIP 2: a hub repository or a local folder."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from promptot.backbones.backbone import Backbone
from promptot.backbones.library_warnings import refuse_warnings
from promptot.backbones.loaders.transformers_families import Family, find_family, refuse_code
from promptot.backbones.loaders.transformers_processors import (
    check_processor,
    processor_class,
    read_preprocess,
)
from promptot.backbones.loaders.transformers_shapes import check_images, image_side
from promptot.backbones.loaders.transformers_tokenizers import check_words, tokenizer_class
from promptot.backbones.preprocess import Preprocess
from promptot.backbones.tokenizer import Tokenizer
from promptot.errors import PromptotError


class _ReadingError(PromptotError):
    """The library could not read something: a file that is not there, or not what it should be."""


def load_transformers(source: str) -> Backbone:
    """Load a model with its tokenizer and preprocessing from a repository or folder.

    It is a CLIPModel, a SiglipModel (SigLIP, and SigLIP 2 with a fixed grid) or a MetaClip2Model.
    Once a repository is in the cache of the Hugging Face hub, no network is asked for it. No code
    of a repository is run, and of a pickled file nothing but tensors is read.

    Raises:
        PromptotError: transformers or a library of the tokenizer is not installed, nothing can be
            loaded from `source`, weights are missing, transformers warns, the model is of another
            kind or needs code of its own, or its images or texts are read in a way that is not
            known here.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise PromptotError(
            "Loading 'hf:' weights needs transformers.", fix="pip install 'promptot[hf]'"
        ) from error
    try:
        return _load(source, local_files_only=True)
    except _ReadingError:
        if Path(source).is_dir():
            raise
    return _load(source)


def _load(source: str, **where: bool) -> Backbone:
    from transformers import PretrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    with _reading(source):
        described, _ = PretrainedConfig.get_config_dict(source, **where)
        if not described:
            raise ValueError("there is no config.json")
        family = find_family(described, source)
    # What a library says while it is imported, which these names cause, is not about weights.
    models, configs = family.classes()
    processors = processor_class(family.processor)
    with _reading(source):
        images, _ = processors.get_image_processor_dict(source, **where)
        refuse_code(images, source)
        check_processor(images, family.processor, source)
        words = get_tokenizer_config(source, **where)
        refuse_code(words, source)
        if not words and len(family.tokenizers) > 1:
            raise ValueError("there is no tokenizer_config.json")
        config = configs.from_pretrained(source, **where)
    check_images(config)
    tokenizers = tokenizer_class(words, family.tokenizers, source)
    with _reading(source):
        tokenizer = tokenizers.from_pretrained(source, **where)
        check_words(tokenizer)
        processor = processors.from_pretrained(source, **where)
        model, info = models.from_pretrained(
            source,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused by name below
            **_tensors_only(models),
            **where,
        )
        _check_complete(info, family.model, source)
    preprocess = read_preprocess(processor, image_side(config))
    return convert(model, family, family.tokenizer(tokenizer, config, source), preprocess, source)


def convert(
    model: Any, family: Family, tokenizer: Tokenizer, preprocess: Preprocess, source: str
) -> Backbone:
    """A model of transformers → a backbone."""
    weights = family.weights(model.state_dict())
    architecture = family.architecture(model.config, weights, tokenizer)
    return Backbone.from_weights(f"hf:{source}", weights, architecture, tokenizer, preprocess)


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """Around calls of the library that read files: what it raises or warns of becomes our error."""
    with refuse_warnings("transformers", f"hf:{source}"):
        try:
            yield
        except PromptotError:
            raise
        except Exception as error:  # network, files, configuration, a pickle that is not tensors
            where = "folder" if Path(source).is_dir() else "repository"
            raise _ReadingError(
                f"transformers could not load a CLIP from the {where} '{source}': {error}",
                fix="It needs the configuration, the weights (as safetensors, or as tensors that "
                "torch saved), the tokenizer and the preprocessor as `save_pretrained` writes "
                "them.",
            ) from error


def _tensors_only(models: Any) -> dict[str, bool]:
    """What keeps `from_pretrained` from unpickling more than tensors.

    transformers has an argument for it from 4.46 on; 4.45 always reads so, and hands an argument
    that it does not know to the model, which refuses it.
    """
    known = "weights_only" in inspect.signature(models.from_pretrained).parameters
    return {"weights_only": True} if known else {}


def _check_complete(info: Mapping[str, Any], kind: str, source: str) -> None:
    """Refuse a model of which the file holds less, or something else."""
    for what, keys in (
        ("are missing and would be random", info["missing_keys"]),
        ("are of another shape", info["mismatched_keys"]),
        (f"have no place in a {kind}", info["unexpected_keys"]),
    ):
        names = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
        names = [name for name in names if not name.endswith("position_ids")]
        if names:
            more = " ..." if len(names) > 3 else ""
            raise PromptotError(
                f"Weights of '{source}' {what}: {', '.join(names[:3])}{more} ({len(names)}).",
                fix=f"Use a checkpoint of a whole {kind}.",
            )
