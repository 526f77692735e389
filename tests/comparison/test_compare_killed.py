"""Whatever is killed on the way, no finished cell and no finished piece is lost, and no number changes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any, NamedTuple

import pytest

from innerloop.comparison.compare import Progress, begin, compare, read_results
from innerloop.errors import UserError
from innerloop.report.front import answer_lines
from innerloop.results.schema import Results
from small_matrices import matrix_file, run_here, scores_of
from small_runs import Cli, World, files_of

FIRST, SECOND = "base-1", "meta-lora-tokens-1"
STORY = {
    "arms": {"base": {}, "meta-lora": {"outer": {"tasks_per_step": 1}}},
    "budgets.tokens": 6000,  # half a second of training: time to be killed in
    "cost_only": {"arms": {}},
}
TIMES = {"seconds", "tokens_per_second", "peak_bytes", "started", "host", "timing"}


def test_what_was_killed_goes_on_and_changes_no_number(
    cli: Cli, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the comparison's own process ends, in the second cell's training; then that cell's, in its scoring.

    One test: what it looks at took half a minute to come about.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in this process: threads would change the last digit
    file, folder = matrix_file(world, tmp_path, STORY), tmp_path / "comparison"

    kill_the_comparison(file, folder)
    first, partial = files_of(folder), read_results(folder)
    assert json.loads(first[f"cells/{SECOND}/run/manifest.json"])["status"] == "interrupted"
    assert any("/checkpoints/step-" in name for name in first), "the cell's own process saved what it had reached"
    assert cells_of(partial) == {"base": "done", "meta-lora": "missing"}
    assert partial.status == "partial"
    said = cli("report", folder, "--json")
    assert said.code == 0, said.err
    written = [Path(path) for path in json.loads(said.out)["written"]]
    assert written[:2] == [folder / "report.html", folder / "report.md"]
    assert all(path.stat().st_size for path in written)
    assert "no result yet" in written[1].read_text()
    assert {name: content for name, content in files_of(folder).items() if name in first} == first

    failed, progress = kill_the_second_cell(file, folder)
    second = files_of(folder)
    assert {(at.cell, at.number, at.cells) for at in progress} == {(SECOND, 1, 1)}, "the first is done"
    assert cells_of(failed) == {"base": "done", "meta-lora": "failed"}
    reasons = [row.reason for row in failed.rows]
    assert reasons == ["", "its process was ended by SIGKILL, as when memory runs out"]
    assert {score.arm for score in failed.scores} == {"base"}, "a failed cell's pieces are no scores"
    assert json.loads(second["results.json"]) == failed.contents()

    said = cli("compare", file, "--output", folder)
    assert said.code == 0, said.err
    results = Results.read(folder / "results.json")
    head, *lines = said.out.splitlines()
    assert head == "matrix   small: 2 cells, 1 to run"
    assert lines[-1 - len(answer_lines(results)) :] == [*answer_lines(results), f"wrote {folder / 'report.html'}"]
    assert answer_lines(results)
    third = files_of(folder)
    assert of_cell(first, FIRST) == of_cell(second, FIRST) == of_cell(third, FIRST) != {}, "never run again"
    kept, whole = (of_cell(files, f"{SECOND}/scores") for files in (second, third))
    assert 3 <= len(kept) < len(whole)
    assert kept.items() < whole.items(), "no piece is measured again"
    assert of_cell(second, f"{SECOND}/run") == of_cell(third, f"{SECOND}/run"), "nor is it trained again"
    assert b"no result yet" not in third["report.md"]

    expected = run_here(file, tmp_path / "uninterrupted")
    assert cells_of(results) == {"base": "done", "meta-lora": "done"}
    assert numbers(results, folder) == numbers(expected.results, expected.folder)
    assert numbers(failed, folder) != numbers(expected.results, expected.folder), "they can differ"
    for cell in (FIRST, SECOND):
        assert scores_of(folder / "cells" / cell) == scores_of(expected.cell(cell))


def test_the_process_of_a_cell_says_what_it_does_and_why_it_failed(world: World, tmp_path: Path) -> None:
    folder, tasks = tmp_path / "comparison", Path(shutil.copytree(world.tasks, tmp_path / "tasks"))
    begin(matrix_file(world, tmp_path, {**STORY, "runs.every.tasks.folder": str(tasks)}), folder)
    shutil.rmtree(tasks)
    argv = [sys.executable, "-m", "innerloop.comparison.cells", str(folder), FIRST]
    with subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as cell:
        assert cell.wait() == 2
        assert cell.stdout is not None
        assert cell.stderr is not None
        stages = [(line["cell"], line["stage"]) for line in map(json.loads, cell.stdout)]
        assert stages[0] == (FIRST, "scoring")
        assert (FIRST, "reading the tasks") in stages
        said = cell.stderr.read()
    assert str(tasks) in said
    assert "Traceback" not in said
    assert not (folder / "cells" / FIRST / "result.json").exists(), "the comparison writes it"


def test_a_cell_that_was_asked_to_stop_has_a_reason(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    begun = begin(matrix_file(world, tmp_path, STORY), folder)
    stopped = begun._replace(missing=[cell for cell in begun.missing if cell.name == SECOND])

    def on_progress(at: Progress) -> None:
        pid = child_of(os.getpid(), SECOND)
        if pid is not None and at.stage == "training" and at.done == 1:
            os.kill(pid, signal.SIGTERM)

    compare(stopped, folder, on_progress)
    said = json.loads((folder / "cells" / SECOND / "result.json").read_text())
    assert said["status"] == "failed"
    assert said["reason"] == "stopped by SIGTERM; what it had reached is kept"


def kill_the_comparison(file: Path, folder: Path) -> None:
    """In the second cell's training. Meanwhile another start in the folder is refused; then the cell's process ends."""
    argv = [sys.executable, "-m", "innerloop", "compare", str(file), "--output", str(folder)]
    metrics = folder / "cells" / SECOND / "run" / "metrics.jsonl"
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        wait_for((folder / "cells" / FIRST / "log.txt").exists)
        with pytest.raises(UserError, match="another comparison is at work in this folder"):
            compare(begin(file, folder), folder, lambda at: None)
        wait_for((folder / "cells" / SECOND / "log.txt").exists)
        cell = wait_for(lambda: child_of(parent.pid, SECOND))
        wait_for(lambda: metrics.exists() and metrics.read_text(), pause=0.001)
        os.kill(cell, signal.SIGSTOP)  # it can't be done with its training before its parent is gone
        parent.kill()
        parent.wait()
        os.kill(cell, signal.SIGCONT)
    wait_for(lambda: all(each.pid != cell or "Z" in each.state for each in processes()), seconds=10)


def kill_the_second_cell(file: Path, folder: Path) -> tuple[Results, list[Progress]]:
    """In its scoring, behind the third piece. The results, and what was said on the way."""
    said: list[Progress] = []
    pid: int | None = None

    def on_progress(at: Progress) -> None:
        nonlocal pid
        said.append(at)
        if (at.cell, at.stage) == (SECOND, "loading the model"):
            pid = child_of(os.getpid(), SECOND)
        if (at.cell, at.stage, at.done) == (SECOND, "scoring", 3):
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    return compare(begin(file, folder), folder, on_progress), said


def cells_of(results: Results) -> dict[str, str]:
    return {row.arm: row.status for row in results.rows}


def of_cell(files: dict[str, bytes], place: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.startswith(f"cells/{place}/")}


def numbers(results: Results, folder: Path) -> Any:
    """All but times and places."""

    def untimed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: untimed(inside) for name, inside in value.items() if name not in TIMES}
        return [untimed(each) for each in value] if isinstance(value, list) else value

    return untimed(json.loads(json.dumps(results.contents()).replace(str(folder), "DIR")))


class Process(NamedTuple):
    pid: int
    parent: int
    state: str
    command: str


def processes() -> list[Process]:
    """`ww`: whole command lines."""
    argv = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    said = subprocess.run(argv, capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in said.stdout.splitlines()]
    return [Process(int(row[0]), int(row[1]), row[2], row[3]) for row in rows if len(row) == 4]


def child_of(parent: int, cell: str) -> int | None:
    return next((each.pid for each in processes() if each.parent == parent and each.command.endswith(cell)), None)


def wait_for(what: Callable[[], Any], *, seconds: float = 60, pause: float = 0.02) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(pause)
    raise AssertionError("waited in vain")
