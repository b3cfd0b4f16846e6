"""From the names that recipes write to preservation terms, comparisons, and what goes with them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from promptot.errors import PromptotError, nearest
from promptot.objectives.comparisons import Comparison, Pointwise, Transport, TransportDivergence
from promptot.objectives.logit_divergence import LogitDivergence
from promptot.objectives.preservation import Preservation
from promptot.objectives.promptsrc import PromptSRC
from promptot.objectives.rows import PreserveRows, Rows
from promptot.objectives.strength import BudgetStrength, RampStrength, StrengthControl
from promptot.objectives.text_cosine import TextCosine
from promptot.objectives.vocabulary_term import VocabularyTerm
from promptot.transport import (
    sinkhorn_divergence,
    solve_exact,
    solve_partial,
    solve_sinkhorn,
    unbalanced_divergence,
)
from promptot.transport.numeric import require_positive
from promptot.transport.partial import require_share


def build_preservation(name: str, **options: Any) -> Preservation | None:
    """The preservation term called `name`.

    | name | term | options |
    |---|---|---|
    | `none` | no term | |
    | `pointwise` | `PreserveRows`, pair by pair | `rows`, `eta` |
    | `ot` | `PreserveRows`, by transport | `rows`, `queue`, `eta`, `solver` and the solver's own |
    | `text-cosine` | `TextCosine` (KgCoOp) | |
    | `logits` | `LogitDivergence` (ProGrad) | |
    | `promptsrc` | `PromptSRC` | `text_weight`, `image_weight`, `logit_weight` |

    `rows` is "joint" (default), "image", "text" or "separate"; `queue` a number of rows up to 4096,
    or None; for `solver` see `build_comparison`. Without options `ot` is the published Prompt-OT.

    Raises:
        PromptotError: an unknown name, option or solver (with the nearest valid one), or an
            option out of range.

    Example:
        >>> build_preservation("pointwise", eta=0.5)
        PreserveRows(Pointwise(eta=0.5), rows='joint')
        >>> build_preservation("pointwize")
        Traceback (most recent call last):
        promptot.errors.PromptotError: No preservation term 'pointwize'. Did you mean ...
    """
    build: Callable[..., Preservation | None] = _pick("preservation term", name, PRESERVATIONS)
    return _call(f"preservation term '{name}'", build, options)


def build_comparison(name: str, **options: Any) -> Comparison:
    """The comparison of two sets of rows called `name`: "pointwise" (`eta`) or "ot".

    `ot` takes `eta`, a `solver` and the options of that solver:

    | solver | what it is | options |
    |---|---|---|
    | `exact` (default) | `Transport` with `solve_exact` | |
    | `sinkhorn` | `Transport` with `solve_sinkhorn` | `epsilon` |
    | `sinkhorn-divergence` | `TransportDivergence` with `sinkhorn_divergence` | `epsilon` |
    | `unbalanced` | the same with `unbalanced_divergence` | `epsilon`, `marginal_penalty` |
    | `partial` | `Transport` with `solve_partial` | `mass` |

    `epsilon` (0.05) and `marginal_penalty` (1) are in units of the mean cost, `mass` (0.9) is a
    share of the rows.

    Raises:
        PromptotError: an unknown name, option or solver, or an option out of range.

    Example:
        >>> build_comparison("ot", solver="partial", epsilon=0.1)
        Traceback (most recent call last):
        promptot.errors.PromptotError: 'epsilon' has no effect on the partial solver. Leave it ...
    """
    build: Callable[..., Comparison] = _pick("comparison", name, COMPARISONS)
    return _call(f"comparison '{name}'", build, options)


def build_vocabulary(comparison: str, **options: Any) -> VocabularyTerm | None:
    """The vocabulary term with `build_comparison(comparison, **options)`; None for "none".

    Raises:
        PromptotError: an unknown name, option or solver, or an option out of range.
    """
    return None if comparison == "none" else VocabularyTerm(build_comparison(comparison, **options))


def build_control(name: str, *, steps: int, budget: float = 0.05) -> StrengthControl | None:
    """What changes λ over the steps.

    | name | control |
    |---|---|
    | `constant` | None: λ stays |
    | `ramp` | `RampStrength` from 0 to λ |
    | `ramp-down` | `RampStrength` from λ to 0 |
    | `budget` | `BudgetStrength` with `budget` |

    Args:
        name: see above.
        steps: of the whole run.
        budget: of the preservation term, for `budget` alone.

    Raises:
        PromptotError: an unknown name, or a number out of range.
    """
    controls: dict[str, Callable[[], StrengthControl | None]] = {
        "constant": lambda: None,
        "ramp": lambda: RampStrength(steps),
        "ramp-down": lambda: RampStrength(steps, first=1.0, last=0.0),
        "budget": lambda: BudgetStrength(budget),
    }
    build: Callable[[], StrengthControl | None] = _pick("control of the strength", name, controls)
    return build()


def _no_term() -> None:
    """What fits the logits, alone."""


def _pointwise_rows(rows: Rows = "joint", **options: Any) -> Preservation:
    return PreserveRows(build_comparison("pointwise", **options), rows)


def _transported_rows(
    rows: Rows = "joint", queue: int | None = None, **options: Any
) -> Preservation:
    return PreserveRows(build_comparison("ot", **options), rows, queue)


def _transport(eta: float = 0.5, solver: str = "exact", **options: Any) -> Comparison:
    build: Callable[..., Comparison] = _pick("transport solver", solver, SOLVERS)
    known = {"solver"}.union(*map(_names, SOLVERS.values()))
    for option in options:
        if option not in known:
            raise PromptotError(f"Transport has no option '{option}'.", fix=nearest(option, known))
        having = [name for name, other in SOLVERS.items() if option in _names(other)]
        if solver not in having:
            raise PromptotError(
                f"'{option}' has no effect on the {solver} solver.",
                fix=f"Leave it out, or choose solver {' or '.join(having)}.",
            )
    return build(eta, **options)


def _exact(eta: float) -> Comparison:
    return Transport(eta, solve_exact)


def _sinkhorn(eta: float, epsilon: float = 0.05) -> Comparison:
    require_positive(epsilon=epsilon)
    return Transport(eta, functools.partial(solve_sinkhorn, epsilon=epsilon))


def _sinkhorn_divergence(eta: float, epsilon: float = 0.05) -> Comparison:
    require_positive(epsilon=epsilon)
    return TransportDivergence(eta, functools.partial(sinkhorn_divergence, epsilon=epsilon))


def _unbalanced(eta: float, epsilon: float = 0.05, marginal_penalty: float = 1.0) -> Comparison:
    require_positive(epsilon=epsilon, marginal_penalty=marginal_penalty)
    divergence = functools.partial(
        unbalanced_divergence, epsilon=epsilon, marginal_penalty=marginal_penalty
    )
    return TransportDivergence(eta, divergence)


def _partial(eta: float, mass: float = 0.9) -> Comparison:
    require_share(mass=mass)
    return Transport(eta, functools.partial(solve_partial, mass=mass))


def _pick(kind: str, name: str, choices: dict[str, Any]) -> Any:
    if name not in choices:
        raise PromptotError(f"No {kind} '{name}'.", fix=nearest(name, choices))
    return choices[name]


def _call(what: str, build: Callable[..., Any], options: dict[str, Any]) -> Any:
    """`build(**options)`, unless it takes no such option."""
    names = _names(build)
    for option in options:
        if option not in names and "options" not in names:  # `options` are passed on
            raise PromptotError(f"The {what} has no option '{option}'.", fix=nearest(option, names))
    return build(**options)


def _names(build: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(build).parameters)


PRESERVATIONS: dict[str, Callable[..., Preservation | None]] = {
    "none": _no_term,
    "pointwise": _pointwise_rows,
    "ot": _transported_rows,
    "text-cosine": TextCosine,
    "promptsrc": PromptSRC,
    "logits": LogitDivergence,
}
COMPARISONS: dict[str, Callable[..., Comparison]] = {"pointwise": Pointwise, "ot": _transport}
SOLVERS: dict[str, Callable[..., Comparison]] = {
    "exact": _exact,
    "sinkhorn": _sinkhorn,
    "sinkhorn-divergence": _sinkhorn_divergence,
    "unbalanced": _unbalanced,
    "partial": _partial,
}
