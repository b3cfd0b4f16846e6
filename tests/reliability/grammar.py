"""Near-valid files of every kind that promptot reads, and how each is read."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from promptot.data import UnreadableImage, load_image, load_task
from promptot.data.anchor_words import load_vocabulary
from promptot.data.catalog.public.check_data import check_sums
from promptot.data.catalog.public.imagenet import read_names
from promptot.data.catalog.public.load_public import read_split
from promptot.data.readers.renaming import load_names
from promptot.data.shot_lists import read_shot_list
from promptot.errors import PromptotError
from promptot.evaluation.predictions import COLUMNS, read_tested
from promptot.experiments.cell_record import CellRecord, Record
from promptot.experiments.record_file import RecordFile
from promptot.experiments.tuning.tune_task import _read_point
from promptot.recipes import describe, load_recipe
from promptot.runs.evaluating import manifest_of
from promptot.runs.export_run import _images_of
from promptot.runs.manifest import find_manifest, read_manifest
from promptot.runs.merging import _manifest as merged_manifest
from promptot.training.training_log import Log

SECONDS = 10.0
"""For one small file; those that once took minutes or forever are among what is made here."""


@dataclass(frozen=True)
class Raw:
    """What a file says in the place of a value, as it stands."""

    text: str


@cache
def png(red: int = 200) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


# What stands for a value ---------------------------------------------------------------------

WORDS = ("cat", "hot dog", "Hot_Dog", "n01440764", "train", "val", "test", "café", "", " ",
         "\u200b", "-1", "0", "1", "٣", "a,b", 'say "x"', "../up.png", "/etc/passwd", "a\x00b",
         "a\u2028b", "x" * 300, "{}", "=1+1", "\ufeff", "a\nb", "null", "NaN", "2024-02-30",
         "9" * 30)  # fmt: skip
JSON_RAW = (
    "NaN", "-Infinity", "1e999", "9" * 5000, "-0", "0x1F", "'cat'", "[" * 3000 + "]" * 3000,
    '{"a":' * 150 + "1" + "}" * 150, '{"a": 1, "a": 2}', '"\\ud800"', '"\\udc80"', "", "[1,]",
    "tru", '"' + "x" * 70000 + '"',
)  # fmt: skip
YAML_RAW = (
    *JSON_RAW, "2024-02-30", "2024-02-03T25:61:61Z", "&a [*a]", "*a", "&a {x: *a}", "<<", "=",
    "!!python/object/apply:os.system [true]", "!!timestamp x", "!!bool x", "!!binary '***'",
    "!!set {a, b}", "!!int ''", "0x" + "f" * 5000, "1:30", "? [a]", "- - - x", "~", "|\n  text",
    ">\n", "'", "@", "`x`", "%x", "!<tag:yaml.org,2002:str> a", "- " * 300 + "x", "{a: }", "no",
)  # fmt: skip
words = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
numbers = st.one_of(
    st.integers(-2, 5), st.sampled_from([2**31, 2**63, 10**18, 10**300, 0.5, 1e-4, 1e308])
)


def values(raws: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Anything at all, small."""
    plain = st.one_of(words, numbers, st.none(), st.booleans(), st.sampled_from(raws).map(Raw))
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)
        ),
        max_leaves=5,
    )


def mostly(good: st.SearchStrategy[Any], raws: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """What belongs there, and once in a while anything."""
    return rarely(good, values(raws), 40)


def rarely(
    good: st.SearchStrategy[Any], other: st.SearchStrategy[Any], once_in: int = 10
) -> st.SearchStrategy[Any]:
    return st.integers(1, once_in).flatmap(lambda n: other if n == once_in else good)


def record(
    raws: tuple[str, ...], /, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with these fields, each mostly as it should be; some may be missing."""
    usual = {key: mostly(field, raws) for key, field in fields.items()}
    some = st.fixed_dictionaries({}, optional={**usual, "extra": values(raws)})
    return rarely(st.fixed_dictionaries(usual), some, 6)


def dump(value: Any) -> str:
    """As JSON, with what is raw as it stands."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(dump, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def block(value: Any) -> str:
    """As YAML in lines, as people write it."""
    if not isinstance(value, dict):
        return dump(value)
    lines = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            lines += [f"{key}:", *(f"  {line}" for line in block(inner).split("\n"))]
        else:
            lines.append(f"{key}: {dump(inner)}")
    return "\n".join(lines)


def damage(content: bytes) -> st.SearchStrategy[bytes]:
    """Mostly as it is; else cut, flipped, encoded otherwise, with something put in."""
    places = st.integers(0, max(0, len(content) - 1))
    junk = st.sampled_from([b"\x00", b"\xff\xfe", b"\xe9", b'"', b"\r", b"\n", b"[" * 500, b"\x0c",
                            b"\xef\xbb\xbf", b"\xff\xff\xff\x7f", b"\x00" * 8])  # fmt: skip
    return st.one_of(
        *[st.just(content)] * 6,
        places.map(lambda n: content[:n]),
        st.tuples(places, junk).map(lambda p: content[: p[0]] + p[1] + content[p[0] :]),
        st.tuples(places, junk).map(lambda p: content[: p[0]] + p[1] + content[p[0] + len(p[1]) :]),
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4).map(
            lambda flips: _flip(content, flips)
        ),
    )


def _flip(content: bytes, flips: list[tuple[int, int]]) -> bytes:
    found = bytearray(content)
    for place, byte in flips:
        if place < len(found):
            found[place] = byte
    return bytes(found)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# Grammars, by kind ---------------------------------------------------------------------------


def names_mapping(raws: tuple[str, ...]) -> st.SearchStrategy[Any]:
    named = st.one_of(some_words, st.lists(some_words, min_size=1, max_size=3))
    return mostly(st.dictionaries(words, mostly(named, raws), max_size=4), raws)


def csv_text(
    header: tuple[str, ...], cells: st.SearchStrategy[str], delimiter: str = ","
) -> st.SearchStrategy[str]:
    quoted = cells.map(lambda cell: '"' + cell.replace('"', '""') + '"')
    odd = st.sampled_from(['"', 'a"b', '"a"b', "x" * 131_073, "\x00", "\r", "a\tb", "'"])
    cell = rarely(quoted, st.one_of(cells, odd), 30)
    whole = st.lists(cell, min_size=len(header), max_size=len(header))
    row = rarely(whole, st.lists(cell, max_size=6), 20)
    return st.builds(
        lambda delimiter, head, rows, end: end.join(
            [delimiter.join(head), *(delimiter.join(row) for row in rows), ""]
        ),
        rarely(st.just(delimiter), st.sampled_from([",", "\t", ";", "|"])),
        rarely(st.just(list(header)), st.lists(words, max_size=4)),
        st.lists(row, max_size=5),
        st.sampled_from(["\n", "\r\n", "\r"]),
    )


splits = rarely(st.sampled_from(["train", "val", "test", "", "Training"]), st.just("extra"), 30)
some_words = rarely(st.sampled_from(["cat", "hot dog", "n01440764", "café", "0", "9" * 30]), words)
paths = st.sampled_from(["a.png", "b.png", "cat/c.png", "../d.png", "\x00", ""])
json_rows = st.lists(
    mostly(
        record(JSON_RAW, path=paths, label=st.one_of(words, numbers), split=splits, domain=words),
        JSON_RAW,
    ),
    max_size=5,
).map(lambda rows: "\n".join(map(dump, rows)) + "\n")

manifests = record(
    JSON_RAW,
    recipe=record(
        JSON_RAW, name=words, **{"objective.strength": st.integers(0, 9), "optim.lr": numbers}
    ),
    seed=st.integers(0, 9),
    backbone=record(JSON_RAW, name=some_words, weight_hash=some_words),
    task=record(
        JSON_RAW,
        name=some_words,
        classes=st.just("all"),
        class_names=st.lists(words, min_size=1, max_size=3),
        template=st.one_of(st.just("a {}."), st.lists(st.just("a {}."), min_size=1, max_size=2)),
        shots=st.lists(record(JSON_RAW, path=words, class_name=words, sha256=words), max_size=3),
        tested=st.dictionaries(words, st.lists(words, max_size=3), max_size=2),
        labels=st.lists(words, max_size=3),
    ),
    device=st.just("cpu"),
    precision=st.just("fp32"),
    versions=st.dictionaries(words, words, max_size=2),
    platform=words,
    results=record(JSON_RAW, seconds=st.floats(0, 9)),
).map(dump)

recipes = record(
    YAML_RAW,
    name=some_words,
    prompts=record(YAML_RAW, design=st.sampled_from(["ivlp", "maple", "none"]),
                   text_tokens=st.integers(1, 4), init_words=some_words),
    objective=record(YAML_RAW, preservation=st.sampled_from(["ot", "none"]),
                     strength=rarely(st.just(1.5), numbers)),
    optim=record(YAML_RAW, lr=rarely(st.just(0.1), numbers), epochs=st.integers(0, 9)),
    data=record(YAML_RAW, template=st.just("a {}."), templates=st.one_of(
        st.just("one"), st.lists(st.just("a {}."), min_size=1, max_size=2)),
                shots=rarely(st.just(4), numbers)),
)  # fmt: skip
descriptions = record(
    YAML_RAW,
    data=rarely(
        st.just("t.csv"),
        st.one_of(st.sampled_from(["d.yaml", "./d.yaml", "e.yaml", "none.csv", "bundled:animals",
                         ".", "s-{0..9999999999}.tar", "s-{0..99}{0..99}{0..99}.tar", "*.tar"]),
        st.dictionaries(st.sampled_from(["train", "test", "x"]), st.just("t.csv"), max_size=2)), 3
    ),
    name=some_words,
    template=rarely(st.just("a {}."), st.just("x")),
    names=rarely(st.just({"cat": "lion"}), st.one_of(st.dictionaries(words, words, max_size=2),
                                                     words), 3),
    columns=rarely(st.just({}), st.dictionaries(st.sampled_from(["image", "label"]), words,
                                                max_size=2), 3),
    domain=rarely(st.just("x"), words),
)  # fmt: skip
results = st.lists(
    mostly(
        record(
            JSON_RAW,
            cell=words,
            parts=st.dictionaries(words, record(JSON_RAW, answers=st.text("01-", max_size=4)),
                                  max_size=2),
            training=st.dictionaries(words, numbers, max_size=2),
            seconds=numbers,
            problem=words,
            settings=st.dictionaries(words, numbers, max_size=2),
            right=st.text("01", max_size=4),
            retention=st.floats(0, 1),
            retention_total=numbers,
        ),
        JSON_RAW,
    ),
    max_size=4,
).map(lambda rows: "\n".join(map(dump, rows)) + "\n")  # fmt: skip
rows = st.lists(
    mostly(
        st.tuples(paths, rarely(st.just(0), st.one_of(numbers, words)), st.just("cat")).map(list),
        JSON_RAW,
    ),
    max_size=4,
)
split_files = record(JSON_RAW, train=rows, val=rows, test=rows, task=words, shots=numbers,
                     seed=numbers).map(dump)  # fmt: skip
saved_state = record(
    JSON_RAW,
    _data_files=st.lists(record(JSON_RAW, filename=st.sampled_from(["d.arrow", "../x", "", "no"])),
                         max_size=2),
).map(dump)  # fmt: skip
saved_info = record(
    JSON_RAW,
    features=st.dictionaries(
        st.sampled_from(["image", "label"]),
        record(JSON_RAW, _type=st.sampled_from(["ClassLabel", "Value"]),
               names=st.lists(words, max_size=3)),
        max_size=2,
    ),
).map(dump)  # fmt: skip


def lines(*forms: str) -> st.SearchStrategy[str]:
    line = rarely(st.sampled_from(forms), words, 8)
    return rarely(st.lists(line, max_size=4, unique=True), st.lists(line, max_size=6), 8).map(
        "\n".join
    )


@st.composite
def tables(draw: st.DrawFn) -> pyarrow.Table:
    """Tables of images with columns of many types."""
    count = draw(st.integers(0, 4))

    def many(cell: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(cell, min_size=count, max_size=count))

    pictures = st.sampled_from([png(), png(10), b"", b"x", None])
    kinds: dict[str, Callable[[], Any]] = {
        "text": lambda: pyarrow.array(many(st.one_of(st.none(), st.sampled_from(["cat", "dög"])))),
        "dictionary": lambda: pyarrow.array(many(st.sampled_from(["cat", "dog", None])),
                                            pyarrow.string()).dictionary_encode(),
        "integers": lambda: pyarrow.array(many(st.sampled_from([0, 1, -1, 2**62]))),
        "floats": lambda: pyarrow.array(many(st.sampled_from([0.0, 1.5, float("nan")]))),
        "booleans": lambda: pyarrow.array(many(st.booleans())),
        "nothing": lambda: pyarrow.nulls(count),
        "bytes": lambda: pyarrow.array(many(pictures), pyarrow.binary()),
        "large": lambda: pyarrow.array(many(pictures), pyarrow.large_binary()),
        "struct": lambda: pyarrow.array(
            [{"bytes": b, "path": "a.png"} for b in many(pictures)],
            pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
        "odd struct": lambda: pyarrow.array(
            [{"bytes": 1, "path": 2}] * count,
            pyarrow.struct([("bytes", pyarrow.int8()), ("path", pyarrow.int8())])),
        "lists": lambda: pyarrow.array(many(st.lists(st.just("cat"), max_size=2)),
                                       pyarrow.list_(pyarrow.string())),
        "times": lambda: pyarrow.array(many(st.sampled_from([0, 2**62])), pyarrow.timestamp("s")),
        "days": lambda: pyarrow.array(many(st.sampled_from([0, 2**31 - 1])), pyarrow.date32()),
    }  # fmt: skip
    headers = st.lists(st.sampled_from(["image", "label", "split", "domain", "x"]), max_size=4)
    header = draw(rarely(st.just(["image", "label"]), headers, 4))
    usual = {"image": ["struct", "bytes", "large", "text"]}
    likely = ["text", "dictionary", "integers", "floats"]
    columns = [
        kinds[
            draw(
                rarely(st.sampled_from(usual.get(name, likely)), st.sampled_from(sorted(kinds)), 5)
            )
        ]()
        for name in header
    ]
    notes = draw(st.sampled_from([
        None, {"huggingface": '{"info": {"features": {"label": {"_type": "ClassLabel", "names": '
               '["a", "b"]}}}}'},
        {"huggingface": "["}, {"huggingface": '{"info": {"features": [1]}}'},
        {"huggingface": '{"info": {"features": {"label": {"_type": "ClassLabel"}}}}'},
    ]))  # fmt: skip
    return pyarrow.Table.from_arrays(columns, names=header).replace_schema_metadata(notes)


@st.composite
def arrow_files(draw: st.DrawFn) -> bytes:
    table = draw(tables())
    sink = io.BytesIO()
    packed = draw(st.sampled_from([None, None, "zstd", "lz4"]))
    options = pyarrow.ipc.IpcWriteOptions(compression=packed)
    make = draw(st.sampled_from([pyarrow.ipc.new_stream, pyarrow.ipc.new_file]))
    with make(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=draw(st.integers(1, 4)))
    return sink.getvalue()


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    table = draw(tables())
    sink = io.BytesIO()
    try:
        parquet.write_table(
            table, sink, compression=draw(st.sampled_from(["none", "snappy", "zstd", "gzip"])),
            row_group_size=draw(st.integers(1, 4)), use_dictionary=draw(st.booleans()),
        )  # fmt: skip
    except pyarrow.ArrowException:  # a type that Parquet lacks
        return b"PAR1PAR1"
    return sink.getvalue()


members = st.lists(
    st.tuples(
        st.sampled_from(["cat/1.png", "dog/2.png", "train/cat/1.png", "test/dog/1.png", "0.png",
                         "0.cls", "0.json", "0.txt", "1.jpg", "1.cls", "../up.png", "/abs.png",
                         "cat/" * 3000 + "1.png", "cat", "cat/", "", "./x/1.png", "a\x00.png",
                         "._0.png", "CON/1.png", "c\\d\\1.png"]),
        st.one_of(
            st.sampled_from([png(), png(7), b"", b"3", b"cat", b"-1", b"9" * 5000, b"\xff"]),
            mostly(record(JSON_RAW, label=words, cls=numbers), JSON_RAW).map(
                lambda value: encoded(dump(value))),
        ),
    ),
    max_size=6,
)  # fmt: skip


@st.composite
def tar_files(draw: st.DrawFn) -> bytes:
    sink = io.BytesIO()
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    with tarfile.open(fileobj=sink, mode="w", format=form) as file:
        for name, content in draw(members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.type = draw(st.sampled_from([tarfile.REGTYPE] * 6 + [tarfile.SYMTYPE]))
            file.addfile(info, io.BytesIO(content))
    return sink.getvalue()


@st.composite
def zip_files(draw: st.DrawFn) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        for name, content in dict(draw(members)).items():
            how = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
            file.writestr(zipfile.ZipInfo(name or "x"), content, how)
    return sink.getvalue()


def text(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    return strategy.map(encoded)


def in_yaml(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return st.tuples(strategy, st.booleans()).map(
        lambda pair: encoded((block if pair[1] else dump)(pair[0]))
    )


table_header = ("path", "label", "split", "domain")
cells = splits
GRAMMARS: dict[str, st.SearchStrategy[bytes]] = {
    "names.json": text(names_mapping(JSON_RAW).map(dump)),
    "names.yaml": in_yaml(names_mapping(YAML_RAW)),
    "names.csv": text(csv_text(("cat", "tabby"), words)),
    "names.tsv": text(csv_text(("cat", "tabby"), words, "\t")),
    "names.txt": text(lines("n01 cat, tabby", "n02 dog", "n03 red fox", "n04 owl")),
    "table.csv": text(csv_text(table_header, cells)),
    "table.tsv": text(csv_text(table_header, cells, "\t")),
    "table.jsonl": text(json_rows),
    "table.arrow": arrow_files(),
    "table.parquet": parquet_files(),
    "shard.tar": tar_files(),
    "photos.zip": zip_files(),
    "classes.txt": text(lines("cat", "dog")),
    "state.json": text(saved_state),
    "dataset_info.json": text(saved_info),
    "dataset_dict.json": text(
        record(JSON_RAW, splits=st.lists(st.sampled_from(["train", "test", "no"]), max_size=2)).map(
            dump)
    ),
    "recipe.yaml": in_yaml(recipes),
    "override.txt": text(
        st.tuples(
            rarely(st.just("optim.lr"), st.sampled_from(["data.templates", "objective", "x"]), 3),
            rarely(st.just("0.1"), st.one_of(values(YAML_RAW).map(dump), words), 2),
        ).map("=".join)
    ),
    "description.yaml": in_yaml(descriptions),
    "manifest.json": text(manifests),
    "predictions.csv": text(csv_text(COLUMNS, st.sampled_from(["test", "test", "cat"]))),
    "results.jsonl": text(results),
    "trials.jsonl": text(results),
    "split.json": text(split_files),
    "shots.json": text(split_files),
    "vocabulary.txt": text(lines("apple", "tree", "sea lion")),
    "sums.txt": text(lines("0" * 64 + "  a.png", "0" * 32 + " *b", "# x")),
    "classnames.txt": text(lines("n01440764 tench", "n02 owl")),
    "epochs.csv": text(csv_text(("epoch", "steps", "lr"), st.one_of(words, numbers.map(str)))),
}  # fmt: skip
KINDS = tuple(sorted(GRAMMARS))


def files(kind: str) -> st.SearchStrategy[bytes]:
    """Files of a kind: what its grammar makes, mostly undamaged."""
    return GRAMMARS[kind].flatmap(damage)


# How each is read ----------------------------------------------------------------------------


@cache
def _arrow_example() -> bytes:
    sink = io.BytesIO()
    table = pyarrow.table({"image": [png()], "label": [0]})
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def read(kind: str, content: bytes, folder: Path) -> str | None:
    """Read a file of a kind as promptot does; gives the error's text, None if it is taken.

    Anything but a `PromptotError` with a sentence comes through, and so does a slow answer.
    """
    began = time.perf_counter()
    error: PromptotError | None = None
    path = folder / {"override.txt": "o.txt", "description.yaml": "d.yaml"}.get(kind, kind)
    path.write_bytes(content)
    try:
        _read(kind, path, folder)
    except PromptotError as caught:
        error = caught
    finally:
        for left in folder.rglob("*"):
            if left.is_file():
                left.unlink()
    seconds = time.perf_counter() - began
    assert seconds < SECONDS, f"{seconds:.1f} s"
    if error is None:
        return None
    assert error.problem.strip()
    assert len(str(error)) < 2500, str(error)[:3000]
    return str(error)


def _read(kind: str, path: Path, folder: Path) -> None:
    if kind.startswith("names."):
        load_names(path)
    elif kind.startswith(("table.", "shard.", "photos.")):
        _use(load_task(path))
    elif kind == "classes.txt":
        with tarfile.open(folder / "s.tar", "w") as file:
            for name, data in (("0.png", png()), ("0.cls", b"1")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        _use(load_task(folder / "s.tar"))
    elif kind in ("state.json", "dataset_info.json", "dataset_dict.json"):
        for place in (folder, folder / "train", folder / "test"):
            place.mkdir(exist_ok=True)
            (place / "d.arrow").write_bytes(_arrow_example())
            if place != folder:
                (place / "state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
        if kind == "dataset_info.json":
            (folder / "state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
        _use(load_task(folder))
    elif kind == "recipe.yaml":
        json.dumps({key: str(value) for key, value in describe(load_recipe(path)).items()})
    elif kind == "override.txt":
        describe(load_recipe("prompt-ot", [path.read_bytes().decode("utf-8", "surrogateescape")]))
    elif kind == "description.yaml":
        (folder / "t.csv").write_text("path,label,domain\na.png,cat,x\nb.png,dog,y\n")
        (folder / "e.yaml").write_text("data: d.yaml\n")
        _use(load_task(path))
    elif kind == "manifest.json":
        for read in (manifest_of, find_manifest):
            with contextlib.suppress(PromptotError):
                read(folder)
        _images_of(folder)
        merged_manifest([folder], [])
        assert read_manifest(folder).objective is not None
    elif kind == "predictions.csv":
        read_tested(path, {"test": ["cat", "hot dog"]}, "t", "a {}.")
    elif kind == "results.jsonl":
        RecordFile(path, CellRecord).read()
        RecordFile(path, CellRecord).read_new()
    elif kind == "trials.jsonl":
        for line in RecordFile(path, Record).read().values():
            point = _read_point(line, path, 2)
            assert 0 <= point.fit <= 1
    elif kind == "split.json":
        read_split(path)
    elif kind == "shots.json":
        assert len(read_shot_list(path).digest) == 64
    elif kind == "vocabulary.txt":
        load_vocabulary(path)
    elif kind == "sums.txt":
        check_sums(path, folder)
    elif kind == "classnames.txt":
        read_names([folder])
    else:
        assert kind == "epochs.csv"
        Log(folder).restore()


def _use(task: Any) -> None:
    """Whatever is taken can be written down, and its images are read or refused."""
    for example in task.examples[:3]:
        repr(example.path)
        with contextlib.suppress(UnreadableImage):
            load_image(example.path)
    assert task.class_names
    for name in task.class_names:
        name.encode()


def forged_arrow() -> bytes:
    """A file of Arrow's whose first text says that it ends two gigabytes further on."""
    table = pyarrow.table({"image": ["aaaa.png", "bbbb.png"], "label": ["cat", "dog"]})
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    offsets = struct.pack("<iii", 0, 8, 16)
    assert content.count(offsets) == 1
    return content.replace(offsets, struct.pack("<iii", 0, 2_000_000_000, 2_000_000_008))
