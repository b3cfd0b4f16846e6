"""Class names of every odd kind: right, or a clear error."""

from __future__ import annotations

import copy
import sys
import time
import unicodedata
from pathlib import Path

import pytest
import torch

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.data import load_folder
from promptot.data.class_names import check_class_names, same_name
from promptot.errors import PromptotError
from promptot.recipes import load_recipe

DESIGNS = ("prompt-ot", "maple", "cocoop", "vpt", "zero-shot", "zero-shot-7")


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


@pytest.fixture(scope="module")
def classifier(
    small: Backbone, few_photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> promptot.Classifier:
    return fitted(small, few_photos, tmp_path_factory.mktemp("run") / "run", "prompt-ot")


def fitted(small: Backbone, photos: Path, out: Path, recipe: str) -> promptot.Classifier:
    overrides = ["optim.epochs=1"] if load_recipe(recipe).trains else []
    run = promptot.fit(
        photos, out, backbone=small, recipe=recipe, overrides=overrides, shots=2, device="cpu"
    )
    return promptot.load(run.folder, small)


@pytest.fixture
def image(few_photos: Path) -> str:
    return str(few_photos / "red" / "0.png")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no class names"),
        ([""], "is empty"),
        (["cat", " \t\n"], "is empty"),
        (["cat", "\u200b\u200d"], "shows nothing"),
        (["cat", "\x00\x07"], "shows nothing"),
        (["cat", "cat"], "comes twice"),
        (["cat", "CAT"], "comes twice"),
        (["hot_dog", "hot dog"], "comes twice"),
        (["hot  dog", "hot dog"], "comes twice"),
        (["caf\u00e9", "cafe\u0301"], "comes twice"),
        (["ｃａｔ", "cat"], "comes twice"),
        (["ﬁsh", "fish"], "comes twice"),
        (["Straße", "STRASSE"], "comes twice"),
        (["cat", "x" * 10_000], "tokens"),
        (["cat", "word " * 2_000], "tokens"),
        (["cat", "🐼" * 500], "tokens"),
        (["cat", "\ud800"], "not valid text"),
        (["cat", "a\ud800"], "not valid text"),
    ],
)
def test_names_that_cannot_work(
    classifier: promptot.Classifier, image: str, names: list[str], message: str
) -> None:
    with pytest.raises(PromptotError, match=message) as caught:
        classifier.predict([image], class_names=names)
    assert len(str(caught.value)) < 400
    str(caught.value).encode()


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "😀", "👩‍👩‍👧"],
        ["кошка", "猫", "고양이", "قطة", "חתול"],
        ["\u202eright to left", "left to right"],
        ["a\x00b", "a\x07b", "\x1b[31mred", "tab\tstop"],
        ["<script>alert(1)</script>", "'; DROP TABLE", "{}", "{0}", "%s", "$(x)"],
        ["!!!", "...", "42", "-"],
        ["&amp;", "&lt;b&gt;", "<|endoftext|> cat", "start_of_text"],
        ["x"],
        ["naïve", "ÅNGSTRÖM", "ﷺ"],
    ],
)
def test_names_that_are_odd_but_right(
    classifier: promptot.Classifier, image: str, names: list[str]
) -> None:
    """Each is answered as it was written, and its probability is its own."""
    (found,) = classifier.predict([image], class_names=names, top_k=99)
    assert sorted(found.class_names) == sorted(names)
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-5)
    alone = classifier.text_features((names[0],))
    together = classifier.text_features(tuple(names))
    torch.testing.assert_close(alone[0], together[0], rtol=0, atol=1e-5)


def test_forms_of_one_text_are_read_alike(classifier: promptot.Classifier) -> None:
    for text in ("café", "Ångström", "한국"):
        composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
        assert composed != decomposed
        assert same_name(composed) == same_name(decomposed)
        features = [classifier.text_features((name,)) for name in (composed, decomposed)]
        torch.testing.assert_close(*features, rtol=0, atol=1e-5)


def test_ten_thousand_names_check_quickly() -> None:
    began = time.monotonic()
    check_class_names(f"class {number}" for number in range(100_000))
    assert time.monotonic() - began < 5


def test_folders_whose_names_are_alike(tmp_path: Path, few_photos: Path) -> None:
    for name in ("caf\u00e9", "cafe\u0301"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes((few_photos / "red" / "0.png").read_bytes())
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system takes the two names for one")
    with pytest.raises(PromptotError, match="comes twice"):
        load_folder(tmp_path)


def in_parts(backbone: Backbone, names: int) -> Backbone:
    """The same backbone, which computes so many names together."""
    backbone = copy.copy(backbone)
    backbone.names_together = names
    return backbone


@pytest.mark.parametrize("recipe", DESIGNS)
def test_long_lists_of_names_are_read_in_parts(
    small: Backbone,
    few_photos: Path,
    tmp_path: Path,
    image: str,
    recipe: str,
) -> None:
    """The parts together give what one pass gives."""
    classifier = fitted(small, few_photos, tmp_path / "run", recipe)
    names = [f"{word} {'very ' * (number % 4)}thing" for number, word in enumerate("abcdefghijk")]
    (whole,) = classifier.predict([image], names, top_k=99)
    again = promptot.load(tmp_path / "run", in_parts(small, 3))
    (parts,) = again.predict([image], names, top_k=99)
    assert parts.class_names == whole.class_names
    assert parts.probabilities == pytest.approx(whole.probabilities, abs=1e-5)


def test_class_specific_prompts_in_parts(
    small: Backbone, few_photos: Path, tmp_path: Path, image: str
) -> None:
    classifier = fitted(small, few_photos, tmp_path / "run", "coop-class-specific")
    (whole,) = classifier.predict([image], top_k=3)
    (parts,) = promptot.load(tmp_path / "run", in_parts(small, 2)).predict([image], top_k=3)
    assert parts.class_names == whole.class_names
    assert parts.probabilities == pytest.approx(whole.probabilities, abs=1e-5)


@pytest.mark.slow
def test_a_hundred_thousand_names(classifier: promptot.Classifier, image: str) -> None:
    """Of 100,000 names the likeliest is found; memory grows by little more than the features."""
    names = tuple(f"thing number {number}" for number in range(100_000))
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    (found,) = classifier.predict([image], names, top_k=5)
    seconds = time.monotonic() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if sys.platform == "darwin":
        grown /= 1024
    print(f"{seconds:.1f} s, {grown:.0f} MiB")
    few = [*found.class_names, "thing number 7"]
    (again,) = classifier.predict([image], few, top_k=5)
    assert again.class_names[:4] == found.class_names[:4]
    assert grown < 600
