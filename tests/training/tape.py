"""Stands in for CUDA graphs on a CPU: what a function does on tensors, again without Python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal")
"""Operators that wait for a device: their result is on the host, or its shape hangs on values."""


def tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _written(schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operator writes to."""
    given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
    names = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [given.get(name) for name in names]


class Tape(TorchDispatchMode):
    """One recording: each operator with its arguments, over the same memory at each replay.

    As in a CUDA graph, nothing that a recording does has happened when it ends, and what the host
    reads meanwhile never changes again. (Here operators run, and what they wrote is put back.)
    """

    def __init__(self, forbidden: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.forbidden = forbidden
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._made: set[int] = set()
        self._drew: dict[torch.Generator, Tensor] = {}  # with their states before

    def capture_begin(self) -> None:
        self.__enter__()

    def capture_end(self) -> None:
        self.__exit__(None, None, None)
        with torch.no_grad():
            for tensor, value in self._before.values():
                tensor.copy_(value)
        for generator, state in self._drew.items():
            generator.set_state(state)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.removeprefix("aten::") in self.forbidden:
            raise RuntimeError(f"{func} waits for the device")
        given = tensors((args, kwargs))
        writes = func._schema.is_mutable
        for tensor in tensors(_written(func._schema, args, kwargs)):
            if tensor.untyped_storage()._cdata not in self._made:
                self._before.setdefault(tensor.data_ptr(), (tensor, tensor.clone()))
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Generator):
                self._drew.setdefault(value, value.get_state())
        found = func(*args, **kwargs)
        known = {tensor.untyped_storage()._cdata for tensor in given}
        new = [t for t in tensors(found) if t.untyped_storage()._cdata not in known]
        self._made |= {tensor.untyped_storage()._cdata for tensor in new}
        self.calls.append((func, args, kwargs, [] if writes else new))
        return found

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, outputs in self.calls:
                found = func(*args, **kwargs)
                if outputs:
                    for own, value in zip(outputs, tensors(found), strict=True):
                        own.copy_(value)


class TapeGraphs:
    """Makes tapes, and keeps them to be looked at."""

    def __init__(self, forbidden: tuple[str, ...] = ()) -> None:
        self.forbidden = forbidden
        self.tapes: list[Tape] = []

    def new_pool(self) -> None:
        """Tapes have none."""

    def recover(self, pool: None) -> None:
        """A tape that could not end has changed nothing."""

    def new(self, pool: None) -> Tape:
        self.tapes.append(Tape(self.forbidden))
        return self.tapes[-1]

    def in_stream(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def at_once(self, functions: Sequence[Callable[[], Any]]) -> list[Any]:
        others = [function() for function in functions[1:]]  # as CUDA graphs do
        return [function() for function in functions[:1]] + others

    def collect(self) -> None:
        """Nothing to give back."""
