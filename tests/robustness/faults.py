"""What becomes of a run that is struck: killed, signalled, refused by the disk, or read back from damaged files.

    export PYTHONPATH=tests:benchmarks
    python -m robustness.faults --output benchmarks/results/faults.json                  (an hour on one core)
    python -m robustness.faults --rows kills --output benchmarks/results/faults.json     (one row; the others stay)
    python -m robustness.faults --table                                                  (of that file)

A run is `innerloop train run.yaml`, in a process of its own, on a model of two layers: every method, with dropout,
8-bit optimizers, several chunks a step, several adapters. It is struck, `innerloop train run.yaml --resume auto` goes
on with it, and its folder is compared with that of a run that nothing happened to: tensors byte for byte, metrics and
manifest but for `timing` and `host`.

kills      SIGKILL, as many in each phase; a quarter are killed again while they go on
fresh      SIGKILL of `python -m innerloop`, its imports included (the other rows fork a process that has them)
signals    SIGTERM, SIGINT, SIGUSR1 in each phase, alone and with a second one: exit 75 within 10 s
writes     every call that changes a file fails, one run for each: ENOSPC and EIO, once and from there on (disk.c)
renames    every rename fails, raw system calls of Rust too (strace)
full       a tmpfs with too little room
crashes    power is lost: what was not flushed is gone (replay.py); 20 of the folders that eight runs can leave
damage     each file of a checkpoint truncated, and its bits flipped
hostile    configs, data and models that nobody should trust (hostile/)

tried: faults; resumed: runs that went on to their end; equal: with the uninterrupted result; data lost: saved steps
taken again or files missing; corrupt accepted: damaged files read as sound, or wrong results called done.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustness.faulty import crashes, damage, full, hostile_row, kills
from robustness.faulty.bench import Bench, Tally

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"
EACH_STEP = ("each step", "each step, all", "each step, adapters", "each step, kept")

ROWS: dict[str, Callable[[Bench], Tally]] = {
    "kills": kills.kills,
    "fresh": kills.fresh,
    "signals": kills.signals,
    "writes": full.writes,
    "renames": full.renames,
    "full": full.full,
    "crashes": lambda bench: crashes.crashes(bench, names=EACH_STEP, at_most=20),
    "damage": damage.damage,
    "hostile": hostile_row.hostile,
}
WORDS = {
    "kills": "SIGKILL, uniform over phases",
    "fresh": "SIGKILL of fresh processes",
    "signals": "SIGTERM, SIGINT, SIGUSR1 in each phase",
    "writes": "ENOSPC, EIO at each call",
    "renames": "ENOSPC, EIO at each rename",
    "full": "a full tmpfs",
    "crashes": "power lost, unflushed data gone",
    "damage": "checkpoints cut and bit-flipped",
    "hostile": "hostile inputs",
}


def faults_table(results: dict[str, Any]) -> list[str]:
    """Markdown lines; rows that were not run are left out."""
    lines = [
        "| faults | tried | resumed | equal | data lost | corrupt accepted | answered wrongly |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in results["rows"].items():
        if "skipped" in row:
            lines.append(f"| {WORDS[name]} | skipped: {row['skipped']} | | | | | |")
            continue
        numbers = (_number(row[key]) for key in ("tried", "resumed", "equal", "lost", "accepted", "wrong"))
        lines.append(f"| {WORDS[name]} | {' | '.join(numbers)} |")
    if phases := results["rows"].get("kills", {}).get("phases"):
        lines += ["", "| phase | kills |", "|---|--:|", *(f"| {name} | {count} |" for name, count in phases.items())]
    return lines


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def run_row(name: str, folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    with Bench(folder) as bench:
        found = ROWS[name](bench).facts()
        environment = bench.server.call("record:header")
    return {**found, "seconds": round(time.monotonic() - started), "environment": environment}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="rows of it that are not run again stay")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--work", type=Path, help="a folder that is removed first; by default a temporary one")
    parser.add_argument("--table", action="store_true", help=f"only print the table of --output, or of {RESULT.name}")
    options = parser.parse_args()
    if options.table:
        print("\n".join(faults_table(json.loads((options.output or RESULT).read_text()))))
        return
    rows = json.loads(options.output.read_text())["rows"] if options.output and options.output.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.rows:
            rows[name] = run_row(name, options.work or Path(temporary) / "work")
            print(json.dumps({name: rows[name]}, indent=2), flush=True)
            if options.output:
                options.output.parent.mkdir(parents=True, exist_ok=True)
                whole = {"rows": {key: rows[key] for key in WORDS if key in rows}}
                options.output.write_text(json.dumps(whole, indent=2) + "\n")
    print("\n".join(faults_table({"rows": rows})))


if __name__ == "__main__":
    main()
