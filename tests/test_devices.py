"""Choosing a device by name."""

from __future__ import annotations

import pytest
import torch

from promptot.devices import pick_device
from promptot.errors import PromptotError


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "", "cuda:-1"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(PromptotError, match="Unknown device"):
        pick_device(name)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(2, False, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_best(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, best: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == best
    if cuda:
        assert pick_device("cuda:1") == torch.device("cuda:1")
    for name, there in (("cuda:2", False), ("cuda", cuda > 0), ("mps", mps)):
        if not there:
            with pytest.raises(PromptotError, match=f"no device '{name}'.*--device cpu"):
                pick_device(name)
