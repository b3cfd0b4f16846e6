"""Run the demo for several seeds; print the README's table and draw its picture.

    python tools/make_demo_figures.py --seeds 1 2 3

Writes docs/images/demo.png and each seed's report below build/.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from promptot.experiments.demo import GROUP, Outcome, run_demo
from promptot.reports import Measure, Row, Table, markdown_table, write_picture

KEYS = ("base", "novel", "harmonic_mean", "retention", "off_diagonal_mass", "seconds")


def value(outcome: Outcome, key: str) -> float | None:
    """One figure of one method, None where there is none."""
    measure = outcome.row().measure(key)
    return None if measure is None else measure.value


def combine(outcomes: list[Outcome]) -> Row:
    """Mean over seeds, with the least and the greatest as the interval."""
    measures: dict[str, Measure | None] = {}
    for key in KEYS:
        values = [v for v in (value(outcome, key) for outcome in outcomes) if v is not None]
        measures[key] = (
            Measure(statistics.mean(values), (min(values), max(values))) if values else None
        )
    return Row(outcomes[0].name, measures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--picture", type=Path, default=Path("docs/images/demo.png"))
    arguments = parser.parse_args()

    demos = []
    for seed in arguments.seeds:
        demos.append(run_demo(Path("build") / f"demo-{seed}", seed))
        print(f"seed {seed}: {demos[-1].seconds:.1f} s", flush=True)
        print(markdown_table(demos[-1].table), flush=True)
    rows = [combine([demo.outcomes[i] for demo in demos]) for i in range(len(demos[0].outcomes))]
    seeds = ", ".join(map(str, arguments.seeds))
    table = Table(rows, caption=f"Mean over seeds {seeds}; intervals: least to greatest.")
    print(markdown_table(table))
    write_picture(
        table,
        arguments.picture,
        title=f"A small CLIP, adapted to drawings of {GROUP}",
        subtitle=f"Accuracy on a style never seen; mean, least and greatest of seeds {seeds}",
    )


if __name__ == "__main__":
    main()
