"""Images that are decoded once and cropped anew in every epoch, where the batches are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from promptot.data.loader import Batch, EpochBatches, ImageDataset, drawing, lost
from promptot.data.task import Example, Skipped


class Crops(Protocol):
    """Draws crops, and makes batches of them (`TensorCrops`)."""

    def draw(self, height: int, width: int) -> Any:
        """A crop of an image of this size, from PyTorch's global generator."""
        ...

    def __call__(self, images: Sequence[Tensor], crops: Sequence[Any]) -> Tensor:
        """Crops [B, 3, R, R] of images uint8 [3, H, W]."""
        ...


class DecodedLoader:
    """Batches as `ImageLoader` gives them, of images that are kept decoded on a device.

    Order and crops are those of `ImageLoader` with the same seed. Images are decoded when the first
    batch is asked for. What does not fit is decoded whenever it is needed.

    Args:
        examples: the images, at least one.
        crops: what is made of an image.
        batch_size, seed, shuffle, drop_last: as in `ImageLoader`.
        workers: processes that decode; 0 decodes in this one.
        device: where images are kept and batches are made.
        most_bytes: how much of it is used.
        progress: is told how many more images are decoded.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        crops: Crops,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        workers: int = 0,
        device: torch.device | str = "cpu",
        most_bytes: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.examples, self.crops, self.seed = tuple(examples), crops, seed
        self.device, self._left = torch.device(device), most_bytes
        self._batches = EpochBatches(len(self.examples), batch_size, seed, shuffle, drop_last)
        self._workers, self._progress = workers, progress
        self._kept: dict[int, Tensor] | None = None  # uint8 [3, H, W] by index, once decoded

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._batches)

    def order(self, epoch: int) -> Iterator[list[int]]:
        """The indices of each batch of an epoch; no image is read."""
        return self._batches.order(epoch)

    def batches(self, epoch: int, view: int | None = None) -> Iterator[Batch]:
        """The batches of one epoch; see `ImageLoader.batches`."""
        if self._kept is None:
            self._kept = self._decode()
        for indices in self.order(epoch):
            images = [self._image(index) for index in indices]
            crops = []
            for index, image in zip(indices, images, strict=True):
                with drawing(self.seed, epoch if view is None else view, index):
                    crops.append(self.crops.draw(*image.shape[1:]))
            labels = torch.tensor([self.examples[index].label for index in indices])
            yield Batch(self.crops(images, crops), labels, torch.tensor(indices))

    def _image(self, index: int) -> Tensor:
        assert self._kept is not None
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        return self._on_device(_as_loaded(_Decoded(self.examples)[0, index]))

    def _decode(self) -> dict[int, Tensor]:
        """As many images as there is room for."""
        loader: DataLoader[object] = DataLoader(
            _Decoded(self.examples),
            batch_size=None,
            sampler=[(0, index) for index in range(len(self.examples))],
            num_workers=self._workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # so that the global one is left alone
        )
        kept = {}
        for index, loaded in enumerate(loader):
            image = _as_loaded(loaded)
            if image.numel() > self._left:
                break
            self._left -= image.numel()
            kept[index] = self._on_device(image)
            if self._progress is not None:
                self._progress(1)
        return kept

    def _on_device(self, image: Tensor) -> Tensor:
        return image.to(self.device).permute(2, 0, 1)


class _Decoded(ImageDataset):
    """Examples as uint8 [H, W, 3]."""

    def __init__(self, examples: Sequence[Example]) -> None:
        super().__init__(examples, _pixels)


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))


def _as_it_is(loaded: object) -> object:
    return loaded


def _as_loaded(loaded: object) -> Tensor:
    if isinstance(loaded, Skipped):
        raise lost(loaded)
    assert isinstance(loaded, tuple)
    image: Tensor = loaded[0]
    return image
