"""Adapters, checkpoints and logs that were damaged or forged: a clear error, and nothing runs."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import sys
import time
from pathlib import Path

import pytest
import torch
from hostile import KINDS, Valid, make_prompts, mutate, safetensors_file, use_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptot.backbones import load_backbone
from promptot.errors import PromptotError
from promptot.objectives import Objective, build_control, build_preservation
from promptot.runs.adapter import TENSORS, load_adapter
from promptot.runs.card import CARD
from promptot.training.checkpoint import read_checkpoint
from promptot.training.training_log import Log

CORPUS = Path(__file__).parents[1] / "fixtures" / "hostile"


@pytest.fixture(scope="module")
def valid(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Valid:
    return Valid(load_backbone(f"openai:{small_file}"), tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_loads(valid: Valid, kind: str) -> None:
    assert valid.load(kind, valid.files[kind]) is None


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32))
def test_damaged_files_never_raise_anything_else(valid: Valid, kind: str, seed: int) -> None:
    valid.load(kind, mutate(kind, valid.files[kind], random.Random(seed)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(KINDS), content=st.binary(max_size=300))
def test_random_bytes_never_raise_anything_else(valid: Valid, kind: str, content: bytes) -> None:
    assert valid.load(kind, content) is not None or (kind == "steps" and b"\n" not in content)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: path.stem)
def test_the_corpus_of_hostile_files(valid: Valid, path: Path) -> None:
    """What fuzzing found: files that once brought an error of another kind, and one of each sort.

    `<kind>-<hash>.bin`; those called `<kind>-loads-…` are odd but whole.
    """
    found = valid.load(path.stem.split("-")[0], path.read_bytes())
    assert (found is None) == ("-loads-" in path.stem), found


@pytest.mark.slow
def test_fuzzing_for_a_long_time(valid: Valid) -> None:
    """PROMPTOT_FUZZ_SECONDS (60 by default) of mutations; PROMPTOT_FUZZ_KEEP keeps new sorts."""
    seconds = float(os.environ.get("PROMPTOT_FUZZ_SECONDS", "60"))
    keep = os.environ.get("PROMPTOT_FUZZ_KEEP")
    seed = int(os.environ.get("PROMPTOT_FUZZ_SEED", str(time.time_ns())))
    draw, tried, sorts = random.Random(seed), 0, set()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        kind = draw.choice(KINDS)
        content = mutate(kind, valid.files[kind], draw)
        try:
            found = valid.load(kind, content)
        except BaseException:
            name = f"{kind}-{hashlib.sha256(content).hexdigest()[:12]}.bin"
            if keep is not None:
                Path(keep, name).write_bytes(content)
            raise
        tried += 1
        sort = kind, None if found is None else "".join(c for c in found if c.isalpha())[-60:]
        if sort not in sorts and keep is not None and len(content) < 6000:
            mark = "loads-" if found is None else ""
            name = f"{kind}-{mark}{hashlib.sha256(content).hexdigest()[:12]}.bin"
            Path(keep, name).write_bytes(content)
        sorts.add(sort)
    print(f"seed {seed}: {tried} files in {seconds:.0f} s, {len(sorts)} sorts of answer")
    assert tried > 0


def forge(folder: Path, valid: Valid, tensors: bytes, **changes: object) -> Path:
    """An adapter whose card vouches for `tensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    card = json.loads(valid.files["card"]) | changes
    card["tensors_sha256"] = hashlib.sha256(tensors).hexdigest()
    (folder / TENSORS).write_bytes(tensors)
    (folder / CARD).write_text(json.dumps(card))
    return folder


def header_only(header: dict, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "tensors",
    [
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 200_000_000) + b"{" * 1000,
        struct.pack("<Q", 100_000) + b'{"a":' * 20_000,
        header_only({"text.0": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 4]}}),
        header_only({"text.0": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"abcd"),
        header_only({"text.0": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**60]}}),
        header_only({"text.0": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"),
        header_only({"../../x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"),
        header_only({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                     for i in range(20_000)}),
        b"PK\x03\x04" + b"\0" * 100,
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"",
    ],
    ids=["beyond", "huge", "nested", "vast", "negative", "offsets", "object", "path", "many",
         "zip", "pickle", "empty"],
)  # fmt: skip
def test_forged_tensors(valid: Valid, tmp_path: Path, tensors: bytes) -> None:
    """Refused at once, and without memory for what they claim to be."""
    began = time.monotonic()
    with pytest.raises(PromptotError, match="is damaged"):
        load_adapter(forge(tmp_path / "adapter", valid, tensors))
    (tmp_path / "checkpoint").write_bytes(tensors)
    with pytest.raises(PromptotError, match="is damaged"):
        read_checkpoint(tmp_path / "checkpoint")
    assert time.monotonic() - began < 30  # what they claim to be would take hours
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": []}, "empty"),
        ({"class_names": ["cat", " \t"]}, "empty"),
        ({"class_names": ["cat", "\u200b"]}, "empty"),
        ({"class_names": ["x"] * 2**21}, "class_names|far too large"),
        ({"template": "no place"}, "no place"),
        ({"template": []}, "template"),
        ({"template": ["a {}.", "{} {}"]}, "exactly once"),
        ({"metrics": {"test_accuracy": float("nan")}}, "metrics"),
        ({"recipe": {"nested": json.loads("[" * 500 + "]" * 500)}}, "not valid"),
        ({"prompts": {"design": "ivlp", "text_width": 32, "vision_width": 64, "text_tokens": 2,
                      "text_depth": 2, "vision_tokens": 2, "vision_depth": 2,
                      "fixed_words": ""}}, "not those that the card"),
        ({"format_version": 0}, "format_version"),
        ({"format_version": 6}, "format version 6.*Update promptot"),
        ({"backbone": {"name": "x", "weight_hash": "../" * 21 + "x"}}, "weight_hash"),
    ],
)  # fmt: skip
def test_forged_cards(valid: Valid, tmp_path: Path, changes: dict, message: str) -> None:
    folder = forge(tmp_path / "adapter", valid, valid.files["tensors"], **changes)
    with pytest.raises(PromptotError, match=message) as caught:
        load_adapter(folder)
    assert len(str(caught.value)) < 1000 + len(str(tmp_path))


def test_sizes_that_are_not_the_backbones(valid: Valid, tmp_path: Path) -> None:
    """Tensors and card agree with each other, and the card names the right weights."""
    tensors = {"text.0": torch.zeros(2, 32), "vision.0": torch.zeros(2, 64)}
    shape = {"design": "ivlp", "text_width": 32, "vision_width": 64, "text_tokens": 2}
    shape |= {"text_depth": 1, "vision_tokens": 2, "vision_depth": 1, "fixed_words": ""}
    folder = forge(tmp_path, valid, safetensors_file(tensors, {}), prompts=shape)
    with pytest.raises(PromptotError, match="text_width is 32, and the backbone's 64"):
        use_adapter(folder, valid.backbone)


def test_what_is_no_regular_file(valid: Valid, tmp_path: Path) -> None:
    folder = forge(tmp_path / "adapter", valid, valid.files["tensors"])
    for name in (CARD, TENSORS):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).mkdir()
        with pytest.raises(PromptotError, match="no adapter|not a file"):
            load_adapter(folder)
        (folder / name).rmdir()
        if hasattr(os, "mkfifo"):
            os.mkfifo(folder / name)
            with pytest.raises(PromptotError, match="no adapter|not a file"):
                load_adapter(folder)  # and doesn't wait for someone to write
            (folder / name).unlink()
        (folder / name).write_bytes(content)
    load_adapter(folder)


def test_far_too_large_files_are_not_read(valid: Valid, tmp_path: Path) -> None:
    folder = forge(tmp_path / "adapter", valid, valid.files["tensors"])
    for name, size in ((CARD, 2**25), (TENSORS, 2**33)):
        content = (folder / name).read_bytes()
        os.truncate(folder / name, size)  # sparse: it takes no room
        with pytest.raises(PromptotError, match="far too large"):
            load_adapter(folder)
        (folder / name).write_bytes(content)
    path = tmp_path / "checkpoint"
    path.touch()
    os.truncate(path, 2**33)
    with pytest.raises(PromptotError, match="far too large"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format_version": "3"}, "format version 3.*Update promptot"),
        ({"epoch": "-1"}, "epoch"),
        ({"epoch": "1e3"}, "epoch"),
        ({"epoch": "9" * 5000}, "epoch"),
        ({"step": "5"}, "records"),
        ({"run": "[" * 100_000}, "damaged"),
        ({"run": "[]"}, "what run"),
        ({"run": "x" * 2**21}, "run"),
    ],
)
def test_forged_checkpoints(tmp_path: Path, header: dict[str, str], message: str) -> None:
    tensors = {f"prompt.{k}": v.detach() for k, v in make_prompts().named_parameters()}
    path = tmp_path / "checkpoint"
    path.write_bytes(safetensors_file(tensors, {"epoch": "1", "run": "{}"} | header))
    with pytest.raises(PromptotError, match=message):
        read_checkpoint(path)


def test_a_checkpoint_of_version_1_is_read(tmp_path: Path) -> None:
    """As promptot 0.1.0 wrote it: no version, no step, no records."""
    tensors = {f"prompt.{k}": v.detach() for k, v in make_prompts().named_parameters()}
    path = tmp_path / "checkpoint"
    path.write_bytes(safetensors_file(tensors, {"epoch": "3", "run": '{"seed": 1}'}))
    state = read_checkpoint(path)
    assert (state.epoch, state.step, state.run, list(state.records)) == (3, 0, {"seed": 1}, [])


@pytest.mark.parametrize(
    "state",
    [
        {"preservation.student": torch.ones(2, 8)},
        {"preservation.student": torch.ones(2, 8), "preservation.teacher": torch.ones(3, 8)},
        {"preservation.student": torch.ones(99, 8), "preservation.teacher": torch.ones(99, 8)},
        {"preservation.student": torch.ones(2), "preservation.teacher": torch.ones(2)},
        {"control.factor": torch.tensor(-1.0)},
        {"control.factor": torch.ones(3)},
        {"control.other": torch.tensor(1.0)},
        {"elsewhere": torch.tensor(1.0)},
    ],
)
def test_a_forged_state_of_the_objective(state: dict[str, torch.Tensor]) -> None:
    control = build_control("budget", steps=5, budget=0.1)
    objective = Objective(build_preservation("ot", queue=6), 1.0, control=control)
    whole = {"control.factor": torch.tensor(1.0)} | state
    with pytest.raises(PromptotError, match="Resume with the recipe"):
        objective.load_state_dict(whole)


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    for name, text in (("epochs.csv", "epoch,steps\n1,x\n"), ("epochs.csv", "\x00")):
        (tmp_path / name).write_text(text)
        with pytest.raises(PromptotError, match="epochs.csv' is damaged"):
            Log(tmp_path).restore(1)


def test_nothing_is_ever_unpickled(valid: Valid, small_file: Path) -> None:
    """Python tells its audit hooks of every name that a pickle looks up: there is none."""
    found: list[tuple[object, ...]] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "pickle.find_class":
            found.append(arguments)

    sys.addaudithook(hook)  # it stays, and looks away afterwards
    for kind in KINDS:
        assert valid.load(kind, valid.files[kind]) is None
    load_backbone(f"openai:{small_file}")
    load_backbone("bundled:tiny")
    watching = False
    assert found == []


def test_no_module_imports_pickle() -> None:
    """But for `torch.load(…, weights_only=True)` of a backbone, which runs no code."""
    import promptot

    sources = [
        path.read_text(encoding="utf-8") for path in Path(promptot.__path__[0]).rglob("*.py")
    ]
    assert not any(
        word in text
        for text in sources
        for word in ("import pickle", "from pickle", "allow_pickle=True", "weights_only=False",
                     "joblib", "import dill", "import shelve", "import marshal")
    )  # fmt: skip
    assert sum(text.count("torch.load(") for text in sources) == 1
