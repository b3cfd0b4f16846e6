"""From a folder of images to an adapter, a test and predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import promptot
from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.runs.evaluating import Evaluation
from promptot.runs.run import Run
from promptot.training.listener import Listener

QUICK = ("optim.epochs=2", "optim.lr=0.01")


@pytest.fixture
def run_folder(photos: Path, backbone: Backbone, tmp_path: Path) -> Path:
    fit(photos, tmp_path / "run", backbone)
    return tmp_path / "run"


def fit(data: Path, out: Path, backbone: Backbone, **options) -> Run:
    options = {"overrides": QUICK, "shots": 3, "report": False} | options
    return promptot.fit(data, out, backbone=backbone, device="cpu", **options)


def test_a_run_folder_holds_what_it_should(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    run_folder = fit(photos, tmp_path / "run", backbone, report=True).folder
    files = {str(p.relative_to(run_folder)) for p in run_folder.rglob("*") if p.is_file()}
    assert files == {
        str(Path("adapter") / "card.json"),
        str(Path("adapter") / "prompts.safetensors"),
        "steps.csv",
        "epochs.csv",
        "manifest.json",
        "predictions.csv",
        "report.html",
    }
    manifest = json.loads((run_folder / "manifest.json").read_text())
    assert manifest["seed"] == 1
    assert len(manifest["task"]["shots"]) == 4 * 3
    assert all(Path(shot["path"]).is_file() for shot in manifest["task"]["shots"])
    assert manifest["versions"]["torch"] == torch.__version__
    assert 0 <= manifest["results"]["test_accuracy"] <= 1
    card = json.loads((run_folder / "adapter" / "card.json").read_text())
    assert card["class_names"] == ["blue", "green apple", "red", "yellow"]
    assert len((run_folder / "steps.csv").read_text().splitlines()) == 1 + 2 * (12 // 4)


def test_two_runs_give_the_same_bits_and_another_seed_does_not(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    def prompts(name: str, seed: int) -> bytes:
        fit(photos, tmp_path / name, backbone, seed=seed)
        return (tmp_path / name / "adapter" / "prompts.safetensors").read_bytes()

    assert prompts("a", 1) == prompts("b", 1) != prompts("c", 2)


def test_the_test_images_are_not_trained_on(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    run = fit(photos, tmp_path / "run", backbone, shots=100)
    trained = {example.path for example in run.task.train}
    tested = {example.path for example in run.task.test}
    assert len(trained) == 16
    assert len(tested) == 8
    assert not trained & tested


def test_base_and_novel(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    run = fit(photos, tmp_path / "run", backbone, classes="base")
    assert run.task.class_names == ("blue", "green apple")
    assert {name: s.student.shape[1] for name, s in run.scores.items()} == {"base": 2, "novel": 2}


def test_split_folders_are_respected(
    make_photos: Callable[..., Path], backbone: Backbone, tmp_path: Path
) -> None:
    data = make_photos(images=4, splits=("train", "val", "test"))
    run = fit(data, tmp_path / "run", backbone)
    assert {Path(e.path).parts[-3] for e in run.task.train} == {"train"}
    assert len(run.scores["test"].labels) == 16
    result = promptot.evaluate(tmp_path / "run", data, backbone=backbone)
    assert result.left_out == 0
    assert torch.equal(result.scores["all classes"].student, run.scores["test"].student)


def test_zero_shot_is_the_frozen_model(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    run = promptot.fit(
        photos, tmp_path / "run", backbone=backbone, recipe="zero-shot", report=False
    )
    assert torch.equal(run.scores["test"].student, run.scores["test"].teacher)
    assert promptot.load(tmp_path / "run", backbone).model.prompts is None


def test_a_template_ensemble_is_the_mean_of_its_captions(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    captions = ("a {}.", "the colour {}.")
    given = [f"data.templates={list(captions)}"]
    run = promptot.fit(
        photos, tmp_path / "0", backbone=backbone, recipe="zero-shot", overrides=given
    )
    names = run.model.class_names
    each = [backbone.encode_text(backbone.tokenize(names, caption)) for caption in captions]
    expected = torch.nn.functional.normalize(sum(each) / 2, dim=-1)
    torch.testing.assert_close(run.model.encode_classes(), expected)
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest["task"]["template"] == list(captions)

    # Without text prompts the student reads what the teacher reads: in training and afterwards.
    prompted = fit(photos, tmp_path / "1", backbone, recipe="vpt", overrides=(*QUICK, *given))
    torch.testing.assert_close(prompted.model.encode_classes(), expected)
    loaded = promptot.load(tmp_path / "1", backbone).model
    assert loaded.template == captions
    torch.testing.assert_close(loaded.for_classes(names[:2]).encode_classes(), expected[:2])


def test_a_linear_probe(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    run = fit(photos, tmp_path / "run", backbone, recipe="linear-probe", overrides=())
    assert {path.name for path in run.folder.iterdir()} == {
        "adapter",
        "manifest.json",
        "predictions.csv",
    }
    assert run.scores["test"].student_accuracy > run.scores["test"].teacher_accuracy
    classifier = promptot.load(run.folder, backbone)
    paths = sorted(photos.glob("*/*.png"))
    right = [
        p.class_names[0] == Path(p.image).parent.name.replace("_", " ")
        for p in classifier.classify(paths)
    ]
    assert sum(right) > 0.9 * len(paths)
    again = promptot.evaluate(run.folder, photos, backbone=backbone)
    assert again.scores["all classes"].student_accuracy > 0.9
    with pytest.raises(PromptotError, match="can't serve 'teal'"):
        classifier.classify(paths[:1], ["red", "teal"])


@pytest.mark.parametrize("recipe", ["linear-probe", "coop-class-specific"])
def test_what_serves_its_own_classes_only_is_not_tested_on_novel_ones(
    photos: Path, backbone: Backbone, tmp_path: Path, recipe: str
) -> None:
    options = {"recipe": recipe, "classes": "base", "overrides": ("optim.epochs=1",)}
    run = fit(photos, tmp_path / "run", backbone, **options)
    assert set(run.scores) == {"base"}
    assert "novel_accuracy" not in json.loads((run.folder / "adapter" / "card.json").read_text())


def test_a_run_is_not_resumed_with_other_anchor_words(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("green apple\npebble\nmoss\n", encoding="utf-8")

    def interrupt(record: object) -> None:
        raise KeyboardInterrupt

    options = {"recipe": "prompt-ot-vocabulary"}
    options["overrides"] = (*QUICK, f"vocabulary.words={words}")
    with pytest.raises(KeyboardInterrupt):
        fit(photos, tmp_path / "run", backbone, listener=Listener(on_epoch=interrupt), **options)
    words.write_text("pebble\nlichen\n", encoding="utf-8")
    with pytest.raises(PromptotError, match="something else: the anchor words"):
        fit(photos, tmp_path / "run", backbone, resume=True, **options)
    words.write_text("pebble\nmoss\n", encoding="utf-8")  # a class needs no anchor
    run = fit(photos, tmp_path / "run", backbone, resume=True, **options)
    assert run.model.vocabulary == ("pebble", "moss")
    assert len(run.log.epochs) == 2


def test_the_anchor_words_that_ship_hold_no_novel_class(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    (photos / "red").rename(photos / "zebra")
    options = {"recipe": "ivlp", "overrides": ("optim.epochs=1", "vocabulary=pointwise")}
    run = fit(photos, tmp_path / "base", backbone, classes="base", **options)
    assert run.task.class_names == ("blue", "green apple")
    assert "zebra" not in run.model.vocabulary
    assert len(run.model.vocabulary) > 900


def test_an_interrupted_run_is_resumed_to_the_same_bits(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    whole = fit(photos, tmp_path / "whole", backbone, overrides=("optim.epochs=4",))

    def interrupt(record: object) -> None:
        if record.epoch == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    options = {"overrides": ("optim.epochs=4",)}
    with pytest.raises(KeyboardInterrupt):
        fit(photos, tmp_path / "run", backbone, listener=Listener(on_epoch=interrupt), **options)
    assert not (tmp_path / "run" / "adapter").exists()
    with pytest.raises(PromptotError, match="already holds an interrupted run.*--resume"):
        fit(photos, tmp_path / "run", backbone, **options)
    with pytest.raises(PromptotError, match="started with something else: the seed"):
        fit(photos, tmp_path / "run", backbone, resume=True, **options, seed=1 + 1)
    resumed = fit(photos, tmp_path / "run", backbone, resume=True, **options)
    name = Path("adapter") / "prompts.safetensors"
    assert (whole.folder / name).read_bytes() == (resumed.folder / name).read_bytes()
    assert (whole.folder / "steps.csv").read_text() == (resumed.folder / "steps.csv").read_text()


def test_a_run_is_not_overwritten_unasked(
    run_folder: Path, photos: Path, backbone: Backbone
) -> None:
    before = (run_folder / "manifest.json").read_bytes()
    with pytest.raises(PromptotError, match="already holds a run"):
        fit(photos, run_folder, backbone)
    assert fit(photos, run_folder, backbone, resume=True).was_complete
    assert (run_folder / "manifest.json").read_bytes() == before
    fit(photos, run_folder, backbone, overwrite=True, seed=5)
    assert json.loads((run_folder / "manifest.json").read_text())["seed"] == 5


def test_bad_data_does_not_cost_the_old_run(
    run_folder: Path, backbone: Backbone, tmp_path: Path
) -> None:
    before = (run_folder / "manifest.json").read_bytes()
    (tmp_path / "empty").mkdir()
    for data in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(PromptotError):
            fit(data, run_folder, backbone, overwrite=True)
    with pytest.raises(PromptotError, match="Did you mean 'optim.epochs'"):
        fit(tmp_path, run_folder, backbone, overwrite=True, overrides=("optim.epoch=1",))
    assert (run_folder / "manifest.json").read_bytes() == before


def test_unreadable_images_are_left_out_and_named(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    for index in range(6):
        if index % 2:
            (photos / "red" / f"{index}.png").write_bytes(b"not an image")
    run = fit(photos, tmp_path / "run", backbone)
    named = {Path(item.path).name for item in run.skipped}
    assert named
    assert named <= {"1.png", "3.png", "5.png"}
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert {Path(item["path"]).name for item in manifest["task"]["skipped"]} == named


def test_a_class_without_a_readable_image_stops_before_training(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    for index in range(6):
        (photos / "red" / f"{index}.png").write_bytes(b"")
    with pytest.raises(PromptotError, match="class 'red' has no readable training image"):
        fit(photos, tmp_path / "run", backbone)


def test_evaluate_leaves_out_what_was_trained_on(
    run_folder: Path, photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    result = promptot.evaluate(run_folder, photos, backbone=backbone)
    assert result.left_out == 12
    assert len(result.scores["all classes"].labels) == 12
    assert set(result.scores) == {"all classes"}
    shutil.copytree(photos / "red", photos / "crimson")
    result = promptot.evaluate(run_folder, photos, backbone=backbone)
    assert set(result.scores) == {"all classes", "trained classes", "other classes"}
    assert isinstance(result, Evaluation)
    # Half of the copies are of images that were trained on: known by their bytes, left out too.
    assert result.as_json()["results"]["other classes"]["images"] == 3

    solo = tmp_path / "solo" / "red"
    solo.mkdir(parents=True)
    only = json.loads((run_folder / "manifest.json").read_text())["task"]["shots"][0]["path"]
    (solo / "0.png").symlink_to(only)
    with pytest.raises(PromptotError, match="trained on every image"):
        promptot.evaluate(run_folder, tmp_path / "solo", backbone=backbone)


def test_predict_any_names(run_folder: Path, photos: Path, backbone: Backbone) -> None:
    classifier = promptot.load(run_folder, backbone)
    paths = sorted(photos.glob("*/*.png"))[:5]
    own = classifier.classify(paths, top_k=9)
    assert [p.image for p in own] == [str(path) for path in paths]
    for p in own:
        assert sorted(p.class_names) == ["blue", "green apple", "red", "yellow"]
        assert sum(p.probabilities) == pytest.approx(1, abs=1e-4)
        assert list(p.probabilities) == sorted(p.probabilities, reverse=True)
    other = classifier.classify(paths[:1], ["sea", "sunset", "meadow"])
    assert other[0].class_names[0] in {"sea", "sunset", "meadow"}
    opened = classifier.classify([Image.open(paths[0])], top_k=9)
    assert opened[0].probabilities == pytest.approx(own[0].probabilities, abs=1e-5)
    assert opened[0].image == "image 0"


def test_text_features_are_kept_until_something_changes(
    run_folder: Path, backbone: Backbone
) -> None:
    classifier = promptot.load(run_folder, backbone)
    names = ("sea", "sunset")
    first = classifier.text_features(names)
    assert classifier.text_features(names) is first
    assert not torch.equal(classifier.text_features(("sea", "meadow")), first)
    with torch.no_grad():
        classifier.model.prompts.text[0].neg_()
    changed = classifier.text_features(names)
    assert not torch.equal(changed, first)
    for index in range(20):
        classifier.text_features((f"name {index}", "sea"))
    again = classifier.text_features(names)
    assert again is not changed
    assert torch.equal(again, changed)


def test_predict_names_what_it_cannot_read(
    run_folder: Path, photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    good = next(photos.glob("*/*.png"))
    classifier = promptot.load(run_folder, backbone)
    first, second, third = classifier.classify([tmp_path / "bad.png", good, tmp_path / "none.png"])
    assert first.problem
    assert third.problem
    assert second.class_names
    with pytest.raises(PromptotError, match="comes twice"):
        classifier.classify([good], ["cat", "Cat"])
    with pytest.raises(PromptotError, match="class name is empty"):
        classifier.classify([good], ["cat", ""])
    assert classifier.classify([]) == []


def test_an_adapter_of_another_backbone_is_refused(run_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from weights import openai_state_dict

    state = {key: torch.tensor(value) for key, value in openai_state_dict(3).items()}
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(PromptotError, match="was trained in"):
        promptot.load(run_folder, f"openai:{tmp_path / 'other.safetensors'}")


def test_one_class_and_a_batch_larger_than_the_data(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    for name in ("blue", "green_apple", "yellow"):
        shutil.rmtree(photos / name)
    run = fit(photos, tmp_path / "run", backbone, overrides=(*QUICK, "optim.batch_size=64"))
    assert run.task.class_names == ("red",)
    assert run.scores["test"].student_accuracy == 1
    with pytest.raises(PromptotError, match="can't be divided"):
        fit(photos, tmp_path / "half", backbone, classes="base")


def test_a_run_without_a_test_image_has_a_page(
    photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    """From a folder of which nothing is held out, and from a task in memory without a test split.

    On the bundled model, whose drawings tell what was kept all the same.
    """
    folder = fit(photos, tmp_path / "a", "bundled:tiny", report=True, test_share=0)
    task = promptot.load_task(photos)
    memory = fit(task, tmp_path / "b", "bundled:tiny", report=True)
    for run in (folder, memory):
        assert not run.scores
        page = (run.folder / "report.html").read_text(encoding="utf-8")
        assert "Nothing was tested" in page
        assert "What it still knows" in page
