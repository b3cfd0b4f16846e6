"""Lists of sentences whose features are averaged, by the names that recipes use."""

from __future__ import annotations

from typing import Any

from promptot.data.class_names import check_template
from promptot.files.reading import brief

ENSEMBLES = ("one", "imagenet-7", "imagenet-60", "imagenet-80")


def named_templates(name: str) -> tuple[str, ...]:
    """The sentences of an ensemble.

    imagenet-80 and imagenet-7 are CLIP's own (Radford et al. 2021), as open_clip lists them;
    imagenet-60 are the first 60 of the 80, which PromptSRC's teacher reads (Khattak et al. 2023).

    Example:
        >>> len(named_templates("imagenet-60")), named_templates("imagenet-7")[0]
        (60, 'itap of a {}.')
    """
    from open_clip.zero_shot_metadata import (
        OPENAI_IMAGENET_TEMPLATES,
        SIMPLE_IMAGENET_TEMPLATES,
    )

    full = tuple(sentence("{}") for sentence in OPENAI_IMAGENET_TEMPLATES)
    few = tuple(sentence("{}") for sentence in SIMPLE_IMAGENET_TEMPLATES)
    return {"imagenet-7": few, "imagenet-60": full[:60], "imagenet-80": full}[name]


def check_templates(value: Any) -> str | tuple[str, ...]:
    """An ensemble's name, or sentences with one place for the class name each.

    Raises:
        ValueError: it is neither.
        PromptotError: a sentence has no `{}`, or more than one.
    """
    if isinstance(value, str) and value in ENSEMBLES:
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(text, str) for text in value):
        for text in value:
            check_template(text)
        return tuple(value)
    raise ValueError(
        f"data.templates is {brief(value)}; it should be {', '.join(ENSEMBLES)}, or a list of "
        "sentences"
    )


def teacher_templates(templates: str | tuple[str, ...], template: str) -> str | tuple[str, ...]:
    """What the frozen model reads: the sentences that `templates` asks for, or `template` alone.

    Example:
        >>> teacher_templates("one", "a photo of a {}."), len(teacher_templates("imagenet-80", ""))
        ('a photo of a {}.', 80)
    """
    if templates == "one":
        return template
    return named_templates(templates) if isinstance(templates, str) else templates
