"""Images that are decoded once: the batches of those that are decoded each time, by a level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import promptot
from promptot.backbones.preprocess import Preprocess
from promptot.backbones.tensor_crops import TensorCrops
from promptot.data.decoded import DecodedLoader
from promptot.data.loader import EpochBatches, ImageLoader
from promptot.data.task import Example
from promptot.errors import PromptotError

PLENTY = 2**30


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Photograph-like JPEGs of many sizes and shapes, one smaller than a crop, one in grey."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    found = []
    for number, size in enumerate([(500, 375), (375, 500), (64, 48), (900, 200), (33, 31)]):
        coarse = Image.fromarray(generator.integers(0, 255, (9, 9, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
        noise = generator.integers(-25, 25, picture.shape)
        image = Image.fromarray(np.clip(picture + noise, 0, 255).astype(np.uint8))
        path = folder / f"{number}.jpg"
        (image.convert("L") if number == 3 else image).save(path, quality=92)
        found.append(Example(str(path), number % 2))
    return found


def loaders(
    examples: list[Example], preprocess: Preprocess, **options: int
) -> tuple[ImageLoader, DecodedLoader]:
    plain = ImageLoader(examples, preprocess.train(), batch_size=2, seed=7, shuffle=True)
    chosen = {"most_bytes": PLENTY} | options
    batches = EpochBatches(len(examples), batch_size=2, seed=7, shuffle=True, drop_last=False)
    return plain, DecodedLoader(examples, TensorCrops(preprocess), batches, **chosen)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resolution", [32, 224])
def test_batches_are_those_of_the_image_loader(
    examples: list[Example], interpolation: str, resolution: int
) -> None:
    """Crops, flips and labels are the same; hardly a pixel differs by more than a level of 255."""
    preprocess = Preprocess(resolution, interpolation=interpolation)
    plain, decoded = loaders(examples, preprocess)
    assert len(plain) == len(decoded) == 3
    levels = 255 * torch.tensor(preprocess.std)[:, None, None]
    apart = []
    for epoch in (1, 2, 3):
        assert [*plain.order(epoch)] == [*decoded.order(epoch)]
        for one, other in zip(plain.batches(epoch), decoded.batches(epoch), strict=True):
            assert torch.equal(one.labels, other.labels)
            assert torch.equal(one.indices, other.indices)
            apart.append(((one.images - other.images).abs() * levels).flatten())
    difference = torch.cat(apart)
    assert (difference > 0.5).float().mean() < 0.1
    assert (difference > 1.5).float().mean() < 1e-3
    assert difference.max() < 40
    again = [*decoded.batches(2)]
    torch.testing.assert_close(again[0].images, next(iter(decoded.batches(2))).images)


def test_floats_are_resampled_as_bytes_are(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, which has no kernel for bytes."""
    crops, image = TensorCrops(Preprocess(64)), examples[0].load()
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    torch.manual_seed(0)
    drawn = [crops.draw(*pixels.shape[1:]) for _ in range(5)]
    own = [crops._resize(pixels, crop).float() for crop in drawn]
    monkeypatch.setattr("promptot.backbones.tensor_crops.HAS_BYTE_KERNEL", ())
    other = [crops._resize(pixels, crop) for crop in drawn]
    for one, same in zip(own, other, strict=True):
        assert same.dtype == torch.float32
        assert (one - same).abs().max() <= 1
        assert same.min() >= 0


def test_what_does_not_fit_is_decoded_again(examples: list[Example]) -> None:
    _, all_kept = loaders(examples, Preprocess(32))
    _, one_kept = loaders(examples, Preprocess(32), most_bytes=3 * 500 * 375)
    _, none_kept = loaders(examples, Preprocess(32), most_bytes=0)
    for epoch in (1, 2):
        batches = [[*loader.batches(epoch)] for loader in (all_kept, one_kept, none_kept)]
        for one, other, third in zip(*batches, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.images, third.images)
    assert [len(loader._kept) for loader in (all_kept, one_kept, none_kept)] == [5, 1, 0]


def test_workers_change_nothing(examples: list[Example]) -> None:
    _, alone = loaders(examples, Preprocess(32))
    _, helped = loaders(examples, Preprocess(32), workers=2)
    for one, other in zip(alone.batches(1), helped.batches(1), strict=True):
        assert torch.equal(one.images, other.images)


def test_the_global_generator_is_left_alone(examples: list[Example]) -> None:
    before = torch.default_generator.get_state()
    _, decoded = loaders(examples, Preprocess(32))
    list(decoded.batches(1))
    assert torch.equal(torch.default_generator.get_state(), before)


def test_another_filter_is_refused() -> None:
    with pytest.raises(PromptotError, match="'lanczos'.*data.decode=each-time"):
        TensorCrops(Preprocess(32, interpolation="lanczos"))


def test_an_image_that_is_gone_is_named(examples: list[Example], tmp_path: Path) -> None:
    gone = tmp_path / "gone.jpg"
    gone.write_bytes(Path(examples[0].path).read_bytes())
    _, decoded = loaders([*examples, Example(str(gone), 0)], Preprocess(32))
    gone.unlink()
    with pytest.raises(PromptotError, match=r"gone.jpg.*not any more"):
        list(decoded.batches(1))


def test_a_run_says_what_is_kept_and_goes_on_where_it_stopped(
    photos: Path, clip_file: Path, tmp_path: Path
) -> None:
    told: list[tuple[int, int, str]] = []

    def fit(name: str, **options: Any) -> promptot.Run:
        overrides = ["data.decode=cached", "optim.epochs=2", "optim.warmup_epochs=0"]
        return promptot.fit(
            photos,
            tmp_path / name,
            backbone=f"openai:{clip_file}",
            shots=2,
            overrides=overrides,
            report=False,
            **options,
        )

    def stop(record: object) -> None:
        raise KeyboardInterrupt

    whole = fit("whole", listener=promptot.Listener(on_decoding=lambda *f: told.append(f)))
    ((images, bound, device),) = told
    assert images == 2 * len(whole.model.class_names)
    assert device == "cpu"
    assert bound > 0
    with pytest.raises(KeyboardInterrupt):
        fit("stopped", listener=promptot.Listener(on_epoch=stop))
    resumed = fit("stopped", resume=True)
    for one, other in zip(
        whole.model.prompts.parameters(), resumed.model.prompts.parameters(), strict=True
    ):
        assert torch.equal(one, other)
