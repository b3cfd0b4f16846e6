"""The result file at the edges: torn lines, damaged lines, several writers."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from promptot.errors import PromptotError
from promptot.experiments.cell_record import CellRecord, Record
from promptot.experiments.record_file import RecordFile


def record(key: str, value: float = 0) -> Record:
    return Record(cell=key, value=value, name="Grün")


def record_file(path: Path) -> RecordFile[Record]:
    return RecordFile(path, Record)


def test_a_line_a_cell_and_the_last_one_counts(tmp_path: Path) -> None:
    file = record_file(tmp_path / "deep" / "results.jsonl")
    assert file.read() == {}
    for key, value in (("a", 1), ("b", 2), ("a", 3)):
        file.append(record(key, value))
    assert [json.loads(line)["cell"] for line in file.path.read_text().splitlines()] == list("aba")
    assert {key: found.value for key, found in file.read().items()} == {"a": 3, "b": 2}


def test_whatever_an_interruption_leaves_of_a_line_is_dropped(tmp_path: Path) -> None:
    whole = record_file(tmp_path / "whole.jsonl")
    whole.append(record("a"))
    one = whole.path.read_bytes()
    whole.append(record("b"))
    two = whole.path.read_bytes()
    for length in range(len(one), len(two)):
        torn = record_file(tmp_path / "torn.jsonl")
        torn.path.write_bytes(two[:length])
        assert torn.read().keys() == {"a"}
        torn.append(record("b"))
        assert torn.path.read_bytes() == two
    torn.path.write_bytes(one[:-1])  # not even the first line is whole
    assert torn.read() == {}
    torn.append(record("a"))
    assert torn.path.read_bytes() == one


def test_a_torn_line_longer_than_a_block_is_dropped(tmp_path: Path) -> None:
    file = record_file(tmp_path / "results.jsonl")
    file.append(record("a"))
    before = file.path.read_bytes()
    file.path.write_bytes(before + b"x" * 200_000)
    file.append(record("b"))
    assert file.path.read_bytes().startswith(before + b'{"cell": "b"')


@pytest.mark.parametrize("line", [b"nonsense", b"[1]", b'{"seed": 1}', b"\xff\xfe"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    file = record_file(tmp_path / "results.jsonl")
    file.append(record("a"))
    file.path.write_bytes(line + b"\n" + file.path.read_bytes())
    with pytest.raises(PromptotError, match="Line 1 of .* is not a result"):
        file.read()


def test_several_writers_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    keys = [f"{writer}-{i}" for writer in range(4) for i in range(20)]
    threads = [
        threading.Thread(
            target=lambda own: [record_file(path).append(record(key)) for key in own],
            args=(keys[start::4],),
        )
        for start in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert record_file(path).read().keys() == set(keys)


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PromptotError, match="Can't write"):
        record_file(tmp_path / "file" / "results.jsonl").append(record("a"))
    with pytest.raises(ValueError, match="JSON"):
        record_file(tmp_path / "r.jsonl").append(record("a", float("nan")))
    assert not (tmp_path / "r.jsonl").exists()


OLD = {  # as 0.1.0 wrote it, and a field that nobody knows
    "cell": "0" * 64, "protocol": "few-shot", "task": "pets", "shots": 2, "seed": 1,
    "split": "test", "method": "ivlp", "recipe": {"optim": {"lr": 0.0025}}, "backbone": "1" * 64,
    "train_images": 4, "train_classes": 2, "device": "cpu", "precision": "fp32",
    "versions": {"torch": "2.6"}, "colour": ["blue"],
    "parts": {"test": {"accuracy": 0.5, "right": 1, "images": 2, "classes": 2, "answers": "10-"}},
    "training": {"epochs": 1, "steps": 3, "plan_entropy": None, "lr": 0.5}, "seconds": 2,
}  # fmt: skip


def test_a_line_of_before_is_read_and_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    failed = {"cell": "1" * 64, "problem": "The loss is not finite."}
    path.write_text(f"{json.dumps(OLD)}\n{json.dumps(failed)}\n")
    file = RecordFile(path, CellRecord)
    first, second = file.read().values()
    assert (first.version, first.identity, first.is_result) == (1, "", True)
    assert first.parts is not None
    assert first.parts["test"].answers == "10-"
    assert (second.is_result, second.problem) == (False, "The loss is not finite.")
    copy = RecordFile(tmp_path / "copy.jsonl", CellRecord)
    for record in (first, second):
        copy.append(record)
    written = [json.loads(line) for line in copy.path.read_text().splitlines()]
    assert written == [OLD, failed]
    assert isinstance(written[0]["training"]["steps"], int)


def test_what_is_new_is_given_once(tmp_path: Path) -> None:
    file, other = (record_file(tmp_path / "results.jsonl") for _ in range(2))
    assert file.read_new() == {}
    other.append(record("a"))
    assert file.read_new().keys() == {"a"}
    assert file.read_new() == {}
    with file.path.open("ab") as torn:
        torn.write(b'{"cell": "b"')
    assert file.read_new() == {}
    other.append(record("c"))
    assert file.read_new().keys() == {"c"}
    assert file.read().keys() == {"a", "c"}


def test_a_damaged_line_that_is_new_has_its_number_in_the_file(tmp_path: Path) -> None:
    file, other = (record_file(tmp_path / "results.jsonl") for _ in range(2))
    for key in "ab":
        other.append(record(key))
    assert file.read_new().keys() == {"a", "b"}
    other.append(record("c"))
    with file.path.open("ab") as damaged:
        damaged.write(b"nonsense\n")
    with pytest.raises(PromptotError, match="Line 4 of .* is not a result"):
        file.read_new()
