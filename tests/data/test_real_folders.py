"""Folders and tables as people really have them: read rightly, or refused; and what was taken for
what is said."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from promptot.backbones import Backbone
from promptot.cli.app import app
from promptot.data import ImageTask, find_images, load_folder, load_task, split_examples
from promptot.data.readers.junk import JUNK_FOLDERS
from promptot.data.readers.split_words import SPLITS
from promptot.errors import PromptotError
from promptot.experiments import PROTOCOLS, benchmark
from promptot.experiments.cells import fingerprint
from promptot.experiments.scenarios import Source
from promptot.files.reading import Unreadable, decode, likely_encoding
from promptot.files.yaml_text import parse_yaml
from promptot.inspection.survey_task import survey

WriteImage = Callable[..., Path]
FRUIT = ("apple", "pear")


@pytest.fixture
def write_images(write_image: WriteImage) -> Callable[..., None]:
    """Writes small images below `tmp_path`, each of another colour."""

    def write(*names: str) -> None:
        for number, name in enumerate(names):
            write_image(name, red=(37 * number) % 256)

    return write


WriteImages = Callable[..., None]


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(PromptotError) as caught:
        load_task(source, **options)
    assert caught.value.fix
    return f"{caught.value.problem} {caught.value.fix}"


def counts(task: ImageTask) -> tuple[int, int, int]:
    return len(task.train), len(task.validation), len(task.test)


def note(task: ImageTask, part: str) -> str:
    """The only note of a task that holds these words."""
    (found,) = [text for text in task.notes if part in text]
    return found


def png(red: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def write_table(path: Path, rows: Sequence[Sequence[object]], header: str = "path,label") -> Path:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# Words for splits.


@pytest.mark.parametrize("written", [str.lower, str.upper, str.title], ids=["dev", "DEV", "Dev"])
@pytest.mark.parametrize("word", SPLITS)
def test_every_word_for_a_split(
    tmp_path: Path, write_images: WriteImages, word: str, written: Callable[[str], str]
) -> None:
    split = SPLITS[word]
    other = {"train": "test", "validation": "train", "test": "train"}[split]
    write_images(f"{other}/apple/1.png", f"{other}/pear/1.png", f"{written(word)}/pear/2.png")
    task = load_task(tmp_path)
    assert task.class_names == FRUIT
    assert [Path(e.path).name for e in getattr(task, split)] == ["2.png"]
    assert f"'{written(word)}' as {split}" in note(task, "Splits are taken from the folders")


def test_the_words_are_those_of_hugging_face_s_image_folder() -> None:
    datasets = pytest.importorskip("datasets")
    keywords = datasets.data_files.SPLIT_KEYWORDS
    theirs = {word: str(split) for split, words in keywords.items() for word in words}
    assert theirs == SPLITS


@pytest.mark.parametrize(
    ("train", "test"),
    [("training_set", "test_set"), ("seg_train", "seg-test"), ("train2017", "Test Images")],
)
def test_words_in_the_names_of_split_folders(
    tmp_path: Path, write_images: WriteImages, train: str, test: str
) -> None:
    write_images(f"{train}/apple/1.png", f"{train}/pear/1.png", f"{test}/pear/2.png")
    task = load_task(tmp_path)
    assert (task.class_names, counts(task)) == (FRUIT, (2, 0, 1))
    assert f"'{train}' as train, '{test}' as test" in note(task, "Splits") or (
        f"'{test}' as test, '{train}' as train" in note(task, "Splits")
    )


@pytest.mark.parametrize(
    "names",
    [
        ("steam_train/old/1.png", "freight_train/old/1.png"),  # both are trains
        ("test_tube/1.png", "train_station/1.png"),  # images straight in the class folders
        ("test_tube/a/1.png", "train_station/a/1.png", "bus/a/1.png"),  # one has no such word
    ],
)
def test_classes_whose_names_hold_such_a_word(
    tmp_path: Path, write_images: WriteImages, names: tuple[str, ...]
) -> None:
    write_images(*names)
    task = load_task(tmp_path)
    assert len(task.class_names) == counts(task)[0] == len(names)
    assert not [text for text in task.notes if "Splits" in text]


@pytest.mark.parametrize("names", [("train/1.png", "test/1.png"), ("Training/1.png",)])
def test_split_folders_without_class_folders_are_no_classes(
    tmp_path: Path, write_images: WriteImages, names: tuple[str, ...]
) -> None:
    write_images(*names)
    assert "called as splits, and hold images without class folders" in refused(tmp_path)
    (tmp_path / names[0]).with_name("labels.csv").write_text("path,label\n1.png,apple\n")
    assert "give this table itself" in refused(tmp_path)


def test_splits_inside_class_folders_are_told_of(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(*(f"{fruit}/{split}/1.png" for fruit in FRUIT for split in ("train", "val")))
    task = load_task(tmp_path)
    assert (task.class_names, counts(task)) == (FRUIT, (4, 0, 0))
    assert "put them above the class folders" in note(task, "inside the class folders")


def test_a_plain_folder_of_class_folders_needs_no_note(
    tmp_path: Path, write_images: WriteImages
) -> None:
    write_images("apple/1.png", "pear/deep/2.png")
    assert load_task(tmp_path).notes == ()


# Tables of metadata.


@pytest.mark.parametrize("wrapped", ["", "download/"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_metadata_in_each_split_folder(
    tmp_path: Path, write_images: WriteImages, wrapped: str, suffix: str
) -> None:
    for split, labels in (("Training", ("10", "9")), ("eval", ("10", "2"))):
        write_images(*(f"{wrapped}{split}/{i}.png" for i in range(2)))
        place = tmp_path / wrapped / split
        rows = [{"file_name": f"{i}.png", "label": label} for i, label in enumerate(labels)]
        if suffix == "csv":
            cells = [list(row.values()) for row in rows]
            write_table(place / "metadata.csv", cells, "file_name,label")
        else:
            (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = load_task(tmp_path)
    assert task.class_names == ("2", "9", "10")
    assert [e.label for e in task.train] == [2, 1]
    assert [e.label for e in task.test] == [2, 0]
    assert "'Training' as train, 'eval' as test" in note(task, "Splits are taken from the folders")
    assert "column 'label'" in note(task, "Labels are taken")
    assert all(example.load() for example in task.examples)


def test_metadata_in_one_split_folder_only(tmp_path: Path, write_images: WriteImages) -> None:
    write_images("train/1.png", "test/apple/1.png")
    write_table(tmp_path / "train" / "metadata.csv", [("1.png", "apple")], "file_name,label")
    assert "'test' has none" in refused(tmp_path)


@pytest.mark.parametrize("words", [("train", "test"), ("Training", "valid"), ("dev", "eval")])
@pytest.mark.parametrize("above", ["", "images/"])
def test_metadata_above_split_folders(
    tmp_path: Path, write_images: WriteImages, words: tuple[str, str], above: str
) -> None:
    names = [f"{above}{word}/{fruit}.png" for word in words for fruit in FRUIT]
    write_images(*names, f"{above}extra/unlisted.png")
    rows = [(name, Path(name).stem) for name in names]
    write_table(tmp_path / "metadata.csv", rows, "file_name,label")
    task = load_task(tmp_path)
    assert task.class_names == FRUIT
    for word in words:
        images = getattr(task, SPLITS[word.lower()])
        assert [Path(e.path).parent.name for e in images] == [word, word]
    assert f"'{words[0]}' as " in note(task, "the folders in the paths")
    assert "unlisted.png" in note(task, "does not list 1 image")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("train/1.png", "a"), ("other/2.png", "b")], "1 of 2 paths"),
        ([("test/1.png", "a"), ("test/2.png", "b")], "every path"),
        ([("x/train/1.png", "a"), ("test/2.png", "b")], "1 of 2 paths"),
        ([("train/1.png", "train"), ("bus/2.png", "bus")], None),  # a class
        ([("/home/dev/1.png", "a"), ("/home/dev/x/2.png", "b")], None),  # somebody's home
        ([("train/1.png", "a"), ("train/2.png", "b")], None),  # makes no difference
    ],
)
def test_folders_in_paths_that_are_not_taken_for_splits(
    tmp_path: Path, rows: list[tuple[str, str]], said: str | None
) -> None:
    task = load_task(write_table(tmp_path / "t.csv", rows))
    assert counts(task) == (2, 0, 0)
    if said is None:
        assert task.notes == ()
    else:
        assert said in note(task, "was not taken for a split")


def test_a_column_of_splits_beats_the_folders(tmp_path: Path) -> None:
    rows = [("train/1.png", "a", "test"), ("test/2.png", "b", "dev"), ("test/3.png", "b", "")]
    task = load_task(write_table(tmp_path / "t.csv", rows, "path,label,split"))
    assert counts(task) == (1, 1, 1)
    assert "'dev' as validation, 'test' as test" in note(task, "the split column")
    rows = [("a.png", "a", "train"), ("b.png", "b", "test")]
    assert load_task(write_table(tmp_path / "u.csv", rows, "path,label,split")).notes == ()


def test_a_data_frame_is_divided_as_its_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [("train/1.png", "1.0"), ("test/2.png", "10.0"), ("test/2.png", "2.0")]
    path = write_table(tmp_path / "t.csv", rows)
    read, held = load_task(path), load_task(pandas.read_csv(path))
    assert counts(read) == counts(held) == (1, 0, 2)
    assert read.class_names == held.class_names == ("1", "2", "10")


@pytest.mark.parametrize("above", ["", "train/"])
def test_captions_beside_class_folders(
    tmp_path: Path, write_images: WriteImages, above: str
) -> None:
    names = [f"{fruit}/1.png" for fruit in FRUIT]
    write_images(*(above + name for name in names))
    table = tmp_path / above / "metadata.csv"
    write_table(table, [(name, "a nice picture") for name in names], "file_name,text")
    task = load_task(tmp_path)
    assert (task.class_names, counts(task)) == (FRUIT, (2, 0, 0))
    assert "'metadata.csv' has no column of labels" in note(task, "taken for the classes")


def test_captions_without_class_folders(tmp_path: Path, write_images: WriteImages) -> None:
    write_images("1.png")
    write_table(tmp_path / "metadata.csv", [("1.png", "a nice picture")], "file_name,text")
    assert "no column 'label'; it has file_name, text" in refused(tmp_path)


def test_two_columns_that_may_be_the_labels(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [("1.png", "a", "x")], "path,category,label")
    task = load_task(path)
    assert task.class_names == ("x",)
    assert "'label' was taken for the labels, and not 'category'" in note(task, "column")
    assert load_task(path, columns={"label": "category"}).notes == ()


# Text.


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_breaks_end_a_line_of_json(tmp_path: Path, character: str) -> None:
    row = json.dumps(
        {"path": "1.png", "label": "a", "caption": f"x{character}y"}, ensure_ascii=False
    )
    (tmp_path / "t.jsonl").write_text(f"{row}\n{row}\n", encoding="utf-8")
    assert counts(load_task(tmp_path / "t.jsonl")) == (2, 0, 0)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_unicode_with_its_mark(tmp_path: Path, encoding: str, delimiter: str) -> None:
    text = f"path{delimiter}label\r\n1.png{delimiter}Hündchen\r\n2.png{delimiter}猫\r\n"
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    (tmp_path / "t.csv").write_bytes((mark + text).encode(encoding))
    assert load_task(tmp_path / "t.csv").class_names == ("Hündchen", "猫")


def test_names_in_utf_16(tmp_path: Path, write_images: WriteImages) -> None:
    write_images("data/a/1.png")
    for name, text in (("n.json", '{"a": "Hündchen"}'), ("n.yaml", "a: Hündchen\n")):
        (tmp_path / name).write_bytes(text.encode("utf-16"))
        assert load_task(tmp_path / "data", class_names=tmp_path / name).class_names == (
            "Hündchen",
        )


@pytest.mark.parametrize(
    ("text", "encoding", "likely"),
    [
        ("Hündchen, Kätzchen", "latin-1", "Windows-1252"),
        ("“señor” – perché", "cp1252", "Windows-1252"),
        ("собака;кошка", "cp1251", "Windows-1251"),
        ("子犬と子猫", "cp932", "East Asian"),
        ("小狗,小猫", "gbk", "East Asian"),
        ("강아지,고양이", "euc-kr", "East Asian"),
        ("path,label\n1.png,dog\n", "utf-16-le", "UTF-16 without its byte order mark"),
        ("path,label\n1.png,dog\n", "utf-16-be", "UTF-16 without its byte order mark"),
    ],
)
def test_the_likely_encoding_is_named(
    tmp_path: Path, text: str, encoding: str, likely: str
) -> None:
    content = text.encode(encoding)
    assert likely in str(likely_encoding(content))
    if "UTF" not in likely:
        (tmp_path / "t.csv").write_bytes(b"path,label\n1.png," + content)
        message = refused(tmp_path / "t.csv")
        assert f"likely {likely}" in message or "likely an East Asian" in message
        assert "line 2" in message
        assert "UTF-8" in message


def test_what_is_no_text_has_no_likely_encoding() -> None:
    assert likely_encoding(png()) is None
    assert likely_encoding(bytes(range(256))) is None
    with pytest.raises(Unreadable, match="no UTF-16|not UTF-16"):
        decode(b"\xff\xfea")


# Names.


YAML_WORDS = ("yes", "no", "on", "off", "true", "False", "y", "n", "null", "~", "Null")
YAML_NUMBERS = (
    "007",
    "010",
    "0o17",
    "0x1F",
    "1_000",
    "1.0",
    "1e3",
    "12:30:45",
    "2024-01-01",
)


@pytest.mark.parametrize("word", [*YAML_WORDS, *YAML_NUMBERS])
def test_keys_in_yaml_are_the_names_of_folders(
    tmp_path: Path, write_images: WriteImages, word: str
) -> None:
    write_images(f"data/{word}/1.png", "data/other/1.png")
    (tmp_path / "n.yaml").write_text(f"{word}: found\n")
    task = load_task(tmp_path / "data", class_names=tmp_path / "n.yaml")
    assert set(task.class_names) == {"found", "other"}
    (tmp_path / "d.yaml").write_text(f"data: data\nnames: {{{word}: found}}\n")
    assert load_task(tmp_path / "d.yaml").class_names == task.class_names
    (tmp_path / "t.csv").write_text(f"path,label\ndata/{word}/1.png,{word}\ndata/other/1.png,b\n")
    assert "found" in load_task(tmp_path / "t.csv", class_names=tmp_path / "n.yaml").class_names


@pytest.mark.parametrize(
    "word", [*(w for w in YAML_WORDS if w.lower() not in ("null", "~")), "007"]
)
def test_values_in_yaml_are_names_too(tmp_path: Path, write_images: WriteImages, word: str) -> None:
    write_images("data/a/1.png")
    (tmp_path / "n.yaml").write_text(f"a: [{word}, other]\n")
    task = load_task(tmp_path / "data", class_names=tmp_path / "n.yaml")
    assert (task.class_names, task.synonyms) == ((word,), {word: ("other",)})


def test_yaml_as_text_knows_null_and_equal_keys() -> None:
    assert parse_yaml("{a: null, b: ~}", as_text=True) == {"a": None, "b": None}
    with pytest.raises(Unreadable, match="'no' comes twice"):
        parse_yaml("no: a\n'no': b\n", as_text=True)


def test_names_that_fit_no_class_and_classes_without_a_name(
    tmp_path: Path, write_images: WriteImages
) -> None:
    write_images("data/007/1.png", "data/8/1.png", "data/9/1.png")
    (tmp_path / "n.json").write_text('{"7": "bond", "8": "eight", "08": "also eight"}')
    task = load_task(tmp_path / "data", class_names=tmp_path / "n.json")
    assert task.class_names == ("007", "eight", "9")
    assert "'7', '08' fit no class" in note(task, "no class")
    assert "'007', '9'" in note(task, "No name was given")
    assert "None of the classes" in refused(tmp_path / "data", names={"x": "y"})


SAME = {"n04008634": "missile", "n03773504": "Missile", "n02085620": "dog"}


@pytest.fixture
def missiles(tmp_path: Path, write_images: WriteImages) -> Path:
    write_images(*(f"data/{folder}/{i}.png" for folder in SAME for i in range(2)))
    return tmp_path / "data"


def test_classes_of_one_name_are_refused_or_kept(missiles: Path) -> None:
    assert "--keep-same-names" in refused(missiles, names=SAME)
    task = load_task(missiles, class_names=SAME, keep_same_names=True)
    assert task.class_names == ("dog", "Missile", "missile")
    assert [e.label for e in task.train] == [0, 0, 1, 1, 2, 2]
    assert task.same_names
    exact = {**SAME, "n03773504": "missile"}
    task = load_task(missiles, class_names=exact, keep_same_names=True)
    assert task.class_names == ("dog", "missile", "missile")
    assert note(task, "Several classes are called 'missile'")
    assert task.base().class_names == ("dog", "missile")


def test_a_description_keeps_same_names(missiles: Path) -> None:
    path = missiles.parent / "d.yaml"
    path.write_text(f"data: data\nnames: {json.dumps(SAME)}\n")
    assert "keep_same_names: true" in refused(path)
    assert len(load_task(path, keep_same_names=True).class_names) == 3
    path.write_text(f"{path.read_text()}keep_same_names: true\n")
    assert len(load_task(path).class_names) == 3


def test_names_of_classes_that_are_not_there_may_be_alike(missiles: Path) -> None:
    names = {"n02085620": "dog", "other": "sunglasses", "another": "sunglasses"}
    assert load_task(missiles, class_names=names).class_names[0] == "dog"


def test_two_classes_of_one_name_and_other_synonyms(missiles: Path) -> None:
    names = {"n04008634": ["missile", "projectile"], "n03773504": "missile"}
    assert "other synonyms" in refused(missiles, names=names, keep_same_names=True)


def test_labels_of_one_name_in_shards_by_split(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("missile\ndog\nmissile\n")
    for split in ("train", "test"):
        members: dict[str, bytes] = {}
        for label in range(3):
            members |= {f"{label}.png": png(label), f"{label}.cls": str(label).encode()}
        write_tar(tmp_path / f"{split}-0.tar", members)
    assert "--keep-same-names" in refused(tmp_path)
    parts = {split: tmp_path / f"{split}-0.tar" for split in ("train", "test")}
    for source in (tmp_path, parts):
        task = load_task(source, keep_same_names=True)
        assert task.class_names == ("missile", "dog", "missile")
        assert [e.label for e in task.test] == [0, 1, 2]
    assert "shards" in note(load_task(tmp_path, keep_same_names=True), "'train' as train")


# Junk folders.


@pytest.mark.parametrize("junk", sorted(JUNK_FOLDERS))
def test_junk_folders_are_left_out_and_named(
    tmp_path: Path, write_images: WriteImages, junk: str
) -> None:
    junk = junk.title()
    write_images("apple/1.png", "pear/1.png", f"{junk}/old.png", f"apple/{junk}/1.png/THUMB.png")
    task = load_task(tmp_path)
    assert (task.class_names, counts(task), task.skipped) == (FRUIT, (2, 0, 0), ())
    assert f"2 folders '{junk}'" in note(task, "Left out")
    assert len(find_images([tmp_path])) == 2


def test_junk_in_archives_and_beside_tables_and_shards(
    tmp_path: Path, write_images: WriteImages
) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        for name in ("apple/1.png", "pear/1.png", "@eaDir/1.png/T.png", "pear/#recycle/2.png"):
            file.writestr(name, png())
    task = load_task(tmp_path / "p.zip")
    assert (task.class_names, counts(task)) == (FRUIT, (2, 0, 0))
    assert "'@eaDir'" in note(task, "Left out")
    shards = tmp_path / "shards"
    for place in ("", "#recycle", ".hidden", "train"):
        (shards / place).mkdir(parents=True, exist_ok=True)
        members = {"a.png": png(), "a.cls": b"apple", "._a.png": b"x", "__MACOSX/._a.png": b"x"}
        write_tar(shards / place / "s.tar", members)
    (shards / "._s.tar").write_bytes(b"what a Mac leaves")
    assert counts(load_task(shards)) == (2, 0, 0)


# WebDataset.


def test_dotted_keys_are_explained(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for i in range(6):
        members |= {f"22.0{i}.png": png(i), f"22.0{i}.cls": b"0"}
    message = refused(write_tar(tmp_path / "dotted.tar", members))
    for part in ("6 samples share the key '22'", "first dot", "'22.00'", "'22-00'"):
        assert part in message
    assert "class folder" not in message
    assert "6 samples share" in refused(tmp_path)


@pytest.mark.parametrize("kind", ["json", "txt"])
def test_dotted_keys_of_other_labels(tmp_path: Path, kind: str) -> None:
    members = {"v1.2/22.05.png": png(), f"v1.2/22.05.{kind}": b'{"label": "x"}'}
    assert "a sample has the key 'v1.2/22'" in refused(write_tar(tmp_path / "s.tar", members))


def test_an_unlabelled_sample_with_more_files_is_passed_over(tmp_path: Path) -> None:
    members = {"1.png": png(), "1.cls": b"0", "2.png": png(), "2.seg.png": png(), "2.seg.json": b""}
    task = load_task(write_tar(tmp_path / "s.tar", members))
    assert (counts(task), len(task.skipped)) == ((1, 0, 0), 1)


def test_a_tar_of_class_folders_with_dots_in_names(tmp_path: Path) -> None:
    names = ("apple/22.05.png", "apple/22.05.txt", "pear/22.06.png", "pear.txt")
    task = load_task(write_tar(tmp_path / "s.tar", {name: png() for name in names}))
    assert (task.class_names, counts(task)) == (FRUIT, (2, 0, 0))


def test_a_key_ends_at_the_first_dot_and_folders_may_have_some(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for i, fruit in enumerate(FRUIT):
        members |= {
            f"v1.2/{i}.depth.png": png(9),
            f"v1.2/{i}.png": png(i),
            f"v1.2/{i}.meta.json": b"{}",
            f"v1.2/{i}.cls": fruit.encode(),
        }
    task = load_task(write_tar(tmp_path / "s.tar", members))
    assert [e.path.rpartition("/")[2] for e in task.train] == ["0.png", "1.png"]
    assert "'.png' was taken" in note(task, "2 samples with several images")


def test_labels_from_texts_are_told_of(tmp_path: Path) -> None:
    members = {"1.png": png(), "1.txt": b"a nice picture", "2.png": png(), "2.txt": b"another"}
    assert "2 in all" in note(load_task(write_tar(tmp_path / "s.tar", members)), ".txt")


@pytest.mark.parametrize(
    ("text", "line"), [("cat\n\ndog\n", 2), ("\ncat\n", 1), ("cat\r\ndog\r\n \r\nowl", 3)]
)
def test_a_blank_line_among_class_names(tmp_path: Path, text: str, line: int) -> None:
    write_tar(tmp_path / "s.tar", {"1.png": png(), "1.cls": b"1"})
    (tmp_path / "classnames.txt").write_bytes(text.encode())
    assert f"Line {line} of" in refused(tmp_path)


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\r\n", " \n"])
@pytest.mark.parametrize("first", ["hot\u2028dog", "hot\x0cdog", "hot\x85dog", "hot\rdog"])
def test_class_names_end_at_line_breaks_only(tmp_path: Path, first: str, end: str) -> None:
    write_tar(tmp_path / "s.tar", {"0.png": png(), "0.cls": b"0", "1.png": png(), "1.cls": b"1"})
    (tmp_path / "classnames.txt").write_bytes(f"{first}\ncat{end}".encode())
    assert load_task(tmp_path / "s.tar").class_names == ("hot dog", "cat")


# Labels that are numbers, and the order of classes.


def test_labels_written_as_floats(tmp_path: Path) -> None:
    rows = [(f"{i}.png", ("1.0", "2.00", "10.0", "3")[i % 4]) for i in range(8)]
    task = load_task(write_table(tmp_path / "t.csv", rows))
    assert task.class_names == ("1", "2", "3", "10")
    assert [e.label for e in task.train] == [0, 1, 3, 2] * 2
    assert "1.0, 10.0, 2.00" in note(task, "written as floats")
    rows = [("a.png", "1.5"), ("b.png", "10.5"), ("c.png", "2.5")]
    task = load_task(write_table(tmp_path / "u.csv", rows))
    assert (task.class_names, task.notes) == (("1.5", "2.5", "10.5"), ())


@pytest.mark.parametrize("unknown", ["-1", "-1.0"])
def test_minus_one_is_no_label_and_is_told_of(tmp_path: Path, unknown: str) -> None:
    rows = [(f"{i}.png", label) for i, label in enumerate(("0", "1", unknown, unknown))]
    task = load_task(write_table(tmp_path / "t.csv", rows))
    assert (task.class_names, counts(task)) == (("0", "1"), (2, 0, 0))
    assert [Path(item.path).name for item in task.skipped] == ["2.png", "3.png"]
    assert "2 images were left out" in note(task, "The label -1")
    lines = [json.dumps({"path": path, "label": float(label)}) for path, label in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert load_task(tmp_path / "t.jsonl").notes == task.notes


def test_minus_one_that_may_be_a_class(tmp_path: Path) -> None:
    rows = [("a.png", "-1"), ("b.png", "1")]
    assert "write 0 and 1" in refused(write_table(tmp_path / "t.csv", rows))
    assert "write 0 and 1" in refused((["a.png", "b.png"], [-1, 1]))
    rows = [("a.png", "-1"), ("b.png", "cat")]
    task = load_task(write_table(tmp_path / "t.csv", rows))
    assert task.class_names == ("-1", "cat")
    assert "leave the cell empty" in note(task, "'-1' was taken for a class")


@pytest.mark.parametrize("text", ["nan", "None", "N/A", "NULL"])
def test_texts_that_stand_for_no_label(tmp_path: Path, text: str) -> None:
    task = load_task(write_table(tmp_path / "t.csv", [("a.png", text), ("b.png", "cat")]))
    assert f"'{text}' was taken for a class" in note(task, "leave the cell empty")


def test_one_label_written_in_two_ways(tmp_path: Path) -> None:
    task = load_task(write_table(tmp_path / "t.csv", [("a.png", "red_fox"), ("b.png", "red fox")]))
    assert task.class_names == ("red fox",)
    assert note(task, "'red fox' and 'red_fox' were taken for one class")


NUMBERS = ("0", "1", "2", "9", "10", "11", "100")
ZEROS = ("007", "9", "010")
MIXED = ("10", "9", "cat_2", "cat2", "red-panda", "red_fox", "Zebra")
ORDERS = [NUMBERS, ZEROS, ("7", "8.5", "10"), tuple(sorted(n.replace("_", " ") for n in MIXED))]


@pytest.mark.parametrize("names", ORDERS)
def test_one_order_however_a_data_set_is_stored(
    tmp_path: Path, write_images: WriteImages, names: tuple[str, ...]
) -> None:
    folders = {name: name.replace(" ", "_") for name in names}
    write_images(*(f"data/{folder}/1.png" for folder in folders.values()))
    rows = [(f"data/{folder}/1.png", folder) for folder in reversed(folders.values())]
    lines = [json.dumps(dict(zip(("path", "label"), row, strict=True))) for row in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    members: dict[str, bytes] = {}
    for i, (path, folder) in enumerate(rows):
        members |= {f"{i}.png": (tmp_path / path).read_bytes(), f"{i}.cls": folder.encode()}
    half = rows[: len(rows) // 2]
    places = {
        "a folder": tmp_path / "data",
        "a table": write_table(tmp_path / "t.csv", rows),
        "JSON lines": tmp_path / "t.jsonl",
        "a shard": write_tar(tmp_path / "s.tar", members),
        "pairs": ([str(tmp_path / path) for path, _ in rows], [label for _, label in rows]),
        "splits": {
            "train": write_table(tmp_path / "half.csv", half),
            "test": write_table(tmp_path / "rest.csv", rows[len(half) :]),
        },
    }
    for kind, place in places.items():
        task = load_task(place)
        assert task.class_names == names, kind
        named = {e.hash(): task.class_names[e.label] for e in task.examples}
        folder_task = load_folder(tmp_path / "data")
        assert named == {
            e.hash(): folder_task.class_names[e.label] for e in folder_task.examples
        }, kind
        assert task.base().class_names == names[: (len(names) + 1) // 2], kind


class Sorted:
    """A data set as torchvision has them, whose classes a library has sorted as text."""

    classes: Sequence[str] = sorted(NUMBERS)

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (8, 8), (int(self.classes[index]), 0, 0)), index


def test_numbers_that_a_library_has_sorted_as_text() -> None:
    task = load_task(Sorted())
    assert task.class_names == NUMBERS
    for example in task.train:
        red, _, _ = example.load().getpixel((0, 0))  # type: ignore[misc]
        assert task.class_names[example.label] == str(red)


class Chosen(Sorted):
    classes = ("100", "9", "10", "2", "1", "0", "11")


def test_an_order_that_somebody_chose_stays() -> None:
    assert load_task(Chosen()).class_names == Chosen.classes


def test_numbers_in_a_parquet_file_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=sorted(NUMBERS))
    features = datasets.Features({"image": datasets.Image(), "label": label})
    images = [{"bytes": png(int(name)), "path": None} for name in sorted(NUMBERS)]
    rows = {"image": images, "label": list(range(len(NUMBERS)))}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.to_parquet(str(tmp_path / "t.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    for place in (tmp_path / "t.parquet", tmp_path / "saved", made):
        task = load_task(place)
        assert task.class_names == NUMBERS
        for example in task.train:
            red, _, _ = example.load().getpixel((0, 0))  # type: ignore[misc]
            assert task.class_names[example.label] == str(red)


def test_splits_of_hugging_face_that_are_left_out() -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": png(), "path": None}], "label": ["a"]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    part = datasets.Dataset.from_dict(rows, features=features)
    task = load_task(datasets.DatasetDict({"train": part, "unsupervised": part}))
    assert counts(task) == (1, 0, 0)
    assert "'unsupervised'" in note(task, "1 images were left out")


# Separators of Windows.


def test_paths_as_windows_writes_them(tmp_path: Path, write_images: WriteImages) -> None:
    write_images("images/train/1.png", "images/test/2.png", "odd\\name.png")
    rows = [(r"images\train\1.png", "a"), (r"images\test/2.png", "b")]
    for name, more in (("t.csv", []), ("u.csv", [(r"odd\name.png", "a")])):
        task = load_task(write_table(tmp_path / name, [*rows, *more]))
        assert len([example.load() for example in task.examples]) == 2 + len(more)
    assert counts(load_task(tmp_path / "t.csv")) == (1, 0, 1)
    (tmp_path / "d.yaml").write_text("data: sub\\t.csv\n")
    (tmp_path / "sub").mkdir()
    write_table(tmp_path / "sub" / "t.csv", [(r"..\images\train\1.png", "a")])
    assert load_task(tmp_path / "d.yaml").train[0].load().size == (12, 10)


def test_a_parquet_table_with_paths_as_windows_writes_them(
    tmp_path: Path, write_images: WriteImages
) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_images("images/1.png")
    table = arrow.table({"path": [r"images\1.png"], "label": ["a"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert load_task(tmp_path / "t.parquet").train[0].load().size == (12, 10)


def test_a_zip_packed_with_backslashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        for name in FRUIT:
            file.writestr(f"{name}\\1.png", png())
    task = load_task(tmp_path / "p.zip")
    assert task.class_names == FRUIT
    assert [example.load().size for example in task.train] == [(8, 8), (8, 8)]


def test_a_table_in_an_archive_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        file.writestr("1.png", png())
        file.writestr("metadata.csv", "file_name,label\n1.png,a\n")
    assert "unpack it" in refused(tmp_path / "p.zip")


def test_splits_of_a_part_are_told_of(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(*(f"d/{split}/{fruit}/1.png" for split in ("train", "test") for fruit in FRUIT))
    write_images("e/apple/2.png")
    task = load_task({"train": tmp_path / "d", "eval": tmp_path / "e"})
    assert counts(task) == (4, 0, 1)
    assert task.notes == ("All images given as 'train' are of that split, whatever folders say.",)


# Domains.


def test_domain_folders_above_class_folders(tmp_path: Path, write_images: WriteImages) -> None:
    animals = ("dog", "horse", "owl")
    write_images(*(f"{domain}/{name}/1.png" for domain in ("art", "photo") for name in animals))
    task = load_task(tmp_path)
    assert task.class_names == ("art", "photo")
    said = note(task, "were taken for the classes")
    assert f"domain-generalization --tasks {tmp_path}/art,{tmp_path}/photo" in said
    assert "path, label and domain" in said
    assert load_task(tmp_path / "art").notes == ()


def test_class_folders_with_folders_of_their_own(tmp_path: Path, write_images: WriteImages) -> None:
    write_images("cat/tom/1.png", "cat/ginger/1.png", "dog/rex/1.png", "dog/bello/1.png")
    assert load_task(tmp_path).notes == ()
    write_images("bird/tom/1.png", "bird/2.png")
    assert load_task(tmp_path).notes == ()


def test_class_folders_with_one_folder_each_are_no_domains(
    tmp_path: Path, write_images: WriteImages
) -> None:
    write_images("cat/raw/1.png", "dog/raw/1.png")
    assert load_task(tmp_path).notes == ()


# Where it is said.


def test_the_survey_and_the_commands_say_it(
    tmp_path: Path, write_images: WriteImages, clip_file: Path
) -> None:
    splits = ("Training", "Testing")
    write_images(*(f"d/{s}/{fruit}/{i}.png" for s in splits for fruit in FRUIT for i in range(2)))
    model = ["--backbone", f"openai:{clip_file}", "--device", "cpu"]
    said = "'Testing' as test, 'Training' as train"
    assert said in survey(tmp_path / "d", backbone=f"openai:{clip_file}").notes[0]
    runner = CliRunner(env={"COLUMNS": "200"})
    result = runner.invoke(
        app, ["data", str(tmp_path / "d"), *model, "--json", str(tmp_path / "d.json")]
    )
    assert said in result.output
    assert said in json.loads((tmp_path / "d.json").read_text())["notes"][0]
    quick = ["--set", "optim.epochs=1", "--shots", "1", "--json", str(tmp_path / "r.json")]
    run = str(tmp_path / "run")
    result = runner.invoke(app, ["fit", str(tmp_path / "d"), "--out", run, *model, *quick])
    assert result.exit_code == 0, result.output
    assert said in result.output + result.stderr
    assert said in json.loads((tmp_path / "r.json").read_text())["notes"][0]
    assert (
        said.replace("'", "&#39;") in (tmp_path / "run" / "report.html").read_text()
        or said in (tmp_path / "run" / "report.html").read_text()
    )
    result = runner.invoke(app, ["evaluate", run, str(tmp_path / "d"), *model[:2]])
    assert said in result.output


def test_classes_of_one_name_from_the_command_line(missiles: Path, clip_file: Path) -> None:
    names, run = missiles.parent / "n.json", missiles.parent / "run"
    names.write_text(json.dumps({**SAME, "n03773504": "missile"}))
    model = ["--backbone", f"openai:{clip_file}", "--device", "cpu"]
    runner = CliRunner(env={"COLUMNS": "200"})
    for recipe in ("coop", "coop-class-specific", "linear-probe"):
        fit = ["fit", str(missiles), "--names", str(names), "--out", str(run), "--shots", "1"]
        quick = ["--recipe", recipe, "--overwrite", *model, "--test-share", "0.5"]
        quick += [] if recipe == "linear-probe" else ["--set", "optim.epochs=1"]
        result = runner.invoke(app, [*fit, *quick, "--keep-same-names"])
        assert result.exit_code == 0, result.output + str(result.exception)
        card = json.loads((run / "adapter" / "card.json").read_text())
        assert card["class_names"] == ["dog", "missile", "missile"]
        same = ["--names", str(names), "--keep-same-names"]
        result = runner.invoke(app, ["evaluate", str(run), str(missiles), *same, *model[:2]])
        assert result.exit_code == 0, result.output + str(result.exception)
        result = runner.invoke(app, ["report", str(run), *model[:2]])
        assert "can't tell their images apart" in str(result.exception)


def test_a_benchmark_says_it(tmp_path: Path, write_images: WriteImages, backbone: Backbone) -> None:
    splits = ("Training", "Testing")
    write_images(*(f"d/{s}/{fruit}/{i}.png" for s in splits for fruit in FRUIT for i in range(2)))
    found = benchmark(
        "few-shot",
        tmp_path / "out",
        methods="zero-shot",
        tasks=[str(tmp_path / "d")],
        seeds=(1,),
        shots=(1,),
        backbone=backbone,
    )
    said = "d: Splits are taken from the folders: 'Testing' as test, 'Training' as train."
    assert said in found.summary.notes


def test_results_of_another_order_of_classes_are_not_used_again(
    tmp_path: Path, write_images: WriteImages
) -> None:
    write_images(*(f"d/{number}/{i}.png" for number in NUMBERS for i in range(2)))
    task = load_task(tmp_path / "d")
    before = task.select([NUMBERS.index(name) for name in sorted(NUMBERS)])

    def prints(task: ImageTask) -> list[str]:
        source = Source("d", "d", split_examples(task, seed=0), None, None)
        protocols = ("base-to-novel", "few-shot")
        return [fingerprint(*PROTOCOLS[p].scenarios([source], [], [1], "test")) for p in protocols]

    assert prints(task) == prints(load_task(tmp_path / "d"))
    assert not set(prints(task)) & set(prints(before))
