"""Images that lie in no file and are fetched when they are needed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

from promptot.data.images.read_image import ImageLike, as_unreadable


class Images(Protocol):
    """Images that are fetched by position: a list, an array, a data set."""

    def __getitem__(self, index: int, /) -> Any: ...


_ONE_AT_A_TIME = threading.Lock()
"""Foreign data sets need not be made for several threads."""


@dataclass(frozen=True, eq=False)
class InMemoryImage:
    """One of `images`. It can be sent to another process if these can; all share one copy there."""

    images: Images
    index: int

    def fetch(self, name: str) -> ImageLike:
        """The image as it is held.

        Raises:
            UnreadableImage: whatever goes wrong, under this name.
        """
        with as_unreadable(name), _ONE_AT_A_TIME:
            return self.images[self.index]
