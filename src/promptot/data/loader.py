"""From examples to batches of tensors: the same ones for the same seed, however they are loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from promptot.data.images.read_image import UnreadableImage
from promptot.data.task import Example, Skipped
from promptot.errors import PromptotError

Transform = Callable[[Image.Image], Tensor]
Loaded = tuple[Tensor, int, int] | Skipped


class Batch(NamedTuple):
    """Some images of a task, or their patch tokens as a backbone's stem gives them."""

    images: Tensor  # [B, 3, H, W], or patch tokens [B, N, W]
    labels: Tensor  # [B] long
    indices: Tensor  # [B] long, positions in the list of examples
    teacher: Tensor | None = None  # [B, D], the frozen model's image features, where kept

    def to(self, device: torch.device | str, copy: bool = False) -> Batch:
        """The same batch on a device; with `copy`, in memory of its own."""

        def moved(part: Tensor) -> Tensor:
            return part.to(device, non_blocking=True, copy=copy)

        teacher = None if self.teacher is None else moved(self.teacher)
        return Batch(moved(self.images), moved(self.labels), moved(self.indices), teacher)


class ImageDataset(Dataset[Loaded]):
    """Examples as tensors; the random draws of the transform depend on (seed, epoch, index) alone.

    It is indexed by `(epoch, index)`. So neither the number of workers, nor the order of loading,
    nor a resumed run changes an augmentation. Torch's global generator, from which torchvision's
    transforms draw, is put back afterwards.

    Args:
        examples: the images.
        transform: from a PIL image to a tensor [3, H, W].
        seed: of the random draws.
        cache_bytes: decoded images are kept in memory up to this many bytes.
    """

    def __init__(
        self, examples: Sequence[Example], transform: Transform, seed: int = 0, cache_bytes: int = 0
    ) -> None:
        self.examples = tuple(examples)
        self.transform = transform
        self.seed = seed
        self._cache: dict[int, Image.Image] = {}
        self._cache_left = cache_bytes

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int]) -> Loaded:
        """The image [3, H, W], its label and its index; what is unreadable comes as `Skipped`."""
        epoch, index = key
        try:
            image = self._read(index)
        except UnreadableImage as error:
            return Skipped(error.path, error.reason)
        with drawing(self.seed, epoch, index):
            return self.transform(image), self.examples[index].label, index

    def _read(self, index: int) -> Image.Image:
        image = self._cache.get(index)
        if image is None:
            image = self.examples[index].load()
            size = 4 * image.width * image.height  # Pillow keeps RGB in four bytes a pixel
            if size <= self._cache_left:
                self._cache[index] = image
                self._cache_left -= size
        return image


@contextmanager
def drawing(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Random draws that depend on these alone; PyTorch's global generator is put back."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(_mix(seed, epoch, index))
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def lost(image: Skipped) -> PromptotError:
    """What to say of a training image that can't be read any more."""
    return PromptotError(
        f"The training image '{image.path}' was readable at the start and is not any more: "
        f"{image.reason}.",
        fix="Put it back, then go on with --resume.",
    )


class ImageLoader:
    """Batches of a list of examples, epoch by epoch.

    `batches(epoch)` is a function of the arguments alone: the same images in the same order with
    the same augmentation, for any number of workers. Images that turn out to be unreadable are left
    out of their batch and listed in `skipped`; a batch is never empty.

    Args:
        examples: the images, at least one.
        transform: from a PIL image to a tensor [3, H, W].
        batch_size: images per batch.
        seed: of order and augmentation.
        shuffle: a new order every epoch; otherwise the order of `examples`.
        drop_last: leave out an incomplete last batch. Fewer examples than `batch_size` make one
            smaller batch all the same: an epoch is never empty.
        workers: processes that load; 0 loads in this one.
        device: where the batches will go; memory is pinned for CUDA. (They are made on the CPU.)
        cache_bytes: memory for decoded images, shared out among the workers.
        skip_unreadable: False makes an unreadable image an error: it was readable before, and
            leaving it out would change what the seed stands for.

    Raises:
        PromptotError: there are no examples, or the batch size is not positive.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        transform: Transform,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        workers: int = 0,
        device: torch.device | str = "cpu",
        cache_bytes: int = 256 << 20,
        skip_unreadable: bool = True,
    ) -> None:
        self._sampler = EpochBatches(len(examples), batch_size, seed, shuffle, drop_last)
        self._loader: DataLoader[Loaded] = DataLoader(
            ImageDataset(examples, transform, seed, cache_bytes // max(1, workers)),
            batch_sampler=self._sampler,  # keys are (view, index)
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=torch.device(device).type == "cuda",
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # so that the global one is left alone
        )
        self._skipped: dict[str, Skipped] = {}
        self._skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(0)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The unreadable images met so far."""
        return tuple(self._skipped.values())

    def order(self, epoch: int) -> Iterator[list[int]]:
        """The indices of each batch of an epoch; no image is read."""
        return self._sampler.order(epoch)

    def batches(self, epoch: int, view: int | None = None) -> Iterator[Batch]:
        """The batches of one epoch. Finish or drop one epoch before starting another.

        Args:
            epoch: decides the order.
            view: decides the augmentation; by default the epoch.

        Raises:
            PromptotError: an image can't be read and may not be skipped.
        """
        self._sampler.epoch = epoch
        self._sampler.view = epoch if view is None else view
        for batch, skipped in self._loader:
            if skipped and not self._skip_unreadable:
                raise lost(skipped[0])
            self._skipped.update({item.path: item for item in skipped})
            if batch is not None:
                yield Batch(*batch)


@contextmanager
def lost_workers_explained() -> Iterator[None]:
    """Say what it means that a process that loads images is gone.

    PyTorch raises it wherever the main process happens to be at work.

    Raises:
        PromptotError: instead of PyTorch's `RuntimeError`.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise PromptotError(
            "A process that loads images has died; often that is memory running out.",
            fix="Start it again with fewer --workers, or none (--workers 0); a run goes on with "
            "--resume.",
        ) from error


@dataclass
class EpochBatches:
    """Batches of keys (view, index), in the order of an epoch; arguments as in `ImageLoader`.

    Raises:
        PromptotError: there are no images, or the batch size is not positive.
    """

    count: int
    batch_size: int
    seed: int
    shuffle: bool
    drop_last: bool
    epoch: int = 0
    view: int = 0

    def __post_init__(self) -> None:
        if not self.count:
            raise PromptotError("There are no images to load.", fix="Check the task's splits.")
        if self.batch_size < 1:
            raise PromptotError(
                f"A batch of {self.batch_size} images is not possible.", fix="Use >= 1."
            )

    def __len__(self) -> int:
        if self.drop_last and self.count >= self.batch_size:
            return self.count // self.batch_size
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for indices in self.order(self.epoch):
            yield [(self.view, index) for index in indices]

    def order(self, epoch: int) -> Iterator[list[int]]:
        """The indices of each batch of an epoch."""
        order = list(range(self.count))
        if self.shuffle:
            generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
            order = torch.randperm(self.count, generator=generator).tolist()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]


def _collate(
    loaded: list[Loaded],
) -> tuple[tuple[Tensor, Tensor, Tensor] | None, list[Skipped]]:
    skipped = [item for item in loaded if isinstance(item, Skipped)]
    good = [item for item in loaded if not isinstance(item, Skipped)]
    if not good:
        return None, skipped
    images, labels, indices = zip(*good, strict=True)
    return (torch.stack(images), torch.tensor(labels), torch.tensor(indices)), skipped


def _mix(*numbers: int) -> int:
    """One seed from several numbers; neighbours give unrelated seeds."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
