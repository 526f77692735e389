"""How often innerloop calls an arm better or worse that is neither: simulated comparisons, decided by its own test.

    python benchmarks/nulls.py --output benchmarks/results/statistics.json    # half a minute

The difference of two arms on task t from training seed s is a_t + b_s + e_ts, all normal with mean 0: what the task
adds, what the seed adds to all tasks alike, and what is left (the two together, support draws, test examples).

rows          a row for each number of tasks and seeds and each spread
controls      the same of one seed and a bootstrap over its tasks, as 0.1.0 decided
nulls_table   a table of them for docs/measurements.md
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from record import header, write_result

from innerloop.results.statistics import Spread, Values, bounds, detectable_effect, sides

SPREADS = (Spread(1, 0.1, 0.3), Spread(0.1, 1, 0.3), Spread(1, 1, 1), Spread(0.1, 0.1, 1), Spread(1.2, 0.7, 0.6))
TASKS, SEEDS = (6, 12, 24), (3, 5)
NULLS, AT_ONCE = 40_000, 10_000
RESAMPLED, REPLICATES = 2000, 1000
WORST, MEAN = 0.08, 0.06  # aimed at, of a cell and of all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--nulls", type=int, default=NULLS, help=f"comparisons simulated for each cell; {NULLS}")
    options = parser.parse_args()
    found = list(rows(options.nulls))
    rates = [row["false_positive_rate"] for row in found]
    summary = {"worst": max(rates), "mean": sum(rates) / len(rates), "aims": {"worst": WORST, "mean": MEAN}}
    old = list(controls(min(options.nulls, RESAMPLED)))
    write_result(options.output, header() | summary | {"rows": found, "controls": old})


def rows(nulls: int) -> Iterator[dict[str, Any]]:
    """detectable: the true difference that is promised to be found 4 times in 5; found: how often it was."""
    rng = np.random.default_rng(0)
    for spread in SPREADS:
        for tasks in TASKS:
            for seeds in SEEDS:
                effect = detectable_effect(spread, tasks=tasks, seeds=seeds)
                called = found = 0
                for start in range(0, nulls, AT_ONCE):
                    tables = simulated(rng, spread, min(AT_ONCE, nulls - start), tasks, seeds)
                    called += int(np.count_nonzero(sides(bounds(tables))))
                    found += int(np.count_nonzero(sides(bounds(tables + effect)) == 1))
                row = {"tasks": tasks, "seeds": seeds, "spread": list(spread), "nulls": nulls}
                row |= {"false_positive_rate": called / nulls, "detectable": effect, "found": found / nulls}
                yield row
                print(row, flush=True)


def controls(nulls: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for spread in SPREADS:
        for tasks in TASKS:
            tables = simulated(rng, spread, nulls, tasks, 1)[:, :, 0]
            called = sum(_leaves_out_0(rng, table) for table in tables)
            yield {
                "tasks": tasks,
                "seeds": 1,
                "spread": list(spread),
                "nulls": nulls,
                "false_positive_rate": called / nulls,
            }


def _leaves_out_0(rng: np.random.Generator, differences: Values) -> bool:
    drawn = rng.integers(len(differences), size=(REPLICATES, len(differences)))
    low, high = np.quantile(differences[drawn].mean(1), [0.025, 0.975])
    return bool(low > 0 or high < 0)


def simulated(rng: np.random.Generator, spread: Spread, count: int, tasks: int, seeds: int) -> Values:
    """Tables (count, tasks, seeds) of differences whose true mean is 0."""
    tables = spread.both * rng.normal(size=(count, tasks, seeds))
    tables += spread.tasks * rng.normal(size=(count, tasks, 1))
    return tables + spread.seeds * rng.normal(size=(count, 1, seeds))


def nulls_table(found: dict[str, Any]) -> list[str]:
    """A row a spread, a column for each number of tasks and seeds; then the detectable effects, in the same order."""
    cells = {(row["tasks"], row["seeds"]): None for row in found["rows"]}
    heads = " | ".join(f"{tasks} tasks, {seeds} seeds" for tasks, seeds in cells)
    spreads = dict.fromkeys(tuple(row["spread"]) for row in found["rows"])
    by_cell = {(tuple(row["spread"]), row["tasks"], row["seeds"]): row for row in found["rows"]}
    lines = []
    for title, show in (
        ("nulls called better or worse; spread of tasks, seeds, both", lambda row: f"{row['false_positive_rate']:.3f}"),
        ("detectable effect, and how often it was found", lambda row: f"{row['detectable']:.2f}, {row['found']:.2f}"),
    ):
        lines += [f"| {title} | {heads} |", "|---|" + "--:|" * len(cells)]
        for spread in spreads:
            values = " | ".join(show(by_cell[spread, *cell]) for cell in cells)
            lines.append(f"| {', '.join(f'{part:g}' for part in spread)} | {values} |")
        lines.append("")
    known = dict.fromkeys(row["tasks"] for row in found["controls"])
    by_tasks = {(tuple(row["spread"]), row["tasks"]): row["false_positive_rate"] for row in found["controls"]}
    heads = " | ".join(f"{tasks} tasks" for tasks in known)
    lines += [f"| nulls called so by a bootstrap over tasks, one seed | {heads} |", "|---|" + "--:|" * len(known)]
    for spread in dict.fromkeys(tuple(row["spread"]) for row in found["controls"]):
        values = " | ".join(f"{by_tasks[spread, tasks]:.3f}" for tasks in known)
        lines.append(f"| {', '.join(f'{part:g}' for part in spread)} | {values} |")
    lines.append("")
    count, aims = found["rows"][0]["nulls"], found["aims"]
    told = f"{count:,} nulls a cell. Worst cell {found['worst']:.3f} (aim: at most {aims['worst']})"
    return [*lines, f"{told}, mean {found['mean']:.3f} (at most {aims['mean']})."]
