"""What it costs to move one point onto another."""

from __future__ import annotations

import torch
from torch import Tensor

from promptot.errors import PromptotError
from promptot.graphs import is_host
from promptot.transport.numeric import at_least_float32, require_positive
from promptot.transport.precision import widest

CLOSE = {torch.float32: 1e-6, torch.float64: 1e-2}
"""Share of ‖x‖² + ‖y‖² below which a squared distance is computed from differences: above, what the
expansion loses is below the resolution of fp32, or a hundred times that of fp64."""
_CHUNK = 2**22  # numbers in memory at a time


def squared_euclidean(x: Tensor, y: Tensor, scale: float = 0.5) -> Tensor:
    """Pairwise cost `scale · ‖x_i − y_j‖²`, differentiable in `x` and `y`.

    The squares are expanded, ‖x‖² + ‖y‖² − 2⟨x, y⟩, in fp64, so that no [N, M, D] tensor is needed,
    and rounded at the end. Between close points that would still lose digits (‖x_i − y_i‖ ~ 1e-4 is
    what a prompt does in its first steps): their squares are summed from differences instead. So
    each cost is as accurate as direct differences, however small; its gradient is right to 1e-16
    of the points' size. Apple GPUs have no fp64 and take the differences everywhere.

    Args:
        x: [N, D] source points. bf16 and fp16 are raised to fp32.
        y: [M, D] target points.
        scale: factor on the squared distance, above zero.

    Returns:
        [N, M], never negative, 0 between equal points; fp64 if an input is fp64, else fp32.

    Raises:
        PromptotError: the shapes don't match or `scale` is not positive.

    Example:
        >>> import torch
        >>> squared_euclidean(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]]), scale=1.0)
        tensor([[0., 9.],
                [1., 4.]])
    """
    return wide_squared_euclidean(x, y, scale).to(result_dtype(x, y))


def result_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """fp64 if one of the points is, else fp32."""
    return torch.promote_types(at_least_float32(x).dtype, at_least_float32(y).dtype)


def wide_squared_euclidean(x: Tensor, y: Tensor, scale: float = 0.5) -> Tensor:
    """`squared_euclidean` before it is rounded: in fp64, on Apple GPUs in fp32."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise PromptotError(
            f"Points of shapes {list(x.shape)} and {list(y.shape)} have no pairwise distance.",
            fix="Give [N, D] and [M, D] with the same D.",
        )
    require_positive(scale=scale)
    dtype = result_dtype(x, y)
    wide = widest(dtype, x.device)
    if wide != torch.float64:
        return scale * (x.to(wide)[:, None] - y.to(wide)).square().sum(dim=-1)  # [N, M, D] → [N, M]
    wide_x, wide_y = x.to(wide), y.to(wide)
    norms = wide_x.square().sum(dim=1)[:, None] + wide_y.square().sum(dim=1)  # [N, M]
    squared = norms - 2 * wide_x @ wide_y.T  # [N, M]
    with torch.no_grad():
        exact = _with_close_pairs(squared, norms, wide_x, wide_y, CLOSE[dtype])
    # The gradient, 2 (x_i − y_j), is that of the expansion: it loses digits of x_i − y_j, not of
    # its square. Between equal points both value and gradient are exactly zero.
    return scale * (squared + (exact - squared).detach()).masked_fill(exact == 0, 0)


def _with_close_pairs(squared: Tensor, norms: Tensor, x: Tensor, y: Tensor, share: float) -> Tensor:
    """`squared` [N, M] with the direct ones where they are below this share of the norms."""
    close = squared < share * norms
    if not is_host(squared):  # without waiting for the device: all of them, one kernel
        direct = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
        return torch.where(close, direct, squared)
    exact = squared.clone()
    rows, columns = close.nonzero(as_tuple=True)
    step = max(1, _CHUNK // max(1, x.shape[1]))
    for i, j in zip(rows.split(step), columns.split(step), strict=True):
        exact[i, j] = (x[i] - y[j]).square().sum(dim=1)
    return exact
