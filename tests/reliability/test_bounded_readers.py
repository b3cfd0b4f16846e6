"""What would wait, never end, grow or crash when it is read: one sentence instead, and soon."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import re
import signal
import struct
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from grammar import KINDS, _read, forged_arrow, png
from pyarrow import parquet
from safetensors.torch import save

import promptot
from promptot.adaptation import IVLPPrompts
from promptot.backbones import Backbone, load_backbone
from promptot.data import UnreadableImage, load_image, load_task
from promptot.data import arrow_columns as columns
from promptot.data.images import image_bytes as containers
from promptot.data.readers import webdataset as shards
from promptot.data.readers.folder import find_images
from promptot.data.readers.renaming import load_names
from promptot.errors import PromptotError
from promptot.experiments.cell_record import CellRecord
from promptot.experiments.record_file import RecordFile
from promptot.files.reading import (
    LONGEST_NUMBER,
    Unreadable,
    brief,
    open_regular,
    parse_json,
    read_bytes,
    read_csv,
    read_text,
)
from promptot.files.writing import write_json
from promptot.files.yaml_text import parse_yaml
from promptot.recipes import load_recipe
from promptot.runs.adapter import TENSORS, load_adapter, save_adapter
from promptot.runs.card import CARD
from promptot.runs.estimator import PromptClassifier
from promptot.runs.manifest import read_manifest
from promptot.runs.run_contents import RunContents
from promptot.training.checkpoint import read_checkpoint

STEPS = zip("abcdefghi", "bcdefghij", strict=True)
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in STEPS
)
HUGE = "9" * 5000
DEEP_JSON, DEEP_YAML = "[" * 3000 + "]" * 3000, "- " * 3000 + "x"


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail rather than wait for a pipe that nobody writes to."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(read: Callable[[], Any], seconds: int = 10) -> str:
    with within(seconds), pytest.raises(PromptotError) as caught:
        read()
    message = str(caught.value)
    assert len(message) < 1500
    assert "set_int_max_str_digits" not in message
    return message


def write(path: Path, content: str | bytes | bytearray) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Pipes and devices ---------------------------------------------------------------------------

FILES = [kind for kind in KINDS if kind != "override.txt"]
NOT_THERE = {"classes.txt", "epochs.csv", "classnames.txt", "dataset_dict.json", "state.json",
             "dataset_info.json"}  # fmt: skip
"""What is looked for beside something else: a pipe of that name is passed over."""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("way", ["pipe", "device"])
@pytest.mark.parametrize("kind", FILES)
def test_no_reader_waits_for_a_pipe_or_reads_a_device(kind: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / {"description.yaml": "d.yaml"}.get(kind, kind)
    if way == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    if kind in NOT_THERE:
        with within(10), contextlib.suppress(PromptotError):
            _read(kind, path, tmp_path)
        return
    message = refused(lambda: _read(kind, path, tmp_path))
    assert "pipe or a device" in message or "not a" in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_checkpoint_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c")
    assert "damaged" in refused(lambda: read_checkpoint(tmp_path / "c"))


def test_a_file_that_is_larger_than_it_says_is_read_up_to_the_bound(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="far too large"):
        read_bytes(write(tmp_path / "f", "x" * 100), largest=99)
    assert read_bytes(tmp_path / "f", largest=100) == b"x" * 100
    if Path("/proc/self/status").exists():  # the system says that it has 0 bytes
        assert "Name" in read_text("/proc/self/status")
        with pytest.raises(Unreadable, match="far too large"):
            read_bytes("/proc/self/status", largest=10)


@pytest.mark.parametrize("name", ["no", "a\0b", "\ud800", "x" * 5000])
def test_names_that_no_file_has(name: str) -> None:
    with pytest.raises(Unreadable):
        open_regular(name)


def test_every_module_reads_files_through_the_one_reader() -> None:
    """But for what ships with promptot, the system's own files, texts that never were a file of a
    user's, and exports that stand alone."""
    own = {"reading.py", "writing.py", "public_sets.py", "suite.py", "recipe_files.py",
           "catalogue.py", "identity.py", "prompted_open_clip.py", "library_formats.py", "hub.py",
           "web_app.py", "decoding.py"}  # fmt: skip
    words = ("json.load(", "json.loads(", "yaml.load(", "yaml.safe_load(", ".read_text(",
             ".read_bytes(", "csv.reader(", "csv.DictReader(", '.open("rb',
             ".open(encoding")  # fmt: skip
    for path in Path(promptot.__path__[0]).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name not in own:
            assert not [word for word in words if word in text], path


# Depth, aliases, numbers, dates --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["names.yaml", "recipe.yaml", "description.yaml"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "anchors and aliases"),
        ("a: &a [*a]", "anchors and aliases"),
        (DEEP_YAML, "levels"),
        (f"a: {DEEP_JSON}", "levels|nesting"),
        (f"a: {HUGE}", "5000 characters"),
        (f"a: 0x{'f' * 5000}", "5002 characters"),
        ("a: !!timestamp x", "tag"),
        ("a: !!python/object/apply:os.system [true]", "tag"),
        ("a: x\na: y", "comes twice"),
        ("? {a: b}\n: c", "a key must be"),
        (b"a: caf\xe9", "not UTF-8"),
        ("a: \x01", "no YAML"),
    ],
)
def test_yaml_that_is_refused(kind: str, text: str | bytes, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / {"description.yaml": "d.yaml"}.get(kind, kind), text)
    assert re.search(reason, refused(lambda: _read(kind, path, tmp_path), 5))


@pytest.mark.parametrize(
    "kind",
    ["names.json", "table.jsonl", "manifest.json", "results.jsonl", "trials.jsonl", "split.json",
     "shots.json", "state.json", "dataset_dict.json"],
)  # fmt: skip
@pytest.mark.parametrize(
    "text",
    [DEEP_JSON, '{"a": ' * 2000 + "1" + "}" * 2000, f'{{"cell": "x", "a": {HUGE}}}', "[", "\xe9",
     '{"a": 1, "a": 2}', '{"a": "\\ud800"}', "NaN"],
    ids=["deep lists", "deep mappings", "digits", "cut", "Latin-1", "twice", "half", "NaN"],
)  # fmt: skip
def test_json_that_is_refused(kind: str, text: str, tmp_path: Path) -> None:
    path = write(tmp_path / kind, f"{text}\n".encode("latin-1"))
    refused(lambda: _read(kind, path, tmp_path), 5)


def test_dates_and_long_numbers_are_text_or_refused(tmp_path: Path) -> None:
    names = load_names(write(tmp_path / "n.yaml", "2024-02-30: 2024-02-03\nx: '007'\n"))
    assert names == {"2024-02-30": ("2024-02-03",), "x": ("007",)}
    table = write(tmp_path / "t.csv", f"path,label\na.png,{HUGE}\nb.png,1\n")
    assert load_task(table).class_names == ("1", HUGE)  # text; whoever tokenizes it will say more
    assert "5000 characters" in refused(
        lambda: load_task(write(tmp_path / "t.jsonl", f'{{"path": "a", "label": {HUGE}}}'))
    )
    assert "bits" in refused(lambda: load_task((["a.png"], [10**6000])))
    assert load_task((["a.png", "b.png"], [10**20, 3])).class_names == ("3", str(10**20))
    codes = write(tmp_path / "c.csv", f"path,label\na.png,{'4' * 19}\nb.png,7\n")
    assert load_task(codes).class_names == ("7", "4" * 19)  # by size, as folders of these names


@pytest.mark.parametrize(
    "value", [DEEP_JSON, DEEP_YAML, HUGE, "2024-02-30", "&a [*a]", "!!timestamp x", "\udcff",
              "[" * 90 + "]" * 90]
)  # fmt: skip
def test_overrides_that_are_no_number(value: str) -> None:
    message = refused(lambda: load_recipe("prompt-ot", [f"optim.lr={value}"]), 5)
    assert "optim.lr" in message
    assert len(message) < 300
    refused(lambda: load_recipe("prompt-ot", [f"data.template={value}"]), 5)


def test_reasons_say_where() -> None:
    for read, reason in (
        (lambda: parse_json('{"a":\n 1,}'), "line 2"),
        (lambda: parse_yaml("a: b\nc: *d"), "line 2"),
        (lambda: list(read_csv('a,b\n"c,d\n')), "line 2"),
        (lambda: parse_json("1e999"), "1e999"),
        (lambda: parse_json("9" * (LONGEST_NUMBER + 1)), "401 characters"),
    ):
        with pytest.raises(Unreadable, match=reason):
            read()


def test_values_in_messages_are_short() -> None:
    wide: Any = [["x" * 1000] * 1000] * 1000
    assert all(len(brief(value)) <= 80 for value in (wide, {1: wide}, 10**6000, "x" * 10**6))
    assert brief("cat") == "'cat'"


# Text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["names.csv", "names.tsv", "table.csv", "predictions.csv"])
def test_cells_that_are_longer_than_the_library_likes(kind: str, tmp_path: Path) -> None:
    before = __import__("csv").field_size_limit()
    path = write(tmp_path / kind, f'path,label\na.png,"{"x" * 131_073}"\n')
    with contextlib.suppress(PromptotError):
        _read(kind, path, tmp_path)
    assert [len(cell) for cell in list(read_csv(path.read_text()))[1]] == [5, 131_073]
    assert __import__("csv").field_size_limit() == before


@pytest.mark.parametrize(
    "kind",
    ["classes.txt", "names.txt", "names.csv", "table.csv", "vocabulary.txt", "classnames.txt",
     "predictions.csv", "sums.txt"],
)  # fmt: skip
def test_latin_1_is_named(kind: str, tmp_path: Path) -> None:
    message = refused(
        lambda: _read(kind, write(tmp_path / kind, b"path,label\ncaf\xe9,x\n"), tmp_path)
    )
    assert "not UTF-8 text (line 2, byte 0xe9)" in message


def test_long_lists_of_names_are_read_in_linear_time(tmp_path: Path) -> None:
    path = write(tmp_path / "n.txt", "".join(f"n{i} thing {i}\n" for i in range(50_000)))
    with within(20):
        assert len(load_names(path)) == 50_000
    write(path, path.read_bytes() + b"n7 other\n")
    assert "'n7' comes twice" in refused(lambda: load_names(path), 20)


@pytest.mark.parametrize("suffix", ["txt", "csv", "json", "yaml"])
def test_folders_that_are_alike_are_named_once(suffix: str, tmp_path: Path) -> None:
    text = {"txt": "big_cat lion\nBig_Cat tiger\n", "csv": "big cat,lion\nBig_cat,tiger\n",
            "json": '{"big cat": "lion", "BIG_CAT": "tiger"}', "yaml": "a: x\nA: y\n"}[
        suffix]  # fmt: skip
    assert "comes twice" in refused(lambda: load_names(write(tmp_path / f"n.{suffix}", text)))


def test_lines_end_where_editors_say(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"path": "a\u2028b.png", "label": "x\x85"}\r\n')
    assert load_task(path).train[0].path.endswith("a\u2028b.png")


def test_a_table_that_would_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = builtins.open

    def small(path: object, *arguments: Any, **options: Any) -> Any:
        text = io.StringIO("MemTotal: 99999 kB\nMemAvailable: 10240 kB\n")
        return text if path == "/proc/meminfo" else opened(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", small)
    rows = "a.png,x\n" * 30_000
    for name, text in (("t.csv", f"path,label\n{rows}"), ("t.jsonl", '{"path": "a"}\n' * 30_000)):
        message = refused(lambda n=name, t=text: load_task(write(tmp_path / n, t)))
        assert re.search(r"has 30,00\d rows.* GiB are free", message)


# Arrow and Parquet ---------------------------------------------------------------------------


def test_offsets_that_lead_out_of_an_arrow_file(tmp_path: Path) -> None:
    """Touching such a cell would end the process: nothing could catch that."""
    path = write(tmp_path / "t.arrow", forged_arrow())
    assert "can't be read" in refused(lambda: load_task(path))
    with pytest.raises(UnreadableImage):
        load_image(f"{path}::image::1")


def test_more_rows_than_a_file_of_its_size_can_have(tmp_path: Path) -> None:
    rows = 3_000_000
    one = pyarrow.array(["a.png"]).dictionary_encode().dictionary
    same = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0]).take([0] * rows), one)
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"image": same, "label": same}), path)
    assert path.stat().st_size < 100_000
    assert "says that it has 3,000,000 rows" in refused(lambda: load_task(path))


def packed(path: Path, codec: str | None, rows: int = 4) -> Path:
    table = pyarrow.table({"image": [bytes(100_000)] * rows, "label": ["x"] * rows})
    options = pyarrow.ipc.IpcWriteOptions(compression=codec)
    with pyarrow.ipc.new_stream(str(path), table.schema, options=options) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_packed_arrow_files_say_how_large_they_are(codec: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "small.arrow", codec)
    assert len(load_task(path).train) == 4
    head, said, rest = path.read_bytes().rpartition(struct.pack("<q", 400_000))
    more = write(tmp_path / "p.arrow", head + struct.pack("<q", 2**30) + rest)
    assert said
    assert "1.0 GiB of packed columns" in refused(lambda: load_task(more))
    assert len(load_task(packed(tmp_path / "plain.arrow", None)).train) == 4


def test_row_groups_that_are_too_large_to_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "LARGEST_GROUP", 100_000)
    path = tmp_path / "t.parquet"
    images = [png() + bytes(1000) for _ in range(200)]
    parquet.write_table(pyarrow.table({"image": images, "label": ["x"] * 200}), path)
    with pytest.raises(UnreadableImage, match="smaller row groups"):
        load_image(load_task(path).train[0].path)
    parquet.write_table(
        pyarrow.table({"image": images, "label": ["x"] * 200}), path, row_group_size=50
    )
    os.utime(path, (1, 1))
    assert load_image(load_task(path).train[199].path).size == (4, 4)


def test_labels_of_a_kind_that_are_none(tmp_path: Path) -> None:
    for label in ([["cat"]], [b"cat"], [{"a": 1}]):
        table = pyarrow.table({"image": ["a.png"], "label": label})
        parquet.write_table(table, tmp_path / "t.parquet")
        assert "not text or numbers" in refused(lambda: load_task(tmp_path / "t.parquet"))
    table = pyarrow.table({"image": ["a.png"], "label": ["x" * 40_000]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert "40,000 bytes" in refused(lambda: load_task(tmp_path / "t.parquet"))


def saved(folder: Path, state: object, info: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    packed(folder / "d.arrow", None)
    (folder / "state.json").write_text(json.dumps(state))
    if info is not None:
        (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize(
    "state",
    [[], 3, {}, {"_data_files": 5}, {"_data_files": {"filename": "d.arrow"}}, {"_data_files": [3]},
     {"_data_files": [{}]}, {"_data_files": [{"filename": 3}]}, {"_data_files": [{"filename": ""}]},
     {"_data_files": [{"filename": "../d.arrow"}]}, {"_data_files": [{"filename": "/etc/passwd"}]},
     {"_data_files": [{"filename": "a\0b"}]}, {"_data_files": [{"filename": "no.arrow"}]}],
)  # fmt: skip
def test_a_state_of_another_shape(state: object, tmp_path: Path) -> None:
    assert "can't be read" in refused(lambda: load_task(saved(tmp_path / "s", state)))


@pytest.mark.parametrize(
    "info",
    [[], {}, {"features": 3}, {"features": [1]}, {"features": {"label": 1}},
     {"features": {"label": {"_type": "ClassLabel"}}},
     {"features": {"label": {"_type": "ClassLabel", "names": 3}}},
     {"features": {"label": {"_type": "ClassLabel", "names": [[]]}}}],
)  # fmt: skip
def test_an_info_of_another_shape_names_nothing(info: object, tmp_path: Path) -> None:
    folder = saved(tmp_path / "s", {"_data_files": [{"filename": "d.arrow"}]}, info)
    if isinstance(info, list):
        assert "no JSON object" in refused(lambda: load_task(folder))
    else:
        assert load_task(folder).class_names == ("x",)


# Archives, patterns, folders -----------------------------------------------------------------


def test_members_that_grow_out_of_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(4):
            file.writestr(f"cat/{number}.png", bytes(64 * 2**20))
        file.writestr("dog/1.png", png())
    assert (tmp_path / "z.zip").stat().st_size < 300_000
    task = load_task(tmp_path / "z.zip")
    with pytest.raises(UnreadableImage, match="times as large as packed"):
        load_image(task.train[0].path)
    assert load_image(task.train[-1].path).size == (4, 4)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_large_members_are_in_memory_one_at_a_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "LARGE_BYTES", 10)
    path = archive(tmp_path / f"a.{kind}", {f"cat/{n}.png": png() for n in range(8)})
    places = [example.path for example in load_task(path).train]
    held, most, lock = 0, 0, threading.Lock()

    def use(place: str) -> None:
        nonlocal held, most
        with containers.open_bytes(place) as file:
            with lock:
                held += 1
                most = max(most, held)
            assert file.read() == png()
            time.sleep(0.01)
            with lock:
                held -= 1

    threads = [threading.Thread(target=use, args=[place]) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (held, most) == (0, 1)
    with pytest.raises(UnreadableImage, match="no such member"):
        containers.open_bytes(f"{path}::cat/none.png")
    assert load_image(places[0]).size == (4, 4)  # nothing holds its turn


def archive(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members.items():
                file.writestr(name, content)
    else:
        with tarfile.open(path, "w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_a_zip_with_a_long_list_of_files(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {f"cat/{n}.png": png() for n in range(20)})
    assert len(load_task(path).train) == 20
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\5\6")
    size, start = struct.unpack_from("<II", content, place + 12)
    struct.pack_into("<I", content, place + 12, 2**30)
    assert "list of files takes 1024 MiB" in refused(lambda: load_task(write(path, content)))
    content[place + 8 : place + 20] = b"\xff" * 12  # as a larger format has it, with 64 bits
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, place, 1)

    def larger(said: int) -> Path:
        record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 20, 20, said, start)
        return write(path, content[:place] + record + locator + content[place:])

    assert "list of files takes 2048 MiB" in refused(lambda: load_task(larger(2**31)))
    assert len(load_task(larger(size)).train) == 20


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_of_three_thousand_levels(kind: str, tmp_path: Path) -> None:
    path = archive(tmp_path / f"a.{kind}", {"d/" * 3000 + "1.png": png(), "cat/1.png": png()})
    assert "3,001 folders deep" in refused(lambda: load_task(path))
    path = archive(
        tmp_path / f"b.{kind}", {"cat/" + "d/" * 200 + "1.png": png(), "dog/1.png": png()}
    )
    assert load_task(path).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "pattern",
    ["s-{0..9999999999}.tar", "s-{0..99999}{0..99999}.tar", "s-{00..99}{00..99}{00..99}.tar",
     "s-" + "{0..9}" * 40 + ".tar", f"s-{{0..{'9' * 200}}}.tar"],
)  # fmt: skip
def test_patterns_are_counted_before_they_are_written_out(pattern: str, tmp_path: Path) -> None:
    assert "too many files" in refused(lambda: load_task(f"{tmp_path}/{pattern}"), 5)


@pytest.mark.parametrize(
    "place", ["x" * 5000 + "/photos", f"s-{{0..{HUGE}}}.tar", "a\0b", "\ud800"]
)
def test_places_that_can_t_be(place: str) -> None:
    assert "can't be read" in refused(lambda: load_task(place), 5)
    with contextlib.suppress(PromptotError):  # a pattern that nothing matches
        (left,) = find_images([place])
        with pytest.raises(UnreadableImage):
            load_image(left)


def test_patterns_that_stand_for_few_files() -> None:
    assert shards._expand("a-{08..11}-{0..1}.tar")[:3] == ["a-08-0.tar", "a-08-1.tar", "a-09-0.tar"]
    assert len(shards._expand("a-{08..11}-{0..1}.tar")) == 8
    assert shards._expand("a-{3..1}.tar") == []
    assert shards._expand("a.tar") == ["a.tar"]


def test_folders_that_link_to_each_other_are_entered_once(tmp_path: Path) -> None:
    folders = [tmp_path / "photos" / f"class {n}" for n in range(8)]
    for folder in folders:
        folder.mkdir(parents=True)
        write(folder / "1.png", png())
        for other in folders:
            (folder / f"to {other.name}").symlink_to(other)
        (folder / "up").symlink_to("..")
    with within(20):
        task = load_task(tmp_path / "photos")
        assert len(task.train) == 8
        assert len(find_images([tmp_path / "photos"])) == 8


def test_a_folder_elsewhere_belongs_to_the_first_class_that_links_to_it(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    for folder in (pool, tmp_path / "p" / "cat", tmp_path / "p" / "dog"):
        folder.mkdir(parents=True)
        write(folder / "1.png", png())
    for name in ("cat", "dog"):
        (tmp_path / "p" / name / "more").symlink_to(pool)
    task = load_task(tmp_path / "p")
    assert [task.class_names[e.label] for e in task.train] == ["cat", "cat", "dog"]


def test_class_folders_that_are_links(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "real" / name).mkdir(parents=True)
        write(tmp_path / "real" / name / "1.png", png())
        (tmp_path / "p").mkdir(exist_ok=True)
        (tmp_path / "p" / name).symlink_to(tmp_path / "real" / name)
    assert len(load_task(tmp_path / "p").train) == 2


def test_folders_in_each_other_as_deep_as_a_path_goes(tmp_path: Path) -> None:
    """They are removed here: what clears temporary folders may recurse."""
    deep = tmp_path / "p" / "cat" / Path(*["d"] * 1500)
    made: list[Path] = []
    try:
        for folder in [deep, *deep.parents][::-1]:
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        write(deep / "1.png", png())
        (tmp_path / "p" / "dog").mkdir()
        write(tmp_path / "p" / "dog" / "1.png", png())
        assert len(load_task(tmp_path / "p").train) == 2
    except OSError:
        pytest.skip("paths are shorter here")
    finally:
        for folder in made[::-1]:
            for left in (folder / "1.png", folder / "dog" / "1.png"):
                left.unlink(missing_ok=True)
            if (folder / "dog").is_dir():
                (folder / "dog").rmdir()
            folder.rmdir()


# Descriptions, manifests, results ------------------------------------------------------------


def test_descriptions_that_name_each_other(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "data: b.yaml\n")
    write(tmp_path / "b.yaml", "data: ./a.yaml\n")
    message = refused(lambda: load_task(tmp_path / "a.yaml"), 5)
    assert "names itself, through others: 'a.yaml' → 'b.yaml' → 'a.yaml'" in message
    write(tmp_path / "c.yaml", "data: ../" + tmp_path.name + "/c.yaml\n")
    assert "names itself" in refused(lambda: load_task(tmp_path / "c.yaml"), 5)
    write(tmp_path / "d.yaml", "data: {train: e.yaml, test: e.yaml}\n")
    write(tmp_path / "e.yaml", "data: {train: d.yaml, test: d.yaml}\n")
    assert "names itself" in refused(lambda: load_task(tmp_path / "d.yaml"), 5)
    for number in range(20):
        write(tmp_path / f"n{number}.yaml", f"data: n{number + 1}.yaml\n")
    assert "more than 8" in refused(lambda: load_task(tmp_path / "n0.yaml"), 5)


def test_a_description_of_a_description(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "path,label\na.png,cat\nb.png,dog\n")
    write(tmp_path / "inner.yaml", "data: t.csv\nnames: {cat: lion}\n")
    write(tmp_path / "outer.yaml", "data: {train: inner.yaml, test: inner.yaml}\nname: zoo\n")
    task = load_task(tmp_path / "outer.yaml")
    assert (task.name, task.class_names, len(task.test)) == ("zoo", ("lion", "dog"), 2)


MANIFEST = {
    "recipe": {"name": "x"}, "seed": 1, "backbone": {"name": "b", "weight_hash": "0"},
    "task": {"name": "t", "classes": "all", "class_names": ["a"], "template": "a {}.",
             "shots": [{"path": "a.png", "class_name": "a", "sha256": "0"}],
             "tested": {"test": ["a"]}},
    "device": "cpu", "precision": "fp32", "versions": {"torch": "2"}, "platform": "p",
    "results": {"seconds": 1.5},
}  # fmt: skip


def test_a_manifest_as_it_is_written(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", MANIFEST)
    assert read_manifest(tmp_path).as_json() == MANIFEST


@pytest.mark.parametrize(
    ("key", "value"),
    [("recipe", []), ("recipe", {"objective.strength": "x"}), ("seed", "1"), ("seed", None),
     ("backbone", "b"), ("backbone", {"name": 3, "weight_hash": "0"}), ("task", []), ("device", 3),
     ("versions", [1]), ("versions", {"a": {}}), ("platform", None), ("results", 3),
     ("results", {"seconds": "long"}), ("results", {"seconds": -1}), ("task.shots", [1]),
     ("task.shots", [{"path": 1, "class_name": "a", "sha256": "0"}]), ("task.shots", {}),
     ("task.class_names", "abc"), ("task.class_names", [1]), ("task.class_names", []),
     ("task.template", []), ("task.template", [1]), ("task.template", 3), ("task.name", ["x"]),
     ("task.tested", ["a"]), ("task.tested", {"test": "abc"}), ("task.tested", {"test": [1]})],
)  # fmt: skip
def test_manifests_of_another_shape(key: str, value: object, tmp_path: Path) -> None:
    manifest = json.loads(json.dumps(MANIFEST))
    place = manifest
    *outer, last = key.split(".")
    for name in outer:
        place = place[name]
    place[last] = value
    write_json(tmp_path / "manifest.json", manifest)
    assert "manifest.json' is damaged" in refused(lambda: read_manifest(tmp_path).objective)


@pytest.mark.parametrize("content", [b"[]", DEEP_JSON.encode(), b"\xff", b'{"task": []}', b"{"])
def test_an_estimator_s_manifest_of_another_shape(
    content: bytes, backbone: Backbone, tmp_path: Path
) -> None:
    save_adapter(tmp_path / "adapter", None, backbone, ("cat",), "a {}.")
    write(tmp_path / "manifest.json", content)
    assert "manifest is damaged" in refused(lambda: RunContents.read(tmp_path))
    assert "manifest is damaged" in refused(lambda: PromptClassifier.load(tmp_path, backbone))


@pytest.mark.parametrize(
    "record",
    [[], 3, {}, {"cell": 3}, {"cell": ["x"]}, {"cell": "x", "parts": []},
     {"cell": "x", "parts": {"base": 3}, "training": {}, "seconds": 1},
     {"cell": "x", "parts": {"base": {"answers": [1]}}, "training": {}, "seconds": 1},
     {"cell": "x", "parts": {}, "training": [], "seconds": 1},
     {"cell": "x", "parts": {}, "training": {"a": "b"}, "seconds": 1},
     {"cell": "x", "parts": {}, "training": {}}, {"cell": "x", "problem": 3},
     {"cell": "x", "parts": {}, "training": {}, "seconds": None}],
)  # fmt: skip
def test_results_of_another_shape(record: object, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", '{"cell": "a"}\n' + json.dumps(record) + "\n")
    file = RecordFile(path, CellRecord)
    assert f"Line 2 of '{path}' is not a result" in refused(file.read)
    write(path, '{"cell": "a"}\n' + json.dumps(record))  # torn: it is passed over
    assert file.read() == {"a": CellRecord(cell="a")}


# Adapters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "size"),
    [("F8_E4M3", 8), ("F8_E5M2", 8), ("F8_E8M0", 8), ("F4", 4), ("F6_E2M3", 6), ("C64", 64),
     ("I64", 64), ("BOOL", 8), ("U8", 8), ("X9", 8)],
)  # fmt: skip
def test_tensors_of_types_that_are_no_plain_floats(
    kind: str, size: int, small_file: Path, tmp_path: Path
) -> None:
    import hashlib

    backbone = load_backbone(f"openai:{small_file}")
    prompts = IVLPPrompts(64, 64, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    save_adapter(tmp_path / "a", prompts, backbone, ("cat",), "a {}.")
    header: dict[str, Any] = {}
    start = 0
    for key, value in prompts.state_dict().items():
        end = start + value.numel() * size // 8
        header[key] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + bytes(start)
    write(tmp_path / "a" / TENSORS, content)
    card = json.loads((tmp_path / "a" / CARD).read_text())
    card["tensors_sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "a" / CARD).write_text(json.dumps(card))
    assert "is damaged" in refused(lambda: load_adapter(tmp_path / "a"))
    named = {f"prompt.{key}": value for key, value in header.items()}
    said = {"__metadata__": {"epoch": "1", "run": "{}"}, **named}
    text = json.dumps(said).encode()
    if kind not in ("I64", "BOOL"):  # an objective may remember whole numbers
        write(tmp_path / "c", struct.pack("<Q", len(text)) + text + bytes(start))
        assert "is damaged" in refused(lambda: read_checkpoint(tmp_path / "c"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_other_plain_floats(
    dtype: torch.dtype, small_file: Path, tmp_path: Path
) -> None:
    import hashlib

    backbone = load_backbone(f"openai:{small_file}")
    prompts = IVLPPrompts(64, 64, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    save_adapter(tmp_path / "a", prompts, backbone, ("cat",), "a {}.")
    content = save({key: value.to(dtype) for key, value in prompts.state_dict().items()})
    write(tmp_path / "a" / TENSORS, content)
    card = json.loads((tmp_path / "a" / CARD).read_text())
    card["tensors_sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "a" / CARD).write_text(json.dumps(card))
    assert load_adapter(tmp_path / "a")[1] is not None
