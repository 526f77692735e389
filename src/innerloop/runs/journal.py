"""What a run writes about itself: manifest.json (what it is) and metrics.jsonl (what happened, a line a step).

Journal       one run's two files
environment   versions, device and threads: what a number depends on
commit        which source it was
reset_peak_memory, peak_memory    measured peaks
write_text    a file appears whole or not at all
"""

import importlib.metadata
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from innerloop.errors import Fault, UserError
from innerloop.files import write_whole

MANIFEST, METRICS = "manifest.json", "metrics.jsonl"
PACKAGES = ("innerloop", "torch", "transformers", "peft", "numpy", "safetensors")


class Journal:
    """Opens `folder` for a new run. Raises UserError when it already holds something: nothing is overwritten."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        right = "a folder that doesn't exist yet, or an empty one"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = any(folder.iterdir())
        except OSError as error:
            problem = f"no folder for a run: {error.strerror}"
            raise UserError(Fault(problem, "output_dir", str(folder), right)) from None
        if taken:
            raise UserError(Fault("this folder is not empty", "output_dir", str(folder), right))
        self.folder = folder
        self._manifest: dict[str, Any] = {"status": "running", **manifest, "environment": environment()}
        self._write_manifest()
        self._metrics = (folder / METRICS).open("w", encoding="utf-8")

    def record(self, **values: Any) -> None:
        """One line of metrics.jsonl, on disk when this returns."""
        self._metrics.write(json.dumps(values) + "\n")
        self._metrics.flush()

    def finish(self, status: str, **values: Any) -> None:
        """The last word: "done" or "failed", with what was measured."""
        self._manifest |= {"status": status, **values}
        self._write_manifest()
        self._metrics.close()

    def _write_manifest(self) -> None:
        write_text(self.folder / MANIFEST, json.dumps(self._manifest, indent=2) + "\n")


def environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def peak_memory() -> dict[str, int]:
    """Measured peaks of this process since the last reset, in bytes: resident set, and CUDA allocated and reserved."""
    peaks = {"rss": _peak_resident()}
    if torch.cuda.is_available():
        peaks |= {
            "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
        }
    return peaks


def _peak_resident() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux is inherited from the parent, and no reset reaches it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024


def commit() -> str:
    """Of the source that runs, where that is a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a git checkout"


def reset_peak_memory() -> None:
    """Peaks count from here on where the system can forget the earlier ones: CUDA, and Linux's resident set."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    write_whole(path, text.encode("utf-8"))
