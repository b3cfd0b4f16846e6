"""Names that arguments and methods had before: they go on working, with a warning."""

from __future__ import annotations

import warnings
from typing import Any


def warn_of_former_name(former: str, name: str, stacklevel: int = 3) -> None:
    """Say what something is called now.

    Warns:
        DeprecationWarning: always.
    """
    message = f"'{former}' is called '{name}' now."
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


def use_class_names(class_names: Any, names: Any, stacklevel: int = 4) -> Any:
    """`class_names`, or what was given by their former name."""
    if names is None:
        return class_names
    warn_of_former_name("names", "class_names", stacklevel)
    return names
