"""What a run writes about itself: manifest.json (what it is) and metrics.jsonl (what happened, a line a step).

Journal       one run's two files
environment   versions, device and threads: what a number depends on
commit        which source it was
reset_peak_memory, peak_memory    measured peaks
write_text    a file appears whole or not at all
occupied, empty_folder    whether a new run can have a folder, and that folder
read_manifest   what an earlier start said in it
"""

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from innerloop.errors import Fault, Faults, UserError
from innerloop.files import LOCK, MANIFEST, is_leftover, make_folder, write_whole

METRICS = "metrics.jsonl"
GO_ON = "resume=True, or innerloop train with --resume auto"
PACKAGES = ("innerloop", "torch", "transformers", "peft", "numpy", "safetensors")


class Journal:
    """Opens a run's folder, which exists; the caller holds its lock.

    Two equal runs have equal manifests and metrics, those parts aside that say `host` or `timing`.

    metrics: the lines of the steps that are behind.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], *, metrics: str = "") -> None:
        self.folder, self.metrics = folder, metrics
        self._manifest: dict[str, Any] = {"status": "running", **manifest}
        self._write_manifest()
        write_text(folder / METRICS, metrics)
        self._file = (folder / METRICS).open("a", encoding="utf-8")

    def record(self, **values: Any) -> None:
        """One line of metrics.jsonl."""
        line = json.dumps(values) + "\n"
        self.metrics += line
        self._file.write(line)
        self._file.flush()

    def finish(self, status: str, **values: Any) -> None:
        """The last word, with what was measured; sections that are there already get more entries."""
        self._file.close()
        write_text(self.folder / METRICS, self.metrics)
        for key, value in values.items():
            known = self._manifest.get(key)
            self._manifest[key] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
        self._manifest["status"] = status
        self._write_manifest()

    def _write_manifest(self) -> None:
        write_text(self.folder / MANIFEST, json.dumps(self._manifest, indent=2) + "\n")


def occupied(folder: Path) -> list[Fault]:
    """Why no new run can have this folder; nothing where it is empty or isn't there yet. Makes none."""
    right = "a folder that doesn't exist yet, or an empty one"
    try:
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        names = set[str]()
        if folder.exists():
            names = {path.name for path in folder.iterdir() if not is_leftover(path)} - {LOCK}
        elif not above.is_dir():
            return [Fault(f"no folder for a run: {above} is a file", "output_dir", str(folder), right)]
        if not names and not os.access(above, os.W_OK | os.X_OK):
            return [Fault(f"no folder for a run: {above} can't be written to", "output_dir", str(folder), right)]
    except OSError as error:
        return [Fault(f"no folder for a run: {error.strerror}", "output_dir", str(folder), right)]
    if not names:
        return []
    with suppress(UserError):
        said = read_manifest(folder)
        if said is not None and said["status"] != "done":
            right = f"{GO_ON}; or {right}"
    return [Fault("this folder is not empty", "output_dir", str(folder), right)]


def empty_folder(folder: Path) -> None:
    """Makes a folder for a new run. Raises UserError where it holds something: nothing is overwritten."""
    Faults(occupied(folder)).raise_if_any()
    try:
        make_folder(folder)
    except OSError as error:
        problem = f"no folder for a run: {error.strerror}"
        raise UserError(Fault(problem, "output_dir", str(folder), "a folder that can be made")) from None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """None where a run never got as far. Raises UserError for a file that no run wrote."""
    path = folder / MANIFEST
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(Fault(f"not a manifest: {error}", str(path))) from None
    if not isinstance(said, dict) or not {"status", "config", "model"} <= said.keys():
        raise UserError(Fault("not a manifest", str(path), expected="what a run wrote"))
    return said


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
