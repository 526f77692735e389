"""The demo with three seeds: every arm under every adaptation, and how far the differences can be trusted.

    python benchmarks/demo.py --folder /tmp/demo --output benchmarks/results/demo.json

Each seed is a process of its own, as `make demo` runs it; a seed whose result is in the folder is not run again. The
primary contrast is named here, before anything runs; all others are exploratory.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from record import header, write_result

from innerloop.results.statistics import interval, verdict

SEEDS = (1, 2, 3)
PRIMARY = ("META-LORA, tuned", "joint LoRA, tuned", "nats")
ORDER = ("no step", "META-LORA's", "tuned", "in context")
DEMO = Path(__file__).parents[1] / "examples" / "demo.py"

Run = dict[str, Any]  # what examples/demo.py writes of one seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    for seed in SEEDS:
        result = options.folder / f"seed-{seed}.json"
        if not result.exists():
            run = [sys.executable, str(DEMO), "--seed", str(seed), "--json", str(result)]
            subprocess.run([*run, "--output", str(options.folder / f"run-{seed}")], check=True)
        runs.append(json.loads(result.read_text()))
        print(f"seed {seed}: {runs[-1]['seconds'] / 60:.1f} minutes")
    contrasts = compared(runs)
    for row in contrasts:
        low, high = row["interval"]
        print(f"{row['metric']:5} {row['one']} - {row['other']}: {row['mean']:+.2f} ({low:+.2f}, {high:+.2f})")
    write_result(options.output, header() | {"means": means(runs), "contrasts": contrasts, "runs": runs})


def means_table(found: dict[str, Any]) -> list[str]:
    """Loss per answer token in nats, and exact answers: a row for each adaptation, a column for each arm."""
    cells = {(row["arm"], row["adaptation"]): row for row in found["means"]}
    arms = list(dict.fromkeys(arm for arm, _ in cells))
    lines = [f"| adapted | {' | '.join(arms)} |", f"|---{'|--:' * len(arms)}|"]
    for adaptation in ORDER:
        row = [cells[arm, adaptation] for arm in arms]
        both = " | ".join(f"{cell['nats']:.2f} / {cell['exact']:.0%}" for cell in row)
        lines.append(f"| {adaptation} | {both} |")
    return lines


def demo_tables(found: dict[str, Any]) -> list[str]:
    lines = [
        *means_table(found),
        "",
        "| of | against | metric | difference | 95 % interval | |",
        "|---|---|---|--:|---|---|",
    ]
    for row in found["contrasts"]:
        low, high = row["interval"]
        says = f"**primary**: {row['verdict']}" if row["primary"] else f"exploratory: {row['verdict']}"
        ends = f"{row['mean']:+.2f} | {low:+.2f} to {high:+.2f}"
        lines.append(f"| {row['one']} | {row['other']} | {row['metric']} | {ends} | {says} |")
    return lines


def means(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Both metrics of each arm and adaptation, over all seeds and tasks."""
    names = [(cell["arm"], cell["adaptation"]) for cell in runs[0]["cells"]]
    return [
        {
            "arm": arm,
            "adaptation": adaptation,
            **{metric: float(table(runs, f"{arm}, {adaptation}", metric).mean()) for metric in ("nats", "exact")},
        }
        for arm, adaptation in names
    ]


def compared(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The primary contrast, then every two arms under the same adaptation, and the best two ways of each arm."""
    adaptations = list(dict.fromkeys(cell["adaptation"] for cell in runs[0]["cells"]))
    arms = list(dict.fromkeys(cell["arm"] for cell in runs[0]["cells"]))[::-1]
    pairs = [(f"{one}, {how}", f"{other}, {how}") for how in adaptations for one, other in combinations(arms, 2)]
    pairs += [(f"{arm}, tuned", "Std LoRA, in context") for arm in arms]
    rows = [contrast(runs, one, other, metric) for one, other in pairs for metric in ("nats", "exact")]
    return sorted(rows, key=lambda row: not row["primary"])


def contrast(runs: Sequence[Run], one: str, other: str, metric: str) -> dict[str, Any]:
    difference = table(runs, one, metric) - table(runs, other, metric)
    found = interval({str(task): row for task, row in enumerate(difference)})
    tasks, seeds = difference.shape
    says = verdict(found, tasks=tasks, seeds=seeds, higher_is_better=metric == "exact")
    named = {"one": one, "other": other, "metric": metric, "primary": (one, other, metric) == PRIMARY}
    return named | {"mean": found.mean, "interval": [found.low, found.high], "p": found.p, "verdict": says}


def table(runs: Sequence[Run], name: str, metric: str) -> np.ndarray:
    """(tasks, seeds) scores of "arm, adaptation"."""
    cells = [cell for run in runs for cell in run["cells"] if f"{cell['arm']}, {cell['adaptation']}" == name]
    return np.array([[task[metric] for task in cell["tasks"].values()] for cell in cells]).T


if __name__ == "__main__":
    main()
