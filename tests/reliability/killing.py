"""Killing a real training process at any moment, again and again, until it gets through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptot.training.checkpoint import read_checkpoint

HERE = Path(__file__).parent
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "prompt-ot": ("prompt-ot", []),
    "averaged": ("promptsrc", ["ensembling=gaussian", "data.templates=one"]),
    "remembering": (
        "prompt-ot-queue",
        ["objective.control=budget", "vocabulary=ot", "vocabulary.per_step=3", "{words}"],
    ),
    "kept views": ("ivlp", ["data.views=2", "ensembling=uniform"]),
}
SCHEDULE = ["optim.epochs=3", "optim.batch_size=4", "optim.lr=0.02"]


@dataclass
class Launcher:
    """Orders to a `launcher.py` process."""

    backbone: Path
    data: Path
    note: Path
    kills: int = 0
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        words = self.note.with_name("words.txt")
        words.write_text("apple\nbridge\ncloud\numbrella\nzebra\n", encoding="utf-8")
        self.words = f"vocabulary.words={words}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "launcher.py"), f"openai:{self.backbone}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def hold(self, out: Path, seconds: float) -> None:
        """Let a process hold the lock of a folder, and be killed after some seconds.

        Returns when it has the lock; call `wait` to see it killed.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"out": str(out), "note": str(self.note), "hold": True, "seconds": seconds}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "held\n"

    def wait(self) -> int:
        """The exit code of the process that `hold` started."""
        assert self.process.stdout is not None
        code: int = json.loads(self.process.stdout.readline())["code"]
        return code

    def fit(self, out: Path, setting: str, **options: Any) -> tuple[int, str, float]:
        """Exit code (-9: killed), the error's text, and seconds."""
        recipe, overrides = SETTINGS[setting]
        order = {
            "out": str(out),
            "data": str(self.data),
            "note": str(self.note),
            "recipe": recipe,
            "overrides": [text.format(words=self.words) for text in (*SCHEDULE, *overrides)],
            **options,
        }
        self.note.unlink(missing_ok=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        text = self.note.read_text(encoding="utf-8") if self.note.exists() else ""
        self.kills += answer["code"] == -9
        return answer["code"], text, answer["seconds"]


def settle(launcher: Launcher, out: Path, setting: str, overwrite: bool = False) -> None:
    """After a kill: what is there is whole, and the run goes on to its end as its errors say."""
    check_whole(out)
    code, text, _ = launcher.fit(out, setting, resume=True)
    if code == 1 and "There is nothing to resume" in text:
        code, text, _ = launcher.fit(out, setting, overwrite=overwrite)
    elif code == 1 and "is complete" in text:
        # Killed after the end (then this was the last word) or before the new run had begun.
        code = 0
    assert code == 0, text


def check_whole(out: Path) -> None:
    """Every file that has its name is whole."""
    for folder in (out, out / ".next", out / ".finished"):
        for name in ("steps.csv", "epochs.csv"):
            if (folder / name).exists():
                lines = (folder / name).read_text().split("\n")
                assert lines[-1] == ""
                assert len({line.count(",") for line in lines[:-1]}) == 1
        if (folder / "manifest.json").exists():
            json.loads((folder / "manifest.json").read_text())
        if (folder / "checkpoint.safetensors").exists():
            read_checkpoint(folder / "checkpoint.safetensors")
        if (folder / "adapter").exists():
            assert {p.name for p in (folder / "adapter").iterdir()} == {
                "card.json",
                "prompts.safetensors",
            }


def contents(out: Path) -> dict[str, Any]:
    """All that a finished run leaves, but for the seconds it took."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name != ".lock":  # an empty file that a kill may leave
            found[str(path.relative_to(out))] = path.read_bytes()
    manifest = json.loads(found["manifest.json"])
    del manifest["results"]["seconds"]
    found["manifest.json"] = manifest
    rows = [row.split(",") for row in found["epochs.csv"].decode().splitlines()]
    place = rows[0].index("seconds")
    found["epochs.csv"] = [row[:place] + row[place + 1 :] for row in rows]
    return found
