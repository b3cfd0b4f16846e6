"""The classifier as one graph in a file: ONNX and TorchScript."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import torch
from torch import Tensor

from promptot.backbones.library_warnings import quiet
from promptot.errors import PromptotError
from promptot.exporting.fixed import FixedClassifier
from promptot.exporting.formats import Content, Read

ONNX_FILE = "model.onnx"
TORCHSCRIPT_FILE = "model.pt"
OPSET = 17


def write_onnx(folder: Path, content: Content) -> None:
    """Write `model.onnx`: images [batch, 3, R, R] → logits [batch, C]."""
    _need_onnx()
    fixed = content.fixed
    with quiet(logging.WARNING), torch.no_grad():
        # The exporter that traces: for these towers the newer one (dynamo=True) takes 20 times as
        # long and gives the same logits.
        torch.onnx.export(
            fixed,
            (_example(fixed),),
            str(folder / ONNX_FILE),
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def read_onnx(folder: Path) -> Read:
    """Run `model.onnx` in onnxruntime, on the CPU."""
    _need_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        str(folder / ONNX_FILE), options, providers=["CPUExecutionProvider"]
    )
    return Read(lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0]))


def write_torchscript(folder: Path, content: Content) -> None:
    """Write `model.pt`: images [batch, 3, R, R] → logits [batch, C]."""
    with quiet(logging.WARNING), torch.no_grad():
        traced = torch.jit.trace(content.fixed, (_example(content.fixed),), check_trace=False)
        written = io.BytesIO()  # on a full disk, writing to a file would end the process
        torch.jit.save(traced, written)
    with (folder / TORCHSCRIPT_FILE).open("wb") as file:
        file.write(written.getbuffer())


def read_torchscript(folder: Path) -> Read:
    """Run `model.pt`."""
    with quiet(logging.WARNING):
        traced = torch.jit.load(str(folder / TORCHSCRIPT_FILE))

    @torch.no_grad()
    def logits(images: Tensor) -> Tensor:
        found: Tensor = traced(images)
        return found

    return Read(logits)


def _example(fixed: FixedClassifier) -> Tensor:
    return torch.zeros(2, 3, fixed.resolution, fixed.resolution)


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise PromptotError(
            f"Exporting to ONNX needs {error.name}.", fix="pip install 'promptot[export]'"
        ) from error
