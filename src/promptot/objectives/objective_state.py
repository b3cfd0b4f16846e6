"""What an objective remembers from one step to the next, as tensors in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Stateful(Protocol):
    """A part of an objective whose result depends on earlier steps.

    The tensors that `state_dict` returns are never changed in place, so that they are a snapshot.
    """

    def state_dict(self) -> dict[str, Tensor]:
        """All that later steps depend on."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        ...
