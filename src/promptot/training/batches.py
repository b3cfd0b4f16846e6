"""The batches that a recipe trains on, and those that a model is tested on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.backbones.tensor_crops import TensorCrops
from promptot.data.decoded import DecodedLoader
from promptot.data.loader import EpochBatches, ImageLoader
from promptot.data.memory_bounds import free_bytes
from promptot.data.task import Example, ImageTask
from promptot.recipes.schema import Recipe
from promptot.training.trainer import Loader
from promptot.training.views import (
    CachedViews,
    FixedViews,
    cached_bytes,
    keep_features,
    keep_view,
)

EVALUATION_BATCH = 32


def training_loader(
    backbone: Backbone,
    task: ImageTask,
    recipe: Recipe,
    seed: int,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Loader:
    """Batches of augmented images, or of the patch tokens of kept views if the recipe says so."""
    data, optim = recipe.data, recipe.optim
    if data.views is None:
        return _augmenting_loader(backbone, task, recipe, seed, workers)
    if data.teacher == "cached-views":
        features = view_features(backbone, task, recipe, seed, workers, progress)
        return fixed_views(backbone, task, recipe, seed, features, workers)
    loader = _augmenting_loader(backbone, task, recipe, seed, workers, in_order=True)
    views = [keep_view(backbone, loader.batches(view), progress) for view in range(data.views)]
    return CachedViews(views, optim.batch_size, optim.drop_last, seed)


def view_features(
    backbone: Backbone,
    task: ImageTask,
    recipe: Recipe,
    seed: int,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The frozen model's features of the fixed views that a recipe uses, [K, N, D]."""
    loader = _augmenting_loader(backbone, task, recipe, seed, workers, in_order=True)
    views = range(1, views_used(recipe) + 1)
    count = len(task.train)
    return torch.stack([keep_features(backbone, loader.batches(v), count, progress) for v in views])


def fixed_views(
    backbone: Backbone, task: ImageTask, recipe: Recipe, seed: int, features: Tensor, workers: int
) -> FixedViews:
    """The batches of a recipe whose teacher is cached, from what `view_features` gave."""
    return FixedViews(_augmenting_loader(backbone, task, recipe, seed, workers), features)


def views_used(recipe: Recipe) -> int:
    """K, how many fixed views per image are ever looked at; 0 where none are fixed."""
    views = recipe.data.views or 0
    if recipe.data.teacher == "cached-views":
        return min(views, recipe.evaluate_epoch or recipe.optim.epochs)
    return views


def views_bytes(backbone: Backbone, images: int, recipe: Recipe) -> int:
    """Bytes of what is kept of the fixed views of some images."""
    tokens = recipe.data.teacher != "cached-views"
    return cached_bytes(backbone, images, views_used(recipe), tokens=tokens)


def keeps_decoded(recipe: Recipe) -> bool:
    """Whether images are decoded once; where views are kept whole, each is read once anyway."""
    data = recipe.data
    return data.decode == "cached" and (data.views is None or data.teacher == "cached-views")


def decoded_bytes(device: torch.device) -> int:
    """Memory that decoded images may take on a device: half of what is free."""
    return (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_bytes()) // 2


def _augmenting_loader(
    backbone: Backbone,
    task: ImageTask,
    recipe: Recipe,
    seed: int,
    workers: int,
    in_order: bool = False,
) -> ImageLoader | DecodedLoader:
    """Augmented training images: shuffled batches to learn from, or all in order to keep views."""
    optim = recipe.optim
    if recipe.data.decode == "cached" and not in_order:
        return DecodedLoader(
            task.train,
            TensorCrops(backbone.preprocess, (recipe.data.smallest_crop, 1.0)),
            EpochBatches(len(task.train), optim.batch_size, seed, True, optim.drop_last),
            workers=workers,
            device=backbone.device,
            most_bytes=decoded_bytes(backbone.device),
        )
    return ImageLoader(
        task.train,
        backbone.preprocess.train(scale=(recipe.data.smallest_crop, 1.0)),
        batch_size=EVALUATION_BATCH if in_order else optim.batch_size,
        seed=seed,
        shuffle=not in_order,
        drop_last=optim.drop_last and not in_order,
        workers=workers,
        device="cpu" if in_order else backbone.device,
        skip_unreadable=False,
    )


@torch.no_grad()
def frozen_features(
    backbone: Backbone,
    examples: tuple[Example, ...],
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """The frozen model's features of images as for testing, [N, D], and their labels, [N].

    Both are on the CPU. What can't be read is left out, so N may be 0.
    """
    features, labels = [torch.empty(0, backbone.embed_dim)], [torch.empty(0, dtype=torch.long)]
    for batch in evaluation_loader(backbone, examples, workers) if examples else ():
        features.append(backbone.encode_image(batch.images.to(backbone.device)).cpu())
        labels.append(batch.labels)
        if progress is not None:
            progress(len(batch.labels))
    return torch.cat(features), torch.cat(labels)


def evaluation_loader(
    backbone: Backbone, examples: tuple[Example, ...], workers: int = 0
) -> ImageLoader:
    """Images as the backbone wants them for testing, in order."""
    return ImageLoader(
        examples,
        backbone.preprocess.test(),
        batch_size=EVALUATION_BATCH,
        workers=workers,
        device=backbone.device,
        cache_bytes=0,
    )
