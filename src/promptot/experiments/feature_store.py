"""What was computed from images, kept in memory and in files that several processes share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from promptot.data.images.fingerprint import ImageIdentities
from promptot.data.images.in_memory_image import InMemoryImage
from promptot.data.task import Example
from promptot.files.locks import LockFile
from promptot.files.reading import open_regular, parse_json
from promptot.files.weights_file import DAMAGED
from promptot.files.writing import atomic_write, system_errors

Row = tuple[Tensor, ...]


class FeatureStore:
    """Tensors by image: a row an image, its columns the same for all.

    An image is known by `Fingerprint.here`, so that hundreds of thousands need not be read again to
    be recognised. A file holds the rows of some images; one of another backbone is left alone, and
    what a damaged one held is computed again.

    Args:
        folder: where the files go; it may be removed when nothing runs. None keeps all in memory.
        identity: what the tensors depend on beside the image.
        kind: what the names of the files start with.
        columns: names of the tensors.
    """

    def __init__(
        self, folder: Path | None, identity: str, kind: str, columns: Sequence[str]
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._kind = kind
        self._columns = columns
        self._keys: dict[tuple[str, InMemoryImage | None], str] = {}  # source -> key
        self._looks = ImageIdentities()
        self._rows: dict[str, Row | None] = {}  # None: unreadable
        self._files: set[Path] = set()  # that were read

    def row(self, example: Example) -> Row | None:
        """The tensors of an image; None if it can't be read, or was never computed."""
        return self._rows.get(self._key(example))

    def missing(self, examples: Sequence[Example]) -> tuple[Example, ...]:
        """Those that nothing is known of, each image once."""
        absent = {key: e for e in examples if (key := self._key(e)) not in self._rows}
        return tuple(absent.values())

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """One process at a time may add rows; those that others have added by now are read first.

        Raises:
            PromptotError: the folder can't be written to.
        """
        if self._folder is None:
            yield
            return
        lock = LockFile(self._folder / f"{self._kind}.lock")
        with system_errors(lock.path):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(math.inf)
        try:
            self._read(self._folder)
            yield
        finally:
            lock.release()

    def add(self, examples: Sequence[Example], places: Sequence[int], *columns: Tensor) -> None:
        """Keep the rows of some images, within `filling`.

        Args:
            examples: the images that were to be read.
            places: in `examples`, of those that could be.
            columns: their tensors, [N, ...] each.

        Raises:
            PromptotError: the folder can't be written to.
        """
        keys = [self._key(examples[place]) for place in places]
        self._rows |= {self._key(example): None for example in examples}
        self._rows |= dict(zip(keys, zip(*columns, strict=True), strict=True))
        if self._folder is None or not keys:
            return
        digest = hashlib.sha256("\n".join([self._identity, *keys]).encode()).hexdigest()
        path = self._folder / f"{self._kind}-{digest[:16]}.safetensors"
        self._files.add(path)
        metadata = {"backbone": self._identity, "images": json.dumps(keys)}
        write_tensors(path, dict(zip(self._columns, columns, strict=True)), metadata)

    def _key(self, example: Example) -> str:
        if example.source not in self._keys:
            self._keys[example.source] = example.fingerprint(self._looks).here
        return self._keys[example.source]

    def _read(self, folder: Path) -> None:
        for path in sorted(set(folder.glob(f"{self._kind}-*.safetensors")) - self._files):
            self._files.add(path)
            found = read_tensors(path, self._columns, self._identity)
            if found is not None:
                keys, columns = found
                with contextlib.suppress(ValueError):  # damaged: not as many keys as rows
                    self._rows |= dict(zip(keys, zip(*columns, strict=True), strict=True))


def read_tensors(
    path: Path, columns: Sequence[str], identity: str | None = None
) -> tuple[list[str], list[Tensor]] | None:
    """The names of the images of a file, if it has any, and its tensors in the order of `columns`.

    Args:
        path: the file.
        columns: names of the tensors.
        identity: what the file must be of; None: its name says that.

    Returns:
        None where there is none, or it is damaged, or of something else.
    """
    try:
        open_regular(path).close()  # a pipe would be waited for
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("backbone") != identity:
                return None
            keys = parse_json(metadata.get("images", "[]"))
            return keys, [file.get_tensor(name) for name in columns]
    except DAMAGED:
        return None


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors by name.

    Raises:
        PromptotError: the folder can't be written to.
    """
    with atomic_write(path) as temporary:
        save_file(dict(tensors), temporary, None if metadata is None else dict(metadata))
