"""Files from someone who means harm: made, mutated, and put where promptot reads them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from promptot.adaptation import IVLPPrompts
from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.runs.adapter import TENSORS, build_model, load_adapter, save_adapter
from promptot.runs.card import CARD
from promptot.training.checkpoint import (
    Checkpoint,
    copy_state,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from promptot.training.training_log import Log, StepRecord

NAMES = ("cat", "hot dog")
KINDS = ("card", "tensors", "checkpoint", "steps", "epochs")
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**64,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x00",
    "../../etc/passwd",
    "a" * 5000,
    "\ud800",
    "9" * 5000,
    [],
    [[[[]]]],
    {},
    {"__class__": "os.system"},
)


def make_prompts() -> IVLPPrompts:
    return IVLPPrompts(64, 64, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0))


class Valid:
    """An adapter, a checkpoint and a log that load, as bytes by kind."""

    def __init__(self, backbone: Backbone, folder: Path) -> None:
        self.backbone, self.folder = backbone, folder
        save_adapter(folder / "good", make_prompts(), backbone, NAMES, "a {}.")
        prompts = make_prompts()
        optimizer = torch.optim.SGD(prompts.parameters(), lr=0.1, momentum=0.9)
        prompts()
        sum(p.sum() for p in prompts.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()
        records = [StepRecord(1, i + 1, *([0.5] * 9)) for i in range(2)]
        log = Log(folder)
        log.add_epoch(records, 1.0)
        state = Checkpoint(1, 2, 0, {"seed": 1}, *copy_state(prompts, optimizer), records=records)
        save_checkpoint(folder / "checkpoint", state)
        self.files = {
            "card": (folder / "good" / CARD).read_bytes(),
            "tensors": (folder / "good" / TENSORS).read_bytes(),
            "checkpoint": (folder / "checkpoint").read_bytes(),
            "steps": (folder / "steps.csv").read_bytes(),
            "epochs": (folder / "epochs.csv").read_bytes(),
        }

    def load(self, kind: str, content: bytes) -> str | None:
        """Read `content` in the place of the good file; gives the error's text, None if it loads.

        Anything but a `PromptotError` comes through.
        """
        place = self.folder / "tried"
        shutil.rmtree(place, ignore_errors=True)
        try:
            if kind in ("card", "tensors"):
                shutil.copytree(self.folder / "good", place)
                (place / {"card": CARD, "tensors": TENSORS}[kind]).write_bytes(content)
                if kind == "tensors":  # the card vouches for it, as someone hostile would have it
                    card = json.loads(self.files["card"])
                    card["tensors_sha256"] = hashlib.sha256(content).hexdigest()
                    (place / CARD).write_text(json.dumps(card))
                use_adapter(place, self.backbone)
            elif kind == "checkpoint":
                place.mkdir()
                (place / "checkpoint").write_bytes(content)
                use_checkpoint(place / "checkpoint")
            else:
                place.mkdir()
                for name in ("steps", "epochs"):
                    (place / f"{name}.csv").write_bytes(self.files[name])
                (place / f"{kind}.csv").write_bytes(content)
                log = Log(place)
                log.restore(1)
                log.mean("total")
        except PromptotError as error:
            str(error).encode()
            return str(error)
        return None


def use_adapter(folder: Path, backbone: Backbone) -> None:
    """Load an adapter, classify with it, and write its card."""
    card, learned = load_adapter(folder)
    json.dumps(card.model_dump(mode="json"), allow_nan=False).encode()
    model = build_model(card, learned, backbone)
    with torch.no_grad():
        logits = model.logits(model.encode_images(torch.zeros(1, 3, 16, 16)))
    assert logits.shape == (1, len(card.class_names))


def use_checkpoint(path: Path) -> None:
    """Read a checkpoint and go on from it."""
    state = read_checkpoint(path)
    prompts = make_prompts()
    restore(state, prompts, torch.optim.SGD(prompts.parameters(), lr=0.1, momentum=0.9))
    assert all(p.isfinite().all() for p in prompts.parameters())
    assert state.epoch >= 0
    assert len(state.records) == state.step - state.skipped


def mutate(kind: str, good: bytes, draw: random.Random) -> bytes:
    """A damaged version of a good file."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [flip, cut, insert, repeat]
    if kind == "card":
        ways += [spoil_card] * 4
    elif kind in ("tensors", "checkpoint"):
        ways += [spoil_header] * 4
    content = good
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        content = draw.choice(ways)(content, draw)
    return content


def flip(content: bytes, draw: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        if found:
            found[draw.randrange(len(found))] = draw.randrange(256)
    return bytes(found)


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def insert(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    return content[:place] + draw.randbytes(draw.choice([1, 2, 8, 100])) + content[place:]


def repeat(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    end = min(len(content), start + draw.choice([1, 10, 100]))
    return content[:end] + content[start:end] * draw.choice([1, 50]) + content[end:]


def spoil_card(content: bytes, draw: random.Random) -> bytes:
    try:
        card = json.loads(content)
    except ValueError:
        return flip(content, draw)
    return json.dumps(spoil(card, draw)).encode("utf-8", "surrogatepass")


def spoil_header(content: bytes, draw: random.Random) -> bytes:
    """Change the JSON header of a safetensors file, or what it says of its own length."""
    try:
        (size,) = struct.unpack("<Q", content[:8])
        header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    except (ValueError, struct.error):
        return flip(content, draw)
    if draw.random() < 0.15:
        claimed = draw.choice([0, 1, size - 1, size + 1, 10**8, 2**63, 2**64 - 1])
        return struct.pack("<Q", claimed) + content[8:]
    text = json.dumps(spoil(header, draw)).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


def spoil(value: Any, draw: random.Random) -> Any:
    """Replace, add or remove something somewhere in JSON data."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        way = draw.random()
        if way < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if way < 0.2:
            return value | {draw.choice(["", "extra", "../x", "__metadata__"]): value[key]}
        return value | {key: spoil(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [*value[:place], spoil(value[place], draw), *value[place + 1 :]]
    if isinstance(value, str) and draw.random() < 0.3:
        try:
            return json.dumps(spoil(json.loads(value), draw))
        except ValueError:
            return value + draw.choice(["0", "é", "\n"])
    if isinstance(value, int) and draw.random() < 0.5:
        return value + draw.choice([-1, 1, 2, 64])
    return draw.choice(HOSTILE)


def safetensors_file(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    return save(tensors, metadata)
