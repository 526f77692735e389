"""What is said of the machine is so: versions, extras, the commit, and peaks that are the process's own."""

import os
import resource
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from innerloop import machine
from innerloop.machine import commit, environment, extras, peak_memory, reset_peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_a_peak_is_that_since_the_last_reset() -> None:
    held = torch.ones(128, 1024, 1024)  # 512 MiB
    before = peak_memory()["rss"]
    del held
    reset_peak_memory()
    assert peak_memory()["rss"] < before - 200 * 1024**2


def test_the_environment_is_what_a_number_depends_on() -> None:
    said = environment()
    assert said["threads"] == torch.get_num_threads()
    assert said["packages"]["torch"] == torch.__version__
    assert set(said["packages"]) >= {"innerloop", "transformers", "peft"}


OWN_PEAK = """
from innerloop.machine import peak_memory
print(peak_memory()["rss"])
"""
OF_GETRUSAGE = """
import resource
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands a parent's peak on")
def test_a_peak_is_not_the_parents() -> None:
    held = torch.ones(256, 1024, 1024)  # 1 GiB, more than a process has that imports torch
    parents = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert parents > held.nbytes

    def said(code: str) -> int:
        return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

    assert said(OWN_PEAK) < held.nbytes
    assert said(OF_GETRUSAGE) >= held.nbytes  # though that process imported nothing


def test_peak_memory_is_in_bytes() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 1
    assert peak_memory()["rss"] >= pages * os.sysconf("SC_PAGE_SIZE") * 0.99
    assert peak_memory()["rss"] < 2**40


def test_extras_are_those_of_the_project_and_what_is_missing_is_not_here() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    found = extras()
    assert found.keys() <= project["optional-dependencies"].keys()
    assert "ruff" not in found["dev"], "these tests run beside it"
    for package in (package for missing in found.values() for package in missing):
        assert find_spec(package.replace("-", "_")) is None


def test_the_commit_is_that_of_the_source_or_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = commit()
    command = ["git", "-C", str(Path(machine.__file__).parent), "rev-parse", "--short", "HEAD"]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    assert said.startswith(known[:7] or "unknown")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() == "unknown: not a git checkout"
