"""A GPU that is full is a sentence at the command line, too."""

from __future__ import annotations

import pytest
import torch

from promptot.cli import main


def test_a_full_gpu_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import promptot.cli.app

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr(promptot.cli.app, "app", fail)
    with pytest.raises(SystemExit) as stopped:
        main(["demo"])
    assert stopped.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "not enough: CUDA out of memory. Tried to allocate 2.00 GiB. Use --precision" in said

    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("x")

    monkeypatch.setattr(promptot.cli.app, "app", break_down)
    with pytest.raises(RuntimeError, match="x"):
        main(["demo"])
