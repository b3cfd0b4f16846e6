"""A classifier of fixed names as one plain module: an image tower and a matrix."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptot.adaptation.student import Student
from promptot.backbones.injection import Injection
from promptot.errors import PromptotError


class FixedClassifier(nn.Module):
    """Logits [B, C] of preprocessed images [B, 3, R, R], for C names that don't change.

    The prompts of the image tower are constants in it; of the text tower only its output is left,
    a row of the matrix for each name. It holds copies, in fp32, and nothing of promptot's own
    kernels, so that it can be traced.

    Args:
        model: over the names to export.

    Raises:
        PromptotError: the text depends on the image, so there is no matrix, or the backbone's
            matrices are stored in bf16.
    """

    matrix: Tensor
    bias: Tensor

    def __init__(self, model: Student) -> None:
        super().__init__()
        if model.backbone.precision != "fp32":
            raise PromptotError(
                f"The backbone's matrices are stored in {model.backbone.precision}.",
                fix="Load it with precision fp32 to export it.",
            )
        self.resolution = model.backbone.preprocess.resolution
        with torch.no_grad():
            tokens = tuple(own.cpu().clone() for own in model.injection().image_tokens)
            self.injection = Injection(image_tokens=tokens)
            matrix, bias = class_matrix(model)
        self.register_buffer("matrix", matrix.detach().cpu().clone())
        self.register_buffer("bias", bias.detach().cpu().clone())
        self.tower = copy.deepcopy(model.backbone.image_tower).cpu().eval()
        self.tower.requires_grad_(True)  # frozen blocks run on kernels that no exporter knows

    def train(self, mode: bool = True) -> FixedClassifier:
        """An exported classifier only predicts."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        features = F.normalize(self.tower(images, self.injection), dim=-1)
        return features @ self.matrix.T + self.bias


def class_matrix(model: Student) -> tuple[Tensor, Tensor]:
    """The matrix [C, D] and the bias [C] that take L2-normalised image features to logits.

    Rows are text features times the logit scale, or those of the linear head.

    Raises:
        PromptotError: the text depends on the image.
    """
    matrix = model.as_matrix()
    if matrix is None:
        raise PromptotError(
            "With these prompts (CoCoOp) every image has its own text features, so no matrix "
            "stands for the class names.",
            fix="Export a run of another recipe, or serve this one with promptot itself.",
        )
    return matrix
