"""Images that are decoded once and cropped anew in every epoch, where the batches are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from promptot.data.loader import Batch, EpochBatches, ImageDataset, Loaded, drawing, lost
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
        examples: the images.
        crops: what is made of an image.
        batches: which images come together, and the seed of the crops.
        workers: processes that decode; 0 decodes in this one.
        device: where images are kept and batches are made.
        most_bytes: how much of it is used.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        crops: Crops,
        batches: EpochBatches,
        *,
        workers: int = 0,
        device: torch.device | str = "cpu",
        most_bytes: int,
    ) -> None:
        self._decoded = ImageDataset(examples, _pixels)
        self.crops, self._batches = crops, batches
        self.device, self._left, self._workers = torch.device(device), most_bytes, workers
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
                with drawing(self._batches.seed, epoch if view is None else view, index):
                    crops.append(self.crops.draw(*image.shape[1:]))
            labels = torch.tensor([self._decoded.examples[index].label for index in indices])
            yield Batch(self.crops(images, crops), labels, torch.tensor(indices))

    def _image(self, index: int) -> Tensor:
        assert self._kept is not None
        kept = self._kept.get(index)
        return self._on_device(self._decoded[0, index]) if kept is None else kept

    def _decode(self) -> dict[int, Tensor]:
        """As many images as there is room for."""
        loader: DataLoader[Loaded] = DataLoader(
            self._decoded,
            batch_size=None,
            sampler=[(0, index) for index in range(len(self._decoded))],
            num_workers=self._workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # so that the global one is left alone
        )
        kept = {}
        for index, loaded in enumerate(loader):
            image = self._on_device(loaded)
            if image.numel() > self._left:
                break
            self._left -= image.numel()
            kept[index] = image
        return kept

    def _on_device(self, loaded: Loaded) -> Tensor:
        if isinstance(loaded, Skipped):
            raise lost(loaded)
        return loaded[0].to(self.device).permute(2, 0, 1)


def _pixels(image: Image.Image) -> Tensor:  # → uint8 [H, W, 3]
    return torch.from_numpy(np.array(image))


def _as_it_is(loaded: Any) -> Any:
    return loaded
