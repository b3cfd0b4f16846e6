"""The other side of a check: a backbone's own library, or the plain computation.

Each library's side is built through that library's public functions alone and shares no code with
our loaders and towers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from promptot.backbones.checks.open_clip_side import open_clip_side
from promptot.backbones.checks.plain_sides import bundled_side, openai_side
from promptot.backbones.checks.side import Side
from promptot.backbones.checks.transformers_side import transformers_side
from promptot.backbones.library_warnings import quiet
from promptot.errors import PromptotError

SIDES: Mapping[str, Callable[[str], Side]] = {
    "open_clip": open_clip_side,
    "hf": transformers_side,
    "openai": openai_side,
    "bundled": bundled_side,
}
"""Sources of `by_name` → what makes their side of what follows the colon."""


def library_side(name: str) -> Side:
    """The library's own model of a backbone's name.

    Raises:
        PromptotError: it can't be loaded.
    """
    source, _, rest = name.partition(":")
    try:
        with quiet(), torch.no_grad():
            return SIDES[source](rest)
    except PromptotError:
        raise
    except Exception as error:  # libraries raise many kinds: network, files, configuration
        reason = " ".join(str(error).split())[:300]
        raise PromptotError(
            f"The library's own model of '{name}' could not be loaded: {reason.rstrip('.')}.",
            fix="Check the name, the network and that its library is installed.",
        ) from error
