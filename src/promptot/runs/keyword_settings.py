"""Functions that take the fields of a dataclass as their own arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")


def takes(settings: Callable[P, S]) -> Callable[[Callable[[S], R]], Callable[P, R]]:
    """A function of a dataclass becomes one of its fields, with their names, types and defaults.

    Args:
        settings: the dataclass.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Size:
        ...     width: int
        ...     height: int = 2
        >>> @takes(Size)
        ... def area(size):
        ...     return size.width * size.height
        >>> area(3), area(3, height=1)
        (6, 3)
    """

    def decorate(function: Callable[[S], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(settings(*args, **kwargs))

        gives = inspect.signature(function).return_annotation
        own = inspect.signature(settings).replace(return_annotation=gives)
        call.__signature__ = own  # type: ignore[attr-defined]
        return call

    return decorate
