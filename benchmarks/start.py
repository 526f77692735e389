"""Seconds from the command to the first step of SmolLM2-135M, with warm caches, and to the plan of a larger model.

    python benchmarks/start.py --output benchmarks/results/NAME.json

`innerloop train examples/demo.yaml` with one outer step, each time in a process and an output folder of its own, as a
user would call it. One run that isn't counted fills the caches. Seconds are those of a clock beside the process: the
step has begun when run.yaml is there, the last file that is written before it, and has ended when metrics.jsonl has
its first line. The step that is timed is the one that the command takes, with its measurement of memory.

`innerloop plan` of fomaml on Llama-3.2-1B: one setting (--device h200), and the search for one that fits (--device
rtx4090 --budget 13GB, which the fourth setting does).
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from record import header, write_result

CONFIG = Path(__file__).parents[1] / "examples" / "demo.yaml"
POLL = 0.01  # seconds between two looks
LIMIT = 600.0  # seconds until a run counts as stuck
SAID = {  # (in words, what is aimed at)
    "began": ("`train`: seconds to the first step", "at most 12"),
    "ended": ("seconds to its end", ""),
    "cpu": ("seconds of CPU, the whole run", ""),
    "plan": ("`plan`: seconds for one setting", "at most 8"),
    "budget": ("seconds for a setting that fits", "at most 20"),
    "plan_gb": ("peak RSS, GB", "below 1.5"),
}
LLAMA = """\
model: {name: meta-llama/Llama-3.2-1B, dtype: bfloat16}
tasks: {suite: hidden-rules, held_out: [affine]}
method: {name: fomaml}
output_dir: unused
"""
PLANS = {"plan": ["--device", "h200"], "budget": ["--device", "rtx4090", "--budget", "13GB"]}


def start(folder: Path) -> dict[str, float]:
    """Seconds until the first step began and ended; cpu: the whole run's, of all threads."""
    command = [sys.executable, "-m", "innerloop", "train", str(CONFIG)]
    command += ["--set", "outer.steps=1", "--set", f"output_dir={folder}"]
    before, started = _cpu_of_children(), time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        began = _wait(child, started, lambda: (folder / "run.yaml").exists())
        ended = _wait(child, started, lambda: "\n" in (folder / "metrics.jsonl").read_text())
    except BaseException:
        child.kill()
        raise
    finally:
        code = child.wait()
    if code:
        raise SystemExit(f"innerloop train ended with {code}")
    return {"began": began, "ended": ended, "cpu": _cpu_of_children() - before}


def plan(folder: Path) -> dict[str, float]:
    config = folder / "llama.yaml"
    config.write_text(LLAMA)
    seconds: dict[str, float] = {}
    for name, options in PLANS.items():
        started = time.perf_counter()
        command = [sys.executable, "-m", "innerloop", "plan", str(config), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds[name] = time.perf_counter() - started
    return seconds


def _wait(child: "subprocess.Popen[bytes]", started: float, done: Callable[[], bool]) -> float:
    while not done():
        if (child.poll() is not None and not done()) or time.perf_counter() - started > LIMIT:
            raise SystemExit(f"no first step: innerloop train ended with {child.poll()}")
        time.sleep(POLL)
    return time.perf_counter() - started


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start_table(results: dict[str, Any]) -> list[str]:
    lines = ["| | median | least to greatest | aim |", "|---|--:|--:|--:|"]
    for what, (said, aim) in SAID.items():
        values = [run[what] for run in results["runs"]]
        lines.append(f"| {said} | {statistics.median(values):.1f} | {min(values):.1f} to {max(values):.1f} | {aim} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with TemporaryDirectory() as folder:
        plans = [plan(Path(folder)) for _ in range(options.repeats)]
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # of the largest of them
        starts = [start(Path(folder) / str(number)) for number in range(options.repeats + 1)][1:]
    runs = [{**one, **other, "plan_gb": peak} for one, other in zip(starts, plans, strict=True)]
    results = header() | {"load_before": load, "runs": runs}
    print("\n".join(start_table(results)))
    if options.output:
        write_result(options.output, results)


if __name__ == "__main__":
    main()
