"""Do the intervals of differences hold the truth as often as they say? Simulated benchmarks.

Every image has a difficulty that methods share, one that a method's seeds share, and one of its
own for each method and seed; each seed has a normal effect on a method's accuracy. So the true
difference is known exactly. A row of the table is a kind of benchmark: the share of simulated ones
whose interval holds the truth, and the median width of the interval in points.

    python benchmarks/coverage.py               # a few minutes
    python benchmarks/coverage.py --repeats 200
"""

from __future__ import annotations

import argparse
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from promptot.evaluation.statistics import (
    Accuracies,
    Answers,
    FloatArray,
    Statistic,
    paired_differences,
)
from promptot.experiments.protocols.averages import (
    average_of_harmonics,
    harmonic_of_averages,
    mean_of,
)

Units = dict[Hashable, dict[str, Answers]]


@dataclass(frozen=True)
class Case:
    """A kind of benchmark.

    Attributes:
        seeds, images: how many; images in each part of each task.
        seed_sd: standard deviation over seeds of one method's accuracy, a share.
        tasks: how many.
        figure: "mean" of one part, "harmonic" of the averages of two, or "harmonics" of each.
        accuracy: of the control; of two parts, the second is 0.1 less.
        gain: true difference.
        shared, own: of the variance of an image's difficulty, what methods share, and what the
            seeds of a method share beyond that; the rest is drawn anew for each seed.
        common_seeds: whether a seed's effect is the same in every task.
        frozen_control: the control does not depend on the seed, as zero-shot.
    """

    seeds: int
    images: int
    seed_sd: float = 0.0
    tasks: int = 1
    figure: str = "mean"
    accuracy: float = 0.7
    gain: float = 0.02
    shared: float = 0.6
    own: float = 0.2
    common_seeds: bool = False
    frozen_control: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        return ("test",) if self.figure == "mean" else ("base", "novel")

    @property
    def statistic(self) -> Statistic:
        return {
            "mean": mean_of("test"),
            "harmonic": harmonic_of_averages,
            "harmonics": average_of_harmonics,
        }[self.figure]


def simulate(case: Case, generator: np.random.Generator) -> tuple[Units, Units, float]:
    """The answers of a method and of the control, and the true difference.

    With one seed the truth is that of the two models, over all images that there could be.
    """
    quantile = NormalDist().inv_cdf
    answers: tuple[Units, Units] = ({}, {})
    truth: tuple[dict[Hashable, dict[str, FloatArray]], ...] = ({}, {})
    effects = generator.standard_normal((2, case.seeds))
    for task in range(case.tasks):
        if not case.common_seeds:
            effects = generator.standard_normal((2, case.seeds))
        for place, part in enumerate(case.parts):
            names = [f"{task} {part} {i}" for i in range(case.images)]
            shared = _normal(generator, case.images)
            for side, gain in enumerate((case.gain, 0.0)):
                frozen = case.frozen_control and side == 1
                expected = case.accuracy - 0.1 * place + gain
                moved = expected + case.seed_sd * effects[side] * (not frozen)
                level = np.array([quantile(p) for p in np.clip(moved, 1e-9, 1 - 1e-9)])
                alone = 0.0 if frozen else 1 - case.shared - case.own
                difficulty = np.sqrt(case.shared) * shared
                difficulty = difficulty + np.sqrt(1 - case.shared - alone) * _normal(
                    generator, case.images
                )
                difficulty = difficulty + np.sqrt(alone) * _normal(
                    generator, (case.seeds, case.images)
                )  # [S, N]
                right = (difficulty < level[:, None]).astype(np.float64)
                answers[side].setdefault((task, 1), {})[part] = Answers(right, names)
                known = moved if case.seeds == 1 else np.array([expected])
                truth[side].setdefault((task, 1), {})[part] = known

    def value(found: Accuracies) -> float:
        return float(case.statistic(found))

    return *answers, value(truth[0]) - value(truth[1])


def measure(case: Case, repeats: int, seed: int = 0) -> tuple[float, float]:
    """The share of intervals that hold the truth, and the median width in points."""
    generator = np.random.default_rng(seed)
    held, widths = 0, []
    for _ in range(repeats):
        method, control, truth = simulate(case, generator)
        both = {"method": method, "control": control}
        gap = paired_differences(both, "control", {"x": case.statistic})["method"]["x"]
        held += gap.low <= truth <= gap.high
        widths.append(100 * (gap.high - gap.low))
    return held / repeats, float(np.median(widths))


def with_share(case: Case, share: float, repeats: int = 200) -> Case:
    """The case with as large an effect of seeds that they bring this share of the variance."""
    generator = np.random.default_rng(1)
    gaps = []
    for _ in range(repeats):
        method, control, _ = simulate(replace(case, seed_sd=0.0), generator)
        found = [{u: {p: a.accuracy for p, a in x.items()} for u, x in m.items()}
                 for m in (method, control)]  # fmt: skip
        gaps.append(float(case.statistic(found[0]) - case.statistic(found[1])))
    of_images = float(np.var(gaps))
    sides = 1 if case.frozen_control else 2
    drawn = 1 if case.common_seeds else case.tasks
    of_seeds = share / (1 - share) * of_images
    return replace(case, seed_sd=float(np.sqrt(of_seeds * case.seeds * drawn / sides)))


def cases() -> Iterator[tuple[str, Case, float]]:
    """A name, a case without an effect of seeds, and the share of the variance that they bring."""
    for seeds in (1, 2, 3, 5):
        for images in (20, 75, 300, 1000, 20_000):
            for share in (0.0, 0.5, 0.9, 0.99) if seeds > 1 else (0.0,):
                yield "one data set", Case(seeds, images), share
    for seeds in (1, 2, 3, 5):
        for share in (0.0, 0.5, 0.9) if seeds > 1 else (0.0,):
            yield "frozen control", Case(seeds, 300, frozen_control=True), share
            yield "rarely another answer", Case(seeds, 75, shared=0.985, own=0.01, gain=0.01), share
            yield "near 1", Case(seeds, 75, accuracy=0.97), share
            yield "mean of 4", Case(seeds, 200, tasks=4), share
            yield "mean of 4, seeds in common", Case(seeds, 200, tasks=4, common_seeds=True), share
            yield "HM of 2", Case(seeds, 75, tasks=2, figure="harmonic"), share
            yield "mean of 2 HMs", Case(seeds, 75, tasks=2, figure="harmonics"), share


def _normal(
    generator: np.random.Generator, shape: int | tuple[int, ...]
) -> npt.NDArray[np.float32]:
    return generator.standard_normal(shape, dtype=np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    print("| figure | seeds | test images | seeds' share of the variance | coverage | width |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, case, share in cases():
        coverage, width = measure(with_share(case, share), options.repeats)
        cells = name, case.seeds, case.images, f"{share:g}", f"{coverage:.3f}", f"{width:.1f}"
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
