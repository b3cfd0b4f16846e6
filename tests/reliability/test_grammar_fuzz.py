"""Near-valid files of every kind: a right result, or one sentence; never another exception.

By hand: `PROMPTOT_FUZZ_SECONDS=3600 pytest tests/reliability/test_grammar_fuzz.py -m slow -s`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from grammar import KINDS, files, read
from hypothesis import HealthCheck, Phase, given, seed, settings

CORPUS = Path(__file__).parents[1] / "fixtures" / "hostile" / "grammar"
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example,
         HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_near_valid_files(kind: str, tmp_path: Path) -> None:
    """A result or a sentence; and grammars that make both, or they would test little."""
    answers: Counter[bool] = Counter()

    def some(number: int) -> None:
        @settings(max_examples=40, deadline=None, suppress_health_check=QUIET, database=None)
        @seed(number)
        @given(content=files(kind))
        def every(content: bytes) -> None:
            answers[read(kind, content, tmp_path) is None] += 1

        every()

    for number in range(1, 6):  # what a seed draws depends on the library's version
        some(number)
        if len(answers) == 2:
            break
    assert answers.keys() == {True, False}, answers


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*")), ids=lambda path: path.name)
def test_the_corpus_of_near_valid_files(path: Path, tmp_path: Path) -> None:
    """What fuzzing found, `<hash>-<kind>`: each once brought a traceback, or took too long."""
    read(path.name.partition("-")[2], path.read_bytes(), tmp_path)


class Fuzzing:
    """What a long trial has found so far.

    Args:
        place: an empty folder to write each file to.
        keep: where what fails is kept; None keeps nothing.
    """

    def __init__(self, place: Path, keep: Path | None) -> None:
        self.place, self.keep = place, keep
        self.answers: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.failures: dict[str, str] = {}

    def turn(self, kind: str, number: int) -> None:
        """Some files of a kind."""

        @settings(max_examples=150, deadline=None, suppress_health_check=QUIET, database=None,
                  phases=[Phase.generate])  # fmt: skip
        @seed(number)
        @given(content=files(kind))
        def some(content: bytes) -> None:
            self.one(kind, content)

        some()

    def one(self, kind: str, content: bytes) -> None:
        if self.keep is not None:  # it is there even if the process ends
            (self.keep / "last").write_bytes(kind.encode() + b"\n" + content)
        try:
            found = read(kind, content, self.place)
        except Exception as error:
            key = f"{kind}: {type(error).__name__}: {error!s:.60}"
            if key not in self.failures:
                self.failures[key] = name = f"{hashlib.sha256(content).hexdigest()[:12]}-{kind}"
                print(f"FOUND {key} ({name})", flush=True)
                if self.keep is not None:
                    (self.keep / name).write_bytes(content)
            return
        said = "taken" if found is None else "".join(filter(str.isalpha, found))[-40:]
        self.answers[kind][said] += 1


@pytest.mark.slow
def test_fuzzing_every_reader_for_a_long_time(tmp_path: Path) -> None:
    """PROMPTOT_FUZZ_SECONDS (60 by default); what fails is kept in PROMPTOT_FUZZ_KEEP."""
    seconds = float(os.environ.get("PROMPTOT_FUZZ_SECONDS", "60"))
    first = int(os.environ.get("PROMPTOT_FUZZ_SEED", str(time.time_ns() % 10**9)))
    keep = os.environ.get("PROMPTOT_FUZZ_KEEP")
    fuzzing = Fuzzing(tmp_path, None if keep is None else Path(keep))
    deadline = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < deadline:
        fuzzing.turn(KINDS[turn % len(KINDS)], first + turn)
        turn += 1
    answers = fuzzing.answers
    total, sorts = sum(a.total() for a in answers.values()), sum(map(len, answers.values()))
    print(f"seed {first}: {total} files in {seconds:.0f} s, {sorts} sorts of answer")
    for kind in KINDS:
        print(f"  {kind}: {answers[kind].total()}, {answers[kind]['taken']} taken")
    assert not fuzzing.failures, fuzzing.failures
