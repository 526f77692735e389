"""Row: inputs that nobody should trust. The work is hostile/'s.

hostile   its corpus, and drawn files and configs
summed    its result -> the row
"""

import json
import os
import subprocess
import sys
from typing import Any

from robustness.faulty.bench import Bench, Tally

MODULE = "robustness.hostile"


def hostile(bench: Bench, *, count: int = 100_000) -> Tally:
    """In a process of its own, which it limits. count: drawn inputs of each kind."""
    found = bench.folder / "hostile.json"
    command = [sys.executable, "-m", MODULE, "--count", str(count), "--output", str(found)]
    process = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if not found.exists():
        raise RuntimeError(f"{MODULE} ended with {process.returncode}:\n{process.stderr[-2000:]}")
    return summed(json.loads(found.read_text()))


def summed(found: dict[str, Any]) -> Tally:
    """accepted: inputs that were neither read rightly nor refused in words. No run is gone on with here."""
    tally, parts = Tally(), {name: found[name] for name in ("cases", "reader", "config")}
    for name, part in parts.items():
        failed = part["failed"] if "failed" in part else part["failures"]  # of many, the first are described
        tally.tried += part["count"] - part.get("skipped", 0)
        tally.accepted += len(failed) if "failed" not in part else part["failures"]
        tally.wrong += [f"{name}: {json.dumps(failure)[:500]}" for failure in failed]
        tally.details[name] = {key: part.get(key, 0) for key in ("count", "read", "refused", "skipped")}
    tally.details |= dict.fromkeys(("resumed", "equal", "lost"))
    return tally
