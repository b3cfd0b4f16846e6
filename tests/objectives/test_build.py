"""From names to terms, and from mistyped names to the nearest right one."""

from __future__ import annotations

import pytest
import torch

from promptot.errors import PromptotError
from promptot.objectives import (
    BudgetStrength,
    Features,
    LogitDivergence,
    Pointwise,
    PreserveRows,
    PromptSRC,
    RampStrength,
    TextCosine,
    Transport,
    TransportDivergence,
    build_comparison,
    build_control,
    build_preservation,
)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("none", {}, None),
        ("pointwise", {"eta": 0.3}, PreserveRows(Pointwise(0.3))),
        ("pointwise", {"rows": "text"}, PreserveRows(Pointwise(), rows="text")),
        ("ot", {}, PreserveRows(Transport(0.5))),
        ("ot", {"eta": 0.3, "solver": "exact"}, PreserveRows(Transport(0.3))),
        ("ot", {"queue": 8, "rows": "image"}, PreserveRows(Transport(), "image", queue=8)),
        ("ot", {"queue": None}, PreserveRows(Transport())),
        ("text-cosine", {}, TextCosine()),
        ("logits", {}, LogitDivergence()),
        ("promptsrc", {}, PromptSRC(25.0, 10.0, 1.0)),
        ("promptsrc", {"image_weight": 2.0}, PromptSRC(image_weight=2.0)),
    ],
)
def test_builds(name, options, expected):
    assert repr(build_preservation(name, **options)) == repr(expected)


@pytest.mark.parametrize("solver", ["sinkhorn-divergence", "unbalanced"])
def test_builds_divergences(solver):
    built = build_comparison("ot", eta=2.0, solver=solver, epsilon=0.2)
    assert isinstance(built, TransportDivergence)
    assert built.eta == 2.0


def test_options_reach_their_solver():
    teacher = Features(torch.eye(6), torch.eye(6))
    student = Features(torch.eye(6) + 0.3 * torch.eye(6).roll(1, dims=1), torch.eye(6))

    def value(**options):
        return build_preservation("ot", **options)(student, teacher, torch.arange(6)).value.item()

    for solver, option, low, high in (
        ("sinkhorn", "epsilon", 0.01, 5.0),
        ("sinkhorn-divergence", "epsilon", 0.01, 5.0),
        ("unbalanced", "epsilon", 0.01, 5.0),
        ("unbalanced", "marginal_penalty", 0.01, 5.0),
        ("partial", "mass", 0.2, 0.9),
    ):
        ends = [value(solver=solver, **{option: end}) for end in (low, high)]
        assert abs(ends[0] - ends[1]) > 0.1 * max(ends), (solver, option)
    assert value(eta=1.0) == pytest.approx(2 * value(eta=0.5))


def test_epsilon_reaches_the_entropic_solver():
    features = Features(torch.eye(4), torch.eye(4))
    sharp, default, soft = (
        build_preservation("ot", solver="sinkhorn", **options)(
            features, features, torch.arange(4)
        ).plan_entropy
        for options in ({"epsilon": 0.01}, {}, {"epsilon": 5.0})
    )
    assert sharp < 1e-6
    assert sharp <= default < soft
    assert soft > 0.5


def test_builds_controls():
    assert build_control("constant", steps=5) is None
    ramps = [build_control(name, steps=5) for name in ("ramp", "ramp-down")]
    assert [(ramp.first, ramp.last, ramp.steps) for ramp in ramps] == [(0, 1, 5), (1, 0, 5)]
    assert all(isinstance(ramp, RampStrength) for ramp in ramps)
    budget = build_control("budget", steps=5, budget=0.2)
    assert isinstance(budget, BudgetStrength)
    assert budget.budget == 0.2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("otp", {}, "No preservation term 'otp'. Did you mean 'ot'?"),
        ("nonsense", {}, "Valid: logits, none, ot, pointwise, promptsrc, text-cosine."),
        ("ot", {"epsilom": 1.0}, "Transport has no option 'epsilom'. Did you mean 'epsilon'?"),
        ("pointwise", {"solver": "exact"}, "has no option 'solver'. Valid: eta."),
        ("ot", {"solver": "sinkhor"}, "No transport solver 'sinkhor'. Did you mean 'sinkhorn'?"),
        ("ot", {"epsilon": 0.1}, "'epsilon' has no effect on the exact solver."),
        ("ot", {"solver": "sinkhorn", "epsilon": -1.0}, "'epsilon' is -1.0"),
        ("ot", {"solver": "sinkhorn-divergence", "epsilon": 0.0}, "'epsilon' is 0.0"),
        ("ot", {"solver": "exact", "mass": 0.5}, "Leave it out, or choose solver partial."),
        ("ot", {"solver": "partial", "mass": 1.5}, "'mass' is 1.5"),
        ("ot", {"solver": "unbalanced", "marginal_penalty": 0.0}, "'marginal_penalty' is 0.0"),
        ("ot", {"rows": "images"}, "There are no rows 'images'"),
        ("ot", {"queue": 5000}, "A feature queue of 5000 rows"),
        ("pointwise", {"eta": 0.0}, "'eta' is 0.0"),
        ("pointwise", {"queue": 8}, "has no option 'queue'"),
        ("promptsrc", {"text_wieght": 1.0}, "Did you mean 'text_weight'?"),
        ("none", {"eta": 0.5}, "has no option 'eta'"),
    ],
)
def test_refuses(name, options, message):
    with pytest.raises(PromptotError) as caught:
        build_preservation(name, **options)
    assert message in str(caught.value)
