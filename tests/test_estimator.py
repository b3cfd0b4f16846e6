"""`PromptClassifier` on images; scikit-learn's own checks are in test_estimator_checks.py."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import promptot
from promptot.backbones import Backbone
from promptot.data.readers.labelled_arrays import BadInput
from promptot.errors import PromptotError
from promptot.runs.estimator import PromptClassifier

QUICK = ("optim.epochs=1", "optim.batch_size=8")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Twelve images, red and blue in turn."""
    pixels = np.random.default_rng(0).integers(0, 60, (12, 32, 32, 3), np.uint8)
    pixels[::2, :, :, 0] += 190
    pixels[1::2, :, :, 2] += 190
    return pixels


LABELS = ["red", "blue"] * 6


@pytest.fixture
def quick(backbone: Backbone) -> PromptClassifier:
    return PromptClassifier(backbone=backbone, overrides=QUICK, device="cpu")


@pytest.fixture
def probe(backbone: Backbone) -> PromptClassifier:
    return PromptClassifier("linear-probe", backbone, device="cpu")


@pytest.fixture
def fitted(quick: PromptClassifier, images: np.ndarray) -> PromptClassifier:
    return quick.fit(images, LABELS)


def test_every_form_of_images_gives_the_same_answers(
    fitted: PromptClassifier, images: np.ndarray, tmp_path: Path
) -> None:
    pandas = pytest.importorskip("pandas")
    paths = []
    for index, pixels in enumerate(images):
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(pixels).save(paths[-1])
    expected = fitted.predict_proba(images)
    assert expected.shape == (12, 2)
    assert_allclose(expected.sum(axis=1), 1)
    pictures = [Image.fromarray(pixels) for pixels in images]
    cells = np.empty((12, 1), dtype=object)
    cells[:, 0] = paths
    for form in (
        list(images),
        images / 255.0,
        (images / 255.0).astype(np.float32),
        np.moveaxis(images, 3, 1),
        pictures,
        paths,
        [Path(path) for path in paths],
        np.array(paths),
        cells,
        pandas.DataFrame({"image": paths}),
        pandas.DataFrame({"number": range(12), "path": paths}),
        pandas.Series(paths),
        [Path(path).read_bytes() for path in paths],
    ):
        assert_array_equal(fitted.predict_proba(form), expected)


def test_small_and_large_batches_agree(fitted: PromptClassifier, images: np.ndarray) -> None:
    apart = np.concatenate([fitted.predict_proba(images[i : i + 1]) for i in range(12)])
    assert_allclose(apart, fitted.predict_proba(images), rtol=0, atol=1e-4)


def test_it_learns(probe: PromptClassifier, images: np.ndarray) -> None:
    probe.fit(images[:8], LABELS[:8])
    assert probe.classes_.tolist() == ["blue", "red"]
    assert probe.predict(images[8:]).tolist() == LABELS[8:]
    assert probe.score(images[8:], LABELS[8:]) == 1.0


def test_cross_validation_and_grid_search(probe: PromptClassifier, images: np.ndarray) -> None:
    assert cross_val_score(probe, list(images), LABELS, cv=3).tolist() == [1.0] * 3
    steps = [("upright", FunctionTransformer(lambda rows: rows)), ("clip", probe)]
    search = GridSearchCV(Pipeline(steps), {"clip__shots": [1, 2]}, cv=2).fit(images, LABELS)
    assert search.best_score_ == 1.0


def test_clones_share_a_loaded_backbone(quick: PromptClassifier, backbone: Backbone) -> None:
    other = clone(quick.set_params(shots=3))
    assert other.backbone is backbone
    assert (other.shots, other.overrides) == (3, QUICK)
    with pytest.raises(NotFittedError):
        other.predict([np.zeros((8, 8, 3), np.uint8)])


def test_any_class_names(fitted: PromptClassifier, images: np.ndarray) -> None:
    names = ["cat", ["crimson", "scarlet"], "sea"]
    assert set(fitted.predict(images, class_names=names)) <= {"cat", "crimson", "sea"}
    assert fitted.predict_proba(images, class_names=names).shape == (12, 3)
    classifier = fitted.classifier
    likeliest = classifier.classify([Image.fromarray(images[0])], names, top_k=1)[0]
    assert likeliest.class_names == (fitted.predict(images[:1], class_names=names)[0],)


def test_a_linear_probe_refuses_other_names(probe: PromptClassifier, images: np.ndarray) -> None:
    probe.fit(images, LABELS)
    with pytest.raises(BadInput, match="can't serve 'cat'"):
        probe.predict(images, class_names=["cat", "red"])


def test_numbers_as_labels(quick: PromptClassifier, images: np.ndarray) -> None:
    numbers = [3, -1] * 6
    with pytest.warns(UserWarning, match="can make little of numbers"):
        quick.fit(images, numbers)
    for class_names in ({3: "red", -1: ["blue", "navy"]}, [["blue", "navy"], "red"]):
        named = quick.set_params(class_names=class_names).fit(images, numbers)
        assert named.classes_.tolist() == [-1, 3]
        assert named.class_names_ == ("blue", "red")
        assert named.classifier.card.synonyms == {"blue": ("navy",)}
        assert set(named.predict(images)) <= {-1, 3}


def test_the_seed_decides(quick: PromptClassifier, images: np.ndarray) -> None:
    def answers(random_state: Any) -> np.ndarray:
        return clone(quick).set_params(random_state=random_state).fit(images, LABELS).predict_proba(
            images
        )  # fmt: skip

    assert_array_equal(answers(1), answers(1))
    assert (answers(1) != answers(2)).any()
    assert_array_equal(answers(np.random.RandomState(0)), answers(np.random.RandomState(0)))


def test_a_folder_and_a_table_bring_their_labels(
    probe: PromptClassifier, photos: Path, tmp_path: Path
) -> None:
    pandas = pytest.importorskip("pandas")
    probe.fit(photos)
    assert probe.classes_.tolist() == ["blue", "green apple", "red", "yellow"]
    assert probe.score(photos) == 1.0
    table = pandas.DataFrame(
        [(str(path), path.parent.name) for path in sorted(photos.glob("*/*.png"))],
        columns=["path", "label"],
    )
    again = clone(probe).fit(table)
    assert again.score(table) == 1.0
    assert again.predict(table[["path"]][:1])[0] == "blue"


def test_partial_fit_is_refused(quick: PromptClassifier, images: np.ndarray) -> None:
    assert not hasattr(quick, "partial_fit")
    with pytest.raises(PromptotError, match="piece by piece.*starts anew"):
        quick.partial_fit(images, LABELS)


def test_fit_starts_anew(quick: PromptClassifier, images: np.ndarray) -> None:
    first = quick.fit(images, LABELS).predict_proba(images)
    quick.fit(images[:, ::-1], ["x", "y"] * 6)
    assert quick.classes_.tolist() == ["x", "y"]
    assert_array_equal(quick.fit(images, LABELS).predict_proba(images), first)


def test_what_can_t_be_read_is_left_out_or_refused(
    quick: PromptClassifier, images: np.ndarray
) -> None:
    damaged = [*images, b"<html>404</html>"]
    with pytest.warns(UserWarning, match=r"1 image is left out. .*images\[12\].*HTML"):
        quick.fit(damaged, [*LABELS, "red"])
    assert [item.path for item in quick.skipped_] == ["images[12]"]
    with pytest.raises(BadInput, match="1 image is not readable.*image 1.*HTML"):
        quick.predict([images[0], b"<html>404</html>"])


@pytest.mark.parametrize(
    ("X", "y", "part"),
    [
        (np.zeros((4, 9)), ["a", "b"] * 2, "table of numbers"),
        ([np.zeros((8, 8, 3))] * 3, ["a", "b"], "3 images and 2 labels"),
        ("photo.jpg", ["a"], "Put a single image into a list"),
        ([np.zeros((8, 8, 3))], None, "requires y"),
        ([], [], "0 sample|no labelled image|Found array with 0"),
        ([np.zeros((8, 8, 3))] * 2, ["a_b", "a b"], "comes twice"),
        ([np.zeros((8, 8, 3))] * 2, [0.5, 1.5], "Unknown label type"),
        ("no/such/folder", None, "does not exist"),
    ],
)
def test_what_does_not_fit(quick: PromptClassifier, X: Any, y: Any, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        quick.fit(X, y)


def test_too_few_names(quick: PromptClassifier, images: np.ndarray) -> None:
    with pytest.raises(BadInput, match="2 classes and 1 class names"):
        quick.set_params(class_names=["red"]).fit(images, LABELS)


def test_saved_and_loaded(
    quick: PromptClassifier, images: np.ndarray, backbone: Backbone, tmp_path: Path
) -> None:
    numbers = [7, 5] * 6
    quick.set_params(class_names={7: "red", 5: "blue"}).fit(images, numbers)
    expected = quick.predict_proba(images)
    quick.save(tmp_path / "run")
    with pytest.raises(PromptotError, match="already holds a run"):
        quick.save(tmp_path / "run")
    quick.save(tmp_path / "run", overwrite=True)

    again = PromptClassifier.load(tmp_path / "run", backbone, overrides=QUICK, device="cpu")
    assert again.classes_.tolist() == [5, 7]
    assert again.class_names_ == ("blue", "red")
    assert_array_equal(again.predict_proba(images), expected)
    again.save(tmp_path / "copy")
    assert clone(again).fit(images, numbers).predict(images).shape == (12,)

    plain = promptot.load(tmp_path / "run", backbone)
    assert plain.class_names == ("blue", "red")
    found = plain.classify([Image.fromarray(images[0])])[0]
    assert_allclose(found.probabilities[0], expected[0].max(), rtol=1e-6)
    with pytest.raises(PromptotError, match="trained on every image"):
        promptot.evaluate(
            tmp_path / "run", (images, ["red", "blue"] * 6), backbone=backbone, device="cpu"
        )


def test_a_run_of_fit_becomes_a_classifier(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    promptot.fit(
        photos, tmp_path / "run", backbone=backbone, shots=2, overrides=QUICK, device="cpu"
    )
    paths = sorted(photos.glob("*/*.png"))[:3]
    for place in (tmp_path / "run", tmp_path / "run" / "adapter"):
        loaded = PromptClassifier.load(place, backbone, device="cpu")
        assert loaded.classes_.tolist() == ["blue", "green apple", "red", "yellow"]
        expected = promptot.load(place, backbone).classify(paths)
        assert loaded.predict(paths).tolist() == [p.class_names[0] for p in expected]


def test_pickles_are_small_where_the_backbone_has_a_name(images: np.ndarray) -> None:
    classifier = PromptClassifier("linear-probe", overrides=(), device="cpu").fit(images, LABELS)
    pickled = pickle.dumps(classifier)
    assert len(pickled) < 100_000
    assert_array_equal(
        pickle.loads(pickled).predict_proba(images), classifier.predict_proba(images)
    )
