"""What `import promptot` promises: names, types, documentation; runs in memory and on disk."""

from __future__ import annotations

import dataclasses
import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV

import promptot
from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.recipes.recipe_files import as_overrides
from promptot.runs.fitting import FitSettings
from promptot.runs.manifest import read_manifest

QUICK = {"optim": {"epochs": 1, "lr": 0.01}}
FUNCTIONS = [n for n in promptot.__all__ if inspect.isfunction(getattr(promptot, n))]
CLASSES = [n for n in promptot.__all__ if inspect.isclass(getattr(promptot, n))]


def fit(photos: Path, backbone: Backbone, out: Path | None = None, **more: Any) -> promptot.Run:
    options = {"shots": 2, "overrides": QUICK, "report": False} | more
    return promptot.fit(photos, out, backbone=backbone, **options)


# Names ---------------------------------------------------------------------------------------


def test_every_name_is_a_function_a_class_or_the_version() -> None:
    assert {*FUNCTIONS, *CLASSES, "__version__"} == set(promptot.__all__)
    assert dir(promptot) == sorted(promptot.__all__)
    assert {"benchmark", "survey", "predict", "serve", "list_recipes", "list_backbones"} <= set(
        FUNCTIONS
    )
    assert {"Run", "Classifier", "Evaluation", "Recipe", "Backbone", "ImageTask", "Example"} <= set(
        CLASSES
    )
    assert {"BackboneEntry", "Listener"} <= set(CLASSES)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_every_name_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(promptot, name)) or ""
    first = text.split("\n\n")[0]
    assert re.match(r"[A-Z`].*[.:]$", first.replace("\n", " ")), first


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_typed_and_names_its_arguments(name: str) -> None:
    function = getattr(promptot, name)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    gives_nothing = signature.return_annotation in (None, "None")
    assert gives_nothing == (name in {"serve"}), signature.return_annotation
    text = inspect.getdoc(function) or ""
    for one in signature.parameters.values():
        assert one.annotation is not one.empty, one
        if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL) and len(signature.parameters) > 1:
            assert re.search(rf"\b{one.name}\b", text), one.name


def test_every_keyword_of_fit_is_in_its_signature_and_type() -> None:
    own = [field.name for field in dataclasses.fields(FitSettings)]
    parameters = inspect.signature(promptot.fit).parameters
    assert list(parameters) == own
    assert own[:2] == ["data", "out"]
    assert parameters["seed"].default == 1
    with pytest.raises(TypeError, match="unexpected keyword argument 'shot'"):
        promptot.fit("photos", shot=1)


def test_what_is_listed() -> None:
    assert "prompt-ot" in promptot.list_recipes()
    assert "bundled:tiny" in {entry.name for entry in promptot.list_backbones()}


# Settings ------------------------------------------------------------------------------------


def test_values_of_a_recipe_as_keywords_and_mappings() -> None:
    strings = promptot.load_recipe("prompt-ot", ["objective.strength=3", "optim.lr=0.002"])
    nested = {"objective": {"strength": 3}, "optim.lr": np.float64(0.002)}
    assert promptot.load_recipe("prompt-ot", nested) == strings
    assert FitSettings(None, strength=3.0, lr=0.002).load_recipe() == strings
    loaded = promptot.load_recipe("prompt-ot")
    assert FitSettings(None, recipe=loaded, strength=3.0, lr=0.002).load_recipe() == strings
    assert FitSettings(None, recipe=loaded, shots=2).load_recipe().data.shots == 2
    assert (
        FitSettings(None, epochs=2, overrides={"optim": {"epochs": 9}}).load_recipe().optim.epochs
        == 2
    )
    chosen = promptot.load_recipe("maple", {"objective": "ot", "data": {"shots": None}})
    assert chosen == promptot.load_recipe("maple", ["objective=ot", "data.shots=null"])
    assert as_overrides(["a.b=1"]) == ["a.b=1"]


def test_mappings_reach_tunings_and_benchmarks(tmp_path: Path) -> None:
    nested = {"optim": {"lr": "fast"}}
    with pytest.raises(PromptotError, match=r"optim\.lr"):
        promptot.tune("photos", tmp_path / "a", overrides=nested)
    loaded = promptot.load_recipe("prompt-ot")
    with pytest.raises(PromptotError, match=r"optim\.lr"):
        promptot.tune("photos", tmp_path / "a", recipe=loaded, overrides=nested)
    with pytest.raises(PromptotError, match=r"optim\.lr"):
        promptot.benchmark("few-shot", tmp_path / "b", tasks=["bundled:food"], overrides=nested)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"optim": {"lrr": 1}}, "optim.lr"), ({"optim": {"lr": object()}}, "The value of 'optim.lr'"),
     ({"optim": {"lr": float("nan")}}, "The value of 'optim.lr'"), ({"optim": 3}, "is a section")],
)  # fmt: skip
def test_values_that_no_recipe_has(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptotError, match=message):
        promptot.load_recipe("prompt-ot", overrides)


def test_a_grid_search_reaches_the_strength(backbone: Backbone) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (8, 32, 32, 3), np.uint8)
    images[::2] += np.array([190, 0, 0], np.uint8)
    classifier = promptot.PromptClassifier(
        backbone=backbone, epochs=1, overrides={"optim": {"batch_size": 4}}, device="cpu"
    )
    search = GridSearchCV(classifier, {"strength": [1, 3, 10]}, cv=2)
    search.fit(images, ["red", "black"] * 4)
    recipe = search.best_estimator_.classifier.card.recipe
    assert recipe["objective.strength"] == search.best_params_["strength"]
    assert recipe["optim.epochs"] == 1


def test_former_names_go_on_working(photos: Path, backbone: Backbone) -> None:
    names = {"green_apple": "granny smith"}
    with pytest.warns(DeprecationWarning, match="'names' is called 'class_names'") as caught:
        run = fit(photos, backbone, names=names, recipe="zero-shot", overrides=())
    assert caught[0].filename == __file__
    assert "granny smith" in run.task.class_names
    path = next(photos.glob("*/*.png"))
    with pytest.warns(DeprecationWarning, match=r"Classifier\.classify") as caught:
        found = run.classifier.predict([path])
    assert caught[0].filename == __file__
    assert found == run.classifier.classify([path])
    with pytest.warns(DeprecationWarning, match=r"Classifier\.probabilities"):
        assert run.classifier.predict_proba([path])[0].shape == (1, 4)
    with pytest.warns(DeprecationWarning, match="class_names"):
        promptot.evaluate(run, photos, names=names)


# Runs ----------------------------------------------------------------------------------------


def test_a_run_in_memory_is_the_run_in_a_folder(
    photos: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk = fit(photos, backbone, tmp_path / "a")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    run = fit(photos, backbone)
    assert (run.folder, list(here.iterdir())) == (None, [])
    saved = run.save(tmp_path / "b")
    assert saved.folder == tmp_path / "b"
    files = [
        sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1]
    for name in ("adapter/prompts.safetensors", "adapter/card.json", "steps.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    ours, theirs = (read_manifest(tmp_path / n).as_json() for n in "ab")
    ours["results"].pop("seconds"), theirs["results"].pop("seconds")
    assert ours == theirs
    with pytest.raises(PromptotError, match="already holds a run"):
        run.save(tmp_path / "b")
    for options in ({"resume": True}, {"log": ["tensorboard"]}):
        with pytest.raises(PromptotError, match="Give out="):
            fit(photos, backbone, **options)
    assert torch.equal(on_disk.scores["test"].student, run.scores["test"].student)
    assert run.classifier is run.classifier  # names are encoded once


def test_a_run_read_back(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    run = fit(photos, backbone, tmp_path / "run")
    again = promptot.Run.from_pretrained(tmp_path / "run", backbone)
    assert again.manifest == read_manifest(tmp_path / "run")
    assert again.task.class_names == run.task.class_names
    assert [e.path for e in again.task.train] == [e.path for e in run.task.train]
    assert len(again.log.steps) == len(run.log.steps)
    paths = sorted(photos.glob("*/*.png"))[:3]
    expected = run.classifier.classify(paths)
    classifier = promptot.Classifier.from_pretrained(tmp_path / "run", backbone)
    classifier.save(tmp_path / "adapter")
    for other in (again, classifier, tmp_path / "adapter"):
        assert promptot.predict(other, paths, backbone=backbone) == expected
    chosen = promptot.predict(again, paths, ["sea", ["sky", "heaven"]], top_k=2)
    assert {name for one in chosen for name in one.class_names} == {"sea", "sky"}
    assert promptot.evaluate(again, photos).left_out == 8
    again.save(tmp_path / "copy")
    assert read_manifest(tmp_path / "copy") == again.manifest


def test_a_run_saved_over_itself_keeps_its_log(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    fit(photos, backbone, tmp_path / "run")
    run = fit(photos, backbone, tmp_path / "run", overwrite=True)
    before = (tmp_path / "run" / "steps.csv").read_bytes()
    run.save(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "steps.csv").read_bytes() == before
    again = promptot.Run.from_pretrained(tmp_path / "run", backbone)
    tested = (tmp_path / "run" / "predictions.csv").read_bytes()
    again.save(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "steps.csv").read_bytes() == before
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == tested


def test_the_page_of_a_run(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    run = fit(photos, backbone)
    with pytest.raises(PromptotError, match="was not saved"):
        run.report()
    assert "Zero-shot" in run.report(out=tmp_path / "a.html").read_text(encoding="utf-8")
    saved = run.save(tmp_path / "run")
    assert saved.report() == tmp_path / "run" / "report.html"
    again = promptot.Run.from_pretrained(tmp_path / "run", backbone)
    again.report(out=tmp_path / "b.html")
    pages = [(tmp_path / n).read_text(encoding="utf-8") for n in ("a.html", "b.html")]
    headlines = [re.search(r"<h1.*?</p>", page, re.DOTALL) for page in pages]
    assert headlines[0]
    assert headlines[1]
    assert headlines[0][0] == headlines[1][0]


def test_what_another_version_wrote_into_a_manifest_is_kept(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    fit(photos, backbone, tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    text = path.read_text(encoding="utf-8").replace('"task": {', '"task": {\n    "later": [1],', 1)
    path.write_text(text.replace('"seed": 1,', '"seed": 1, "more": {"a": 2},', 1), encoding="utf-8")
    for old in ('"platform"', '"device"', '"made_with"', '"results"'):
        path.write_text(path.read_text("utf-8").replace(old, old[:-1] + '_"', 1), "utf-8")
    run = promptot.Run.from_pretrained(tmp_path / "run", backbone)
    assert (run.manifest.platform, run.manifest.made_with) == ("", None)
    run.save(tmp_path / "copy")
    written = read_manifest(tmp_path / "copy").as_json()
    assert (written["more"], written["task"]["later"]) == ({"a": 2}, [1])


def test_no_warning_without_a_former_name(photos: Path, backbone: Backbone) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        run = fit(photos, backbone, recipe="zero-shot", overrides=())
        run.classifier.classify([next(photos.glob("*/*.png"))])
