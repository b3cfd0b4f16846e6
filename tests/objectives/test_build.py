"""From names to terms, and from mistyped names to the nearest right one."""

from __future__ import annotations

import pytest
import torch

from promptot.errors import PromptotError
from promptot.objectives import (
    Features,
    JointSinkhornDivergence,
    JointTransport,
    PointwiseJoint,
    build_preservation,
)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("none", {}, None),
        ("none", {"eta": 0.5}, None),
        ("pointwise", {"eta": 0.3}, PointwiseJoint(0.3)),
        ("ot", {}, JointTransport(0.5)),
        ("ot", {"eta": 0.3, "solver": "exact"}, JointTransport(0.3)),
        ("ot", {"solver": "sinkhorn-divergence"}, JointSinkhornDivergence(0.5, 0.05)),
        (
            "ot",
            {"eta": 2.0, "solver": "sinkhorn-divergence", "epsilon": 0.2},
            JointSinkhornDivergence(2.0, 0.2),
        ),
    ],
)
def test_builds(name, options, expected):
    assert build_preservation(name, **options) == expected


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


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("otp", {}, "No preservation term 'otp'. Did you mean 'ot'?"),
        ("nonsense", {}, "Valid: none, ot, pointwise."),
        ("ot", {"epsilom": 1.0}, "has no option 'epsilom'. Did you mean 'epsilon'?"),
        ("pointwise", {"solver": "exact"}, "has no option 'solver'. Valid: eta."),
        ("ot", {"solver": "sinkhor"}, "No transport solver 'sinkhor'. Did you mean 'sinkhorn'?"),
        ("ot", {"epsilon": 0.1}, "'epsilon' has no effect on the exact solver."),
        ("ot", {"solver": "sinkhorn", "epsilon": -1.0}, "'epsilon' is -1.0"),
        ("ot", {"solver": "sinkhorn-divergence", "epsilon": 0.0}, "'epsilon' is 0.0"),
        ("pointwise", {"eta": 0.0}, "'eta' is 0.0"),
    ],
)
def test_refuses(name, options, message):
    with pytest.raises(PromptotError) as caught:
        build_preservation(name, **options)
    assert message in str(caught.value)
