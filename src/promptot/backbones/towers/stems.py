"""Stems turn an image into patch tokens; everything after a stem is the same for any CLIP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGES_PER_THREAD = 4  # of a trunk on a CPU: with more, feature maps no longer fit in the cache


@contextmanager
def full_fp32(device: torch.device) -> Iterator[None]:
    """Convolutions in fp32 as the CPU computes them.

    On CUDA, PyTorch by default lets cuDNN round the inputs of fp32 convolutions to TF32's 10 bits
    (it does not for matrix products): features then differ from the CPU's in the third digit.
    """
    if device.type != "cuda":
        yield
        return
    convolutions = getattr(torch.backends.cudnn, "conv", None)  # from PyTorch 2.9 on
    if convolutions is not None:
        before = convolutions.fp32_precision
        convolutions.fp32_precision = "ieee"
        try:
            yield
        finally:
            convolutions.fp32_precision = before
    else:
        allowed = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = allowed


class ConvStem(nn.Module):
    """CLIP's own patch embedding: one strided convolution."""

    def __init__(self, width: int, patch: int | tuple[int, int], bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=bias)

    def forward(self, images: Tensor) -> Tensor:  # [B, 3, R, R] → [B, N, W]
        with full_fp32(images.device):
            return self.conv1(images).flatten(2).transpose(1, 2)


class TrunkStem(nn.Module):
    """A convolutional trunk from timm whose last feature map gives the tokens.

    Args:
        width: width of the tokens.
        trunk: timm model name; it is built without weights, which come with the backbone.
    """

    def __init__(self, width: int, trunk: str) -> None:
        super().__init__()
        import timm  # here, for it brings torchvision and 0.2 GB

        self.trunk = timm.create_model(trunk, pretrained=False, num_classes=0, global_pool="")
        self.proj = nn.Linear(self.trunk.num_features, width)

    def feature_map(self, images: Tensor) -> Tensor:
        """The trunk's last feature map as a sequence, [B, N, F], of images [B, 3, R, R].

        The trunk always works in inference mode: its batch-norm statistics are weights.
        """
        self.trunk.eval()
        return run_in_parts(self.trunk.forward_features, images).flatten(2).transpose(1, 2)

    def fuse_norms(self) -> None:
        """Fold every batch norm into the convolution before it: the same function, in less time."""
        _fuse_norms(self.trunk.eval())

    def forward(self, images: Tensor) -> Tensor:  # [B, 3, R, R] → [B, N, W]
        with torch.no_grad():
            features = self.feature_map(images)
        return self.proj(features)


def run_in_parts(module: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """A convolutional network's output, in full fp32; on a CPU of some images at a time."""
    images = images.contiguous(memory_format=torch.channels_last)  # 1.5 times as fast on CPU
    parts = (images,)
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    whole = tracing or torch.compiler.is_compiling()  # an export is for any batch size
    if images.device.type == "cpu" and not whole:
        parts = images.split(IMAGES_PER_THREAD * torch.get_num_threads())
    with full_fp32(images.device):
        return torch.cat([module(part) for part in parts])


def _fuse_norms(module: nn.Module) -> None:
    children = list(module.named_children())
    for (name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, getattr(norm, "act", nn.Identity()))
    for _, child in children:
        _fuse_norms(child)
