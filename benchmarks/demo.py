"""The demo with three seeds: does META-LORA beat Std LoRA at equal adaptation on two thirds of the unseen tasks?

    python benchmarks/demo.py --folder /tmp/demo --output benchmarks/results/NAME.json

Each seed is a process of its own, as `make demo` runs it; a seed whose result is in the folder is not run again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from record import header, write_result

SEEDS = (1, 2, 3)
DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in SEEDS:
        result = options.folder / f"seed-{seed}.json"
        if not result.exists():
            run = [sys.executable, str(DEMO), "--seed", str(seed), "--json", str(result)]
            subprocess.run([*run, "--output", str(options.folder / f"run-{seed}")], check=True)
        runs.append(json.loads(result.read_text()))
        print(f"seed {seed}: {runs[-1]['seconds'] / 60:.1f} minutes, {runs[-1]['tasks_won']}")
    write_result(options.output, header() | {"runs": runs})


if __name__ == "__main__":
    main()
