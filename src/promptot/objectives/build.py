"""From the name of a preservation term, as recipes write it, to the term."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from promptot.errors import PromptotError, nearest
from promptot.objectives.joint_transport import JointSinkhornDivergence, JointTransport
from promptot.objectives.pointwise import PointwiseJoint
from promptot.objectives.preservation import Preservation
from promptot.transport import solve_sinkhorn
from promptot.transport.numeric import require_positive


def build_preservation(name: str, **options: Any) -> Preservation | None:
    """The preservation term called `name`.

    | name | term | options |
    |---|---|---|
    | `none` | no term | `eta`, without effect |
    | `pointwise` | `PointwiseJoint` | `eta` |
    | `ot` | `JointTransport`, or `JointSinkhornDivergence` | `eta`, `solver`, `epsilon` |

    `solver` is "exact" (default), "sinkhorn" or "sinkhorn-divergence"; `epsilon` is relative to
    the mean cost, belongs to the last two, and is 0.05 by default.

    Raises:
        PromptotError: an unknown name, option or solver (with the nearest valid one), or an
            option out of range.

    Example:
        >>> build_preservation("ot", eta=0.5)
        JointTransport(eta=0.5, ...)
        >>> build_preservation("pointwize")
        Traceback (most recent call last):
        promptot.errors.PromptotError: No preservation term 'pointwize'. Did you mean ...
    """
    build = _pick("preservation term", name, PRESERVATIONS)
    known = list(inspect.signature(build).parameters)
    for option in options:
        if option not in known:
            raise PromptotError(
                f"The preservation term '{name}' has no option '{option}'.",
                fix=nearest(option, known),
            )
    return build(**options)


def _none(eta: float = 0.5) -> None:
    """No term; `eta` is accepted so that a recipe can switch terms by the name alone."""


def _transport(
    eta: float = 0.5, solver: str = "exact", epsilon: float | None = None
) -> Preservation:
    return _pick("transport solver", solver, SOLVERS)(eta, epsilon)


def _exact(eta: float, epsilon: float | None) -> Preservation:
    if epsilon is not None:
        raise PromptotError(
            "'epsilon' has no effect on the exact solver.",
            fix="Leave it out, or choose solver 'sinkhorn' or 'sinkhorn-divergence'.",
        )
    return JointTransport(eta)


def _sinkhorn(eta: float, epsilon: float | None) -> Preservation:
    epsilon = DEFAULT_EPSILON if epsilon is None else epsilon
    require_positive(epsilon=epsilon)
    return JointTransport(eta, functools.partial(solve_sinkhorn, epsilon=epsilon))


def _sinkhorn_divergence(eta: float, epsilon: float | None) -> Preservation:
    return JointSinkhornDivergence(eta, DEFAULT_EPSILON if epsilon is None else epsilon)


def _pick(kind: str, name: str, choices: dict[str, Any]) -> Any:
    if name not in choices:
        raise PromptotError(f"No {kind} '{name}'.", fix=nearest(name, choices))
    return choices[name]


DEFAULT_EPSILON = 0.05  # of the mean cost

PRESERVATIONS: dict[str, Callable[..., Preservation | None]] = {
    "none": _none,
    "pointwise": PointwiseJoint,
    "ot": _transport,
}
SOLVERS: dict[str, Callable[[float, float | None], Preservation]] = {
    "exact": _exact,
    "sinkhorn": _sinkhorn,
    "sinkhorn-divergence": _sinkhorn_divergence,
}
