from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import promptot
from promptot.backbones import Backbone
from promptot.inspection.survey_result import ClassSummary, advise
from promptot.inspection.survey_task import survey

MakePhotos = Callable[..., Path]


@pytest.fixture
def spoiled(make_photos: MakePhotos) -> Path:
    """Split folders with a leak, a contradiction, an unreadable image and a bad name."""
    folder = make_photos("spoiled", images=4, splits=("train", "test"))
    for split in ("train", "test"):
        for name in ("red", "blue", "green_apple", "yellow"):
            for image in (folder / split / name).glob("*.png"):
                image.unlink()
            for index in range(4):
                generator = np.random.default_rng([len(split), ord(name[0]), index])
                pixels = generator.integers(0, 256, (3, 3, 3), np.uint8)
                image = Image.fromarray(pixels).resize((40, 30), Image.Resampling.BICUBIC)
                image.save(folder / split / name / f"{index}.png")
    (folder / "test" / "red" / "0.png").write_bytes(
        (folder / "train" / "red" / "1.png").read_bytes()
    )
    Image.open(folder / "train" / "red" / "2.png").resize((80, 60)).save(
        folder / "train" / "blue" / "again.png"
    )
    (folder / "train" / "yellow" / "bad.jpg").write_text("<html>404</html>")
    for split in ("train", "test"):
        (folder / split / "yellow").rename(folder / split / "n0144")
    return folder


def test_what_is_wrong_is_found(spoiled: Path, backbone: Backbone) -> None:
    found = survey(spoiled, backbone=backbone, names={"red": ["red", "scarlet"]})
    assert found.images == {"train": 17, "validation": 0, "test": 16}
    assert [(c.name, c.train, c.test) for c in found.classes] == [
        ("blue", 5, 4),
        ("green apple", 4, 4),
        ("n0144", 4, 4),
        ("red", 4, 4),
    ]
    assert found.classes[3].synonyms == ("scarlet",)
    assert [(Path(s.path).name, "HTML" in s.reason) for s in found.skipped] == [("bad.jpg", True)]
    leak, contradiction = found.duplicates
    assert (leak.leaks, leak.contradicts, leak.exact) == (True, False, True)
    assert sorted(Path(path).name for path in leak.paths) == ["0.png", "1.png"]
    assert (contradiction.leaks, contradiction.contradicts) == (False, True)
    assert contradiction.exact is False
    assert "n0144" in found.name_warnings[0]
    assert found.sizes == {"smallest": (40, 30), "median": (40, 30), "largest": (80, 60)}
    assert found.shots == 4
    assert json.loads(json.dumps(found.as_json()))["classes"][3]["synonyms"] == ["scarlet"]


def test_zero_shot_is_what_fit_reports(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    found = survey(photos, backbone=backbone, template="a {} thing.")
    run = promptot.fit(
        photos,
        tmp_path / "run",
        backbone=backbone,
        template="a {} thing.",
        recipe="zero-shot",
        device="cpu",
    )
    scores = run.scores["test"]
    assert found.held_out
    assert (found.accuracy, found.tested) == (scores.teacher_accuracy, len(scores.labels))
    assert found.interval == scores.teacher_interval
    right = sum(round((c.zero_shot or 0) * c.test) for c in found.classes)
    assert right == round(scores.teacher_accuracy * len(scores.labels))
    assert all((c.mistaken_for is None) == (c.zero_shot == 1) for c in found.classes)


def test_domains_are_counted(photos: Path, backbone: Backbone, tmp_path: Path) -> None:
    rows = [
        f"{path},{path.parent.name},{'sketch' if index % 3 else 'photo'}"
        for index, path in enumerate(sorted(photos.glob("*/*.png")))
    ]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["path,label,domain", *rows]))
    assert survey(table, backbone=backbone).domains == {"photo": 8, "sketch": 16}


def test_nothing_to_test_on(photos: Path, backbone: Backbone) -> None:
    found = survey(photos, backbone=backbone, test_share=0)
    assert (found.accuracy, found.tested, found.held_out) == (None, 0, False)
    assert any("not be known" in text for text in found.advice)


@pytest.mark.parametrize(
    ("counts", "shots", "part"),
    [
        ([20] * 10, 16, ""),
        ([5] * 10, 4, ""),
        ([16] * 9 + [3], 16, "1 of 10 classes have fewer than 16"),
        ([16] * 8 + [3, 3], 2, ""),
        ([2, 2], 2, "four or more"),
        ([9, 0], 1, "no image to train on"),
    ],
)
def test_how_many_shots(counts: list[int], shots: int, part: str) -> None:
    classes = [ClassSummary(f"c{i}", (), count, 0, 3) for i, count in enumerate(counts)]
    advised, said = advise(classes, None)
    assert advised == shots
    assert part in " ".join(said)
