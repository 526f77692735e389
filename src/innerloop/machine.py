"""The machine: versions, devices, and the peak memory of a process.

environment   versions, device and threads that numbers depend on
extras        innerloop's extras, and the packages that each lacks
commit        of the source
chosen_device    `auto` is CUDA where there is one
AUTO_TOKENS_PER_FORWARD    tokens that keep a kind of device busy
reset_peak_memory, peak_memory    measured peaks
"""

import importlib.metadata
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from innerloop.errors import Fault, UserError

PACKAGES = ("innerloop", "torch", "transformers", "peft", "numpy", "safetensors")
# On two cores 1,024 tokens per forward pass were slower than 512 and took 1.5 times the memory (benchmarks/step.py).
# A GPU is assumed, not measured, to be busy from about 8,192 on.
AUTO_TOKENS_PER_FORWARD = {"cpu": 512, "cuda": 8192}
GROUPS = ("innerloop.methods", "innerloop.verifiers")  # of entry points, as `innerloop.plugins` reads them


def environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES} | _that_add_to_ours(),
    }


def _that_add_to_ours() -> dict[str, str]:
    """Packages that add methods or verifiers."""
    points = [point for group in GROUPS for point in importlib.metadata.entry_points(group=group)]
    return {point.dist.name: point.dist.version for point in points if point.dist}


def extras() -> dict[str, list[str]]:
    """Name of an extra -> its packages that are not installed."""
    found: dict[str, list[str]] = {}
    for text in importlib.metadata.requires("innerloop") or []:
        requirement = Requirement(text)
        for extra in importlib.metadata.metadata("innerloop").get_all("Provides-Extra") or []:
            if (
                requirement.marker
                and not requirement.marker.evaluate()
                and requirement.marker.evaluate({"extra": extra})
            ):
                missing = found.setdefault(extra, [])
                if not _is_installed(requirement.name):
                    missing.append(requirement.name)
    return found


def _is_installed(package: str) -> bool:
    with suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(package))
    return False


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


def chosen_device(name: str) -> str:
    """`auto` is CUDA where there is one. Raises UserError for a device that is not here."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(Fault("no CUDA device is here", "model.device", name, "cpu or auto"))
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
