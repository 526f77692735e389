"""What a run says of itself is on disk, whole, at every moment; nothing that was there is overwritten."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.config.output_dir import empty_folder, read_manifest
from innerloop.errors import UserError
from innerloop.files import LOCK, write_text
from innerloop.machine import environment, peak_memory, reset_peak_memory
from innerloop.runs.journal import Journal
from small_runs import files_of, manifest_of


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_a_peak_is_that_since_the_last_reset() -> None:
    held = torch.ones(128, 1024, 1024)  # 512 MiB
    before = peak_memory()["rss"]
    del held
    reset_peak_memory()
    assert peak_memory()["rss"] < before - 200 * 1024**2


def test_a_run_is_running_until_it_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"
    journal = Journal(folder, {"config": {"seed": 7}})
    begun = manifest_of(folder)
    assert (begun["status"], begun["config"]) == ("running", {"seed": 7})
    assert lines(folder) == []
    journal.record(step=1, loss=0.5)
    assert lines(folder) == [{"step": 1, "loss": 0.5}]
    journal.record(step=2, loss=None)
    assert lines(folder) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]
    journal.finish("done", tokens=12, config={"more": 1})
    assert manifest_of(folder) == {**begun, "status": "done", "tokens": 12, "config": {"seed": 7, "more": 1}}
    assert sorted(files_of(tmp_path)) == ["runs/first/manifest.json", "runs/first/metrics.jsonl"]


def test_the_environment_is_what_a_number_depends_on() -> None:
    said = environment()
    assert said["threads"] == torch.get_num_threads()
    assert said["packages"]["torch"] == torch.__version__
    assert set(said["packages"]) >= {"innerloop", "transformers", "peft"}


def test_what_is_behind_is_there_from_the_start(tmp_path: Path) -> None:
    first = Journal(tmp_path, {})
    for step in (1, 2, 3):
        first.record(step=step)
    again = Journal(tmp_path, {}, metrics="".join(first.metrics.splitlines(keepends=True)[:2]))
    assert lines(tmp_path) == [{"step": 1}, {"step": 2}]
    again.record(step=3, loss=0.5)
    assert lines(tmp_path)[2:] == [{"step": 3, "loss": 0.5}]


def test_an_empty_folder_is_taken_and_a_used_one_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / ".manifest.json.123-0a1b2c3d").write_text("half")  # of a start that was killed
    empty_folder(tmp_path)
    Journal(tmp_path, {"config": {}, "model": {}}).finish("done")
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=r"output_dir: this folder is not empty") as refused:
        empty_folder(tmp_path)
    assert "--resume" not in str(refused.value)
    assert files_of(tmp_path) == before
    hidden = tmp_path / "other"
    hidden.mkdir()
    (hidden / ".notes").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        empty_folder(hidden)
    assert [path.name for path in hidden.iterdir()] == [".notes"]


def test_a_folder_with_an_unfinished_run_says_what_goes_on_with_it(tmp_path: Path) -> None:
    Journal(tmp_path, {"config": {}, "model": {}})
    with pytest.raises(UserError, match=r"expected: resume=True, or .*--resume auto; or a folder"):
        empty_folder(tmp_path)


def test_a_manifest_is_what_a_run_wrote(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is read_manifest(tmp_path / "nowhere") is None
    for text in ("", "{", "[]", '{"status": "done"}', "\udcff"):
        (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(UserError, match="not a manifest"):
            read_manifest(tmp_path)


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="output_dir: no folder for a run"):
            empty_folder(folder)
    assert files_of(tmp_path) == {"file": b"mine"}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3)))
def test_every_record_is_one_line(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("run")
    journal = Journal(folder, {})
    for record in records:
        journal.record(**record)
    journal.finish("done")
    assert lines(folder) == records


OWN_PEAK = """
from innerloop.runs.journal import peak_memory
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


def test_a_text_replaces_the_old_one_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new ü")
    assert files_of(tmp_path) == {"a.txt": "new ü".encode()}
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half a pair: \ud800")
    assert files_of(tmp_path) == {"a.txt": "new ü".encode()}
