"""Plan, loss and gradient of a transport term: ours against other libraries.

Every solver gets the same joint rows x (student, with a gradient) and y (teacher), builds the cost
½ ‖x_i − y_j‖² (those on torch and NumPy with the same function), finds a plan, and brings the
gradient of Σ π_ij C_ij, the plan held constant, back to x. Entropic solvers run at ε = 0.05 of the
mean cost, each at its loosest setting whose plan has a marginal error (L1, the worse side) of at
most 1e-4. The values are computed from the plans in fp64, alike for all. `geomloss` and `ott-jax`
take part where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ot
import torch
import torch.nn.functional as F
from torch import Tensor

from _common import adaptive_repeats, duration, interleave, parser, save, table
from promptot.transport import (
    TransportProblem,
    solve_exact,
    solve_sinkhorn,
    squared_euclidean,
)

WIDTH = 512  # of each half of a row
EPSILON = 0.05  # of the mean cost
TOLERANCE = 1e-4
SIMPLEX_ITERATIONS = 100_000_000
SINKHORN_ITERATIONS = 100_000

Plan = Callable[[], Tensor]  # made outside the timed part


@dataclass(frozen=True)
class Points:
    """An instance: rows [B, 2·512] of the student and the teacher, and ε."""

    x: Tensor
    y: Tensor
    epsilon: float


@dataclass(frozen=True)
class Solver:
    """One way to solve. `run` leaves the gradient at x; `settings` go from loose to tight."""

    name: str
    kind: str  # "exact" or "entropic"
    run: Callable[[Points, float], Plan]
    settings: Sequence[float] = (0.0,)


def instances(size: int) -> dict[str, Points]:
    """As in training (each student row is near its own teacher row), and without any pairing."""
    generator = torch.Generator().manual_seed(size)

    def rows() -> Tensor:
        halves = torch.randn(size, 2, WIDTH, generator=generator)
        return F.normalize(halves, dim=-1)

    def joint(halves: Tensor) -> Tensor:
        return F.normalize(halves, dim=-1).flatten(1)

    y = rows()
    made = {"paired": joint(y + 0.5 * rows()), "unpaired": joint(rows())}
    return {
        name: Points(x.requires_grad_(), joint(y), EPSILON * float(_cost(x, joint(y)).mean()))
        for name, x in made.items()
    }


def _cost(x: Tensor, y: Tensor) -> Tensor:
    return squared_euclidean(x.detach(), y)


def _uniform(size: int, like: type) -> Any:
    return (
        np.full(size, 1 / size, like) if like is not torch.Tensor else torch.full((size,), 1 / size)
    )


def _back(plan: Any, cost: Tensor) -> Plan:
    """Backward of Σ π_ij C_ij with a constant plan."""
    constant = torch.as_tensor(plan, dtype=cost.dtype)
    (constant * cost).sum().backward()
    return lambda: torch.as_tensor(plan)


def ours_exact(points: Points, _: float) -> Plan:
    result = solve_exact(TransportProblem(squared_euclidean(points.x, points.y)))
    result.value.backward()
    return lambda: result.plan


def pot_exact_numpy(points: Points, _: float) -> Plan:
    cost = squared_euclidean(points.x, points.y)
    weights = _uniform(len(cost), np.float64)
    plan = ot.emd(weights, weights, cost.detach().double().numpy(), SIMPLEX_ITERATIONS)
    return _back(plan, cost)


def pot_exact_torch(points: Points, _: float) -> Plan:
    cost = squared_euclidean(points.x, points.y)
    weights = _uniform(len(cost), torch.Tensor)
    value, log = ot.emd2(
        weights, weights, cost, numItermax=SIMPLEX_ITERATIONS, log=True, return_matrix=True
    )
    value.backward()
    return lambda: log["G"].detach()


def ours_entropic(points: Points, tolerance: float) -> Plan:
    problem = TransportProblem(squared_euclidean(points.x, points.y))
    result = solve_sinkhorn(problem, EPSILON, tolerance=tolerance)
    result.value.backward()
    return lambda: result.plan


def pot_entropic(backend: str, method: str) -> Callable[[Points, float], Plan]:
    """POT's Sinkhorn, plain or in the log domain, on NumPy or torch, all in fp32."""

    def run(points: Points, tolerance: float) -> Plan:
        cost = squared_euclidean(points.x, points.y)
        constant: Any = cost.detach()
        weights = _uniform(len(cost), torch.Tensor)
        if backend == "numpy":
            constant, weights = constant.numpy(), weights.numpy()
        plan = ot.sinkhorn(
            weights,
            weights,
            constant,
            points.epsilon,
            method=method,
            numItermax=SINKHORN_ITERATIONS,
            stopThr=tolerance,
        )
        return _back(plan, cost)

    return run


def geomloss_entropic(points: Points, scaling: float) -> Plan:
    """Feydy's ε-scaling; its setting is the factor between two ε."""
    from geomloss import SamplesLoss

    options: dict[str, Any] = {
        "p": 2,
        "blur": math.sqrt(points.epsilon),
        "scaling": scaling,
        "debias": False,
        "backend": "tensorized",
    }
    SamplesLoss("sinkhorn", **options)(points.x, points.y).backward()

    def plan() -> Tensor:
        with torch.no_grad():
            f, g = SamplesLoss("sinkhorn", **options, potentials=True)(points.x, points.y)
            exponent = f.view(-1, 1) + g.view(1, -1) - _cost(points.x, points.y)
            return (exponent.double() / points.epsilon).exp() / len(points.x) / len(points.y)

    return plan


def ott_entropic() -> Callable[[Points, float], Plan]:
    """OTT-JAX, compiled before it is timed; its arrays are converted before, too."""
    import jax
    import jax.numpy as jnp
    from ott.geometry.geometry import Geometry
    from ott.solvers import linear

    def cost(x: Any, y: Any) -> Any:
        norms = (x**2).sum(1)[:, None] + (y**2).sum(1)
        return 0.5 * jnp.maximum(norms - 2 * x @ y.T, 0)

    def loss(x: Any, y: Any, epsilon: float, tolerance: float) -> Any:
        out = linear.solve(
            Geometry(cost(x, y), epsilon=epsilon),
            threshold=tolerance,
            max_iterations=SINKHORN_ITERATIONS,
        )
        return out.reg_ot_cost, out.matrix

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    arrays: dict[int, tuple[Any, Any]] = {}

    def run(points: Points, tolerance: float) -> Plan:
        if id(points) not in arrays:
            arrays.clear()
            arrays[id(points)] = tuple(
                jnp.asarray(rows.detach().numpy()) for rows in (points.x, points.y)
            )
        (_, plan), back = gradient(*arrays[id(points)], points.epsilon, tolerance)
        jax.block_until_ready(back)
        return lambda: torch.from_numpy(np.array(plan))

    return run


def solvers() -> Iterator[Solver]:
    """All that can be imported; ours first of each kind."""
    thresholds = [10.0**-power for power in (3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7)]
    yield Solver("ours", "exact", ours_exact)
    yield Solver("POT emd, NumPy", "exact", pot_exact_numpy)
    yield Solver("POT emd2, torch", "exact", pot_exact_torch)
    yield Solver("ours", "entropic", ours_entropic, [TOLERANCE])
    for backend in ("numpy", "torch"):
        for method in ("sinkhorn", "sinkhorn_log"):
            name = f"POT {method}, {'NumPy' if backend == 'numpy' else backend}"
            yield Solver(name, "entropic", pot_entropic(backend, method), thresholds)
    if importlib.util.find_spec("geomloss"):
        scalings = [0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999]
        yield Solver("geomloss", "entropic", geomloss_entropic, scalings)
    if importlib.util.find_spec("ott"):
        yield Solver("OTT-JAX", "entropic", ott_entropic(), [TOLERANCE])


@dataclass(frozen=True)
class Quality:
    """What a plan is worth, in fp64."""

    value: float  # Σ π_ij C_ij
    marginal_error: float  # L1, the worse side


def quality(points: Points, plan: Tensor) -> Quality:
    plan = plan.detach().double()
    cost = squared_euclidean(points.x.detach().double(), points.y.double())
    errors = [(plan.sum(dim=d) - 1 / plan.shape[1 - d]).abs().sum() for d in (0, 1)]
    return Quality(float((plan * cost).sum()), float(max(errors)))


def loosest(solver: Solver, points: Points, limit: float) -> tuple[float, Quality, float] | None:
    """The loosest setting that is accurate enough (else the tightest), its quality and seconds.

    None if one run takes longer than `limit` seconds.
    """
    for setting in solver.settings:
        solver.run(points, setting)  # compiles, fills caches
        points.x.grad = None
        began = time.perf_counter()
        plan = solver.run(points, setting)
        seconds = time.perf_counter() - began
        found = quality(points, plan())
        if found.marginal_error <= TOLERANCE:
            break
        if seconds > limit:
            return None
    return setting, found, seconds


def measure(size: int, options: argparse.Namespace, given_up: set[str]) -> list[dict[str, Any]]:
    """All solvers on all instances of one size."""
    rows = []
    for kind in ("exact", "entropic"):
        for name, points in instances(size).items():
            chosen: dict[str, tuple[Solver, float, Quality, float]] = {}
            for solver in solvers():
                key = f"{kind} {name} {solver.name}"
                if solver.kind != kind or key in given_up:
                    continue
                found = loosest(solver, points, options.limit)
                if found is None or found[2] > options.limit:
                    given_up.add(key)
                if found is not None:
                    chosen[solver.name] = (solver, *found)
            runs = {
                label: _repeatable(solver, points, setting)
                for label, (solver, setting, _, _) in chosen.items()
            }
            repeats = {
                label: adaptive_repeats(seconds, options.budget)
                for label, (_, _, _, seconds) in chosen.items()
            }
            times = interleave(runs, repeats)
            for label, (_, setting, found_quality, _) in chosen.items():
                rows.append(
                    {
                        "kind": kind,
                        "instance": name,
                        "size": size,
                        "solver": label,
                        "setting": setting,
                        "accurate": found_quality.marginal_error <= TOLERANCE,
                        **vars(found_quality),
                        **times[label].as_dict(),
                    }
                )
    return rows


def _repeatable(solver: Solver, points: Points, setting: float) -> Callable[[], object]:
    def run() -> None:
        points.x.grad = None
        solver.run(points, setting)

    return run


def report(rows: Sequence[dict[str, Any]]) -> str:
    """One table for each kind and instance: a line a size and solver."""
    parts = []
    for kind in ("exact", "entropic"):
        for instance in ("paired", "unpaired"):
            lines = []
            chosen = [row for row in rows if (row["kind"], row["instance"]) == (kind, instance)]
            for row in chosen:
                own = next(
                    other
                    for other in chosen
                    if other["size"] == row["size"] and other["solver"] == "ours"
                )
                lines.append(
                    [
                        str(row["size"]),
                        row["solver"],
                        f"{duration(row['median'])} ({duration(row['min'])} – "
                        f"{duration(row['max'])})",
                        f"{row['median'] / own['median']:.2f}×",
                        f"{row['value']:.6f}",
                        f"{row['marginal_error']:.0e}" + ("" if row["accurate"] else " (missed)"),
                    ]
                )
            header = ["B", "solver", "plan + loss + backward", "of ours", "value", "marginal error"]
            parts.append(f"{kind}, {instance}\n\n{table(header, lines)}")
    return "\n\n".join(parts)


def main() -> int:
    options_parser = parser(__doc__.splitlines()[0])
    options_parser.add_argument(
        "--sizes", type=int, nargs="+", default=[4, 16, 64, 256, 1024, 4096]
    )
    options_parser.add_argument(
        "--budget", type=float, default=2.0, help="seconds a solver and size"
    )
    options_parser.add_argument(
        "--limit", type=float, default=30.0, help="give a solver up at larger sizes above this"
    )
    options = options_parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # POT warns where it gives up; the table says so, too
    rows: list[dict[str, Any]] = []
    given_up: set[str] = set()
    for size in [4, 16] if options.smoke else options.sizes:
        rows += measure(size, options, given_up)
        save(options.json, "transport", rows, epsilon=EPSILON, tolerance=TOLERANCE)
        print(f"B = {size}: done", flush=True)
    print(report(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
