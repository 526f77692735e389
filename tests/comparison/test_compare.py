"""A comparison goes on in its folder, tells how each cell failed, and says and reports what it comes to."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from innerloop.comparison import compare as module
from innerloop.comparison.cells import run_cell
from innerloop.comparison.compare import Progress, begin, compare, read_results
from innerloop.errors import UserError
from innerloop.report.front import answer_lines
from innerloop.results.schema import Results
from small_matrices import Compared, matrix_file
from small_runs import Cli, World, files_of


def cells_of(contents: dict[str, Any]) -> dict[str, str]:
    return {row["arm"]: row["status"] for row in contents["rows"]}


def ignore(at: Progress) -> None: ...


# the folder


def test_a_folder_goes_on_with_its_own_matrix_alone(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    path = matrix_file(world, tmp_path)
    first = begin(path, folder)
    before = files_of(folder)
    path.write_text(f"# a comment\n{path.read_text()}\n")
    assert begin(path, folder).missing == first.missing
    with pytest.raises(UserError, match="holds another matrix") as caught:
        begin(matrix_file(world, tmp_path, {"seeds": [2], "budgets.tokens": 3001}), folder)
    assert caught.value.faults[0].where.endswith("matrix.json: budgets, seeds")
    assert files_of(folder) == before


def test_a_folder_of_something_else_is_left_alone(world: World, tmp_path: Path) -> None:
    path, folder = matrix_file(world, tmp_path), tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("three years of work")
    for taken in (folder, folder / "thesis.txt"):
        with pytest.raises(UserError, match="holds something else"):
            begin(path, taken)
    assert files_of(folder) == {"thesis.txt": b"three years of work"}
    for text in ("{", "[]", "{}"):
        (folder / "matrix.json").write_text(text)
        with pytest.raises(UserError, match="not what a comparison wrote"):
            begin(path, folder)
    (tmp_path / "empty").mkdir()
    assert begin(path, tmp_path / "empty").missing


def test_what_it_says_before_it_starts(world: World, tmp_path: Path) -> None:
    begun = begin(matrix_file(world, tmp_path, {"seeds": [1, 5]}), tmp_path / "comparison")
    lines = begun.lines()
    assert lines[0] == "matrix   small: 15 cells, 15 to run"
    assert lines[1] == "arms     base, in-context, lora, joint-lora, fomaml-lora, meta-lora, joint"
    assert lines[2] == "tasks    2 seen, 1 validation, 1 unseen"
    assert lines[3] == "scored   at k = 0, 4; 2 draws, 2 seeds, 3 test examples of each task"
    assert lines[4] == "primary  none is named: every difference will be exploratory"
    few = "nothing about methods from 1 unseen task and 2 training seeds: 2 tasks and 3 seeds are needed"
    assert (lines[5], begun.plan["detectable"]) == (f"detects  {few}", {"assumptions": few})
    assert "valid for these tasks only" in lines[-1]


def test_what_it_can_detect_before_it_starts(world: World, tmp_path: Path) -> None:
    named = {"arm": "meta-lora", "against": "joint-lora", "metric": "nats", "k": 4, "adaptation": "tuned"}
    held_out = {"runs.every.tasks.held_out": ["cy", "bob"], "runs.every.outer.tasks_per_step": 1, "primary": named}
    few = begin(matrix_file(world, tmp_path, {**held_out, "seeds": [1, 5, 6]}), tmp_path / "few")
    nats, lines = few.plan["detectable"]["nats"], few.lines()
    assert lines[4] == "primary  meta-lora against joint-lora: nats, k = 4, tuned, equal tokens"
    assert lines[5] == f"detects  {nats:.2f} nats, no accuracy, 4 times in 5,", "it would take more than 100 %"
    assert few.plan["primary"] == named | {"budget": "tokens"}
    more = begin(matrix_file(world, tmp_path, {**held_out, "seeds": list(range(40))}), tmp_path / "more")
    found = more.plan["detectable"]
    assert 0 < found["nats"] < nats
    assert 0 < found["accuracy"] < 1
    assert more.lines()[5] == f"detects  {found['nats']:.2f} nats, {found['accuracy']:.0%} accuracy, 4 times in 5,"


def test_examples_that_are_in_tasks_of_two_roles_are_told_before_it_starts(world: World, tmp_path: Path) -> None:
    tasks = Path(shutil.copytree(world.tasks, tmp_path / "tasks"))
    source, held_out = (next(tasks.glob(f"{name}.*")) for name in ("ada", "cy"))
    held_out.write_text(held_out.read_text() + source.read_text())
    begun = begin(matrix_file(world, tmp_path, {"runs.every.tasks.folder": str(tasks)}), tmp_path / "comparison")
    (shared,) = begun.plan["overlaps"]
    assert (shared["task"], shared["role"], shared["role_of"], shared["others"]) == (
        "cy",
        "held_out",
        "train",
        ("ada",),
    )
    assert [line for line in begun.lines() if line.startswith("overlap  ") and "task cy" in line]
    assert read_results(tmp_path / "comparison").contents()["overlaps"] == json.loads(
        json.dumps(begun.plan["overlaps"])
    )


def test_a_plan_says_where_its_numbers_come_from(world: World, tmp_path: Path) -> None:
    path, folder = matrix_file(world, tmp_path), tmp_path / "a folder"
    begun = begin(path, folder)
    plan = json.loads((folder / "matrix.json").read_text())
    assert begun.plan == plan
    assert plan["command"] == f"innerloop compare {path} --output '{folder}'"
    assert plan["matrix_yaml"] == path.read_text()
    assert plan["protocol"] == {
        **{"k": [0, 4], "draws": 2, "seeds": [1], "test_examples": 3},
        **{"train": ["ada", "bob"], "validation": ["dee"], "held_out": ["cy"]},
    }
    assert plan["environment"]["packages"]["torch"]
    assert plan["primary"] is None
    assert plan["overlaps"] == []
    assert plan["targets"] == {"nats": 1.0, "accuracy": 0.5}
    assert [cell["cost_only"] for cell in plan["cells"]] == [False] * 7 + [True]


# processes of cells


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


TRACEBACK = "Traceback (most recent call last):\n  File x, line 1\nZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'held_out: no task'; echo 'step 3: the loss is no number' >&2; exit 1", "step 3: the loss is no number"),
        ("printf 'one\\n    value:    2\\n' >&2; exit 2", "one value:    2"),
        (f"echo 'a warning' >&2; echo '{TRACEBACK}' >&2; exit 1", "ZeroDivisionError: division by zero"),
        ("kill -KILL $$", "its process was ended by SIGKILL, as when memory runs out"),
        ("kill -SEGV $$", "its process was ended by SIGSEGV"),
    ],
)
def test_how_a_process_failed_is_the_reason(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    begun = begin(matrix_file(world, tmp_path, {"arms": {"base": {}, "joint-lora": {}}}), tmp_path / "comparison")
    monkeypatch.setattr(module.sys, "executable", fake_python(tmp_path, script))
    results = compare(begun, tmp_path / "comparison", ignore)
    assert {(row.status, row.reason) for row in results.rows} == {("failed", reason)}, "each is tried"
    assert {row.arm for row in results.rows} >= {"base", "joint-lora"}
    assert results.scores == []
    assert Results.read(tmp_path / "comparison" / "results.json") == results
    again = begin(matrix_file(world, tmp_path, {"arms": {"base": {}, "joint-lora": {}}}), tmp_path / "comparison")
    assert again.missing == begun.missing, "a failed cell is tried again"


def test_what_a_process_says_is_passed_on(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = begin(matrix_file(world, tmp_path, {"arms": {"base": {}}, "cost_only": {"arms": {}}}), tmp_path / "c")
    line = json.dumps({"cell": "base-1", "stage": "scoring", "done": 1, "total": 2})
    monkeypatch.setattr(module.sys, "executable", fake_python(tmp_path, f"echo Loading; echo '{line}'; echo '{{}}'"))
    said: list[Progress] = []
    compare(begun, tmp_path / "c", said.append)
    assert said == [Progress("base-1", 1, 1, "scoring", 1, 2)]


# what it comes to


def test_a_comparison_that_is_whole_has_nothing_left_to_run(whole: Compared) -> None:
    begun = begin(whole.file, whole.folder)
    assert begun.missing == []
    assert begun.lines()[0] == "matrix   small: 8 cells, 0 to run"


def test_every_arm_is_reported(cli: Cli, whole: Compared, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "comparison"))
    said = cli("report", folder)
    assert said.code == 0, said.err
    count = len([*folder.glob("report.*"), *folder.glob("figures/*")])
    assert said.out == f"wrote {folder / 'report.html'} and {count - 1} files beside it\n"
    assert count > 4
    table = (folder / "report.md").read_text()
    assert all(arm in table for arm in (*whole.matrix.arms, "fomaml"))
    assert all(word in table for word in ("nats of stopping, largest k", "answers cut off, all k"))


def test_what_it_found_with_one_seed_is_said_of_these_trained_values_alone(whole: Compared) -> None:
    said = answer_lines(whole.results)
    assert len(said) == 3
    assert "Nothing is shown of a method: there is 1 training seed" in said[1]
    assert said[1].endswith("Exploratory: no contrast was named before the comparison ran.")
    assert not [line for line in said if re.search(r"\b(better|worse)\b|\bp [<=]", line)]
    assert {entry.verdict for entry in whole.results.differences} == {"these trained values"}


def test_what_cells_measure_reaches_the_summary(whole: Compared) -> None:
    """The nats of what ends an answer, and how many answers were cut off, of every arm and adaptation."""
    scores: dict[str, set[tuple[Any, ...]]] = {}
    for entry in whole.results.scores:
        scores.setdefault(entry.metric, set()).add((entry.table, entry.arm, entry.how, entry.k))
        assert (entry.cut is not None) == (entry.metric == "accuracy")
    assert scores["nats"] == scores["stop_nats"] == scores["accuracy"]


def test_compare_ends_with_1_where_a_cell_failed(
    cli: Cli, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = matrix_file(world, tmp_path, {"arms": {"base": {}}, "cost_only": {"arms": {"joint": {}}}})
    monkeypatch.setattr(module.sys, "executable", fake_python(tmp_path, "echo 'no luck' >&2; exit 2"))
    for _ in range(2):
        said = cli("compare", file, "--output", tmp_path / "comparison", "--json")
        assert said.code == 1
        assert cells_of(json.loads(said.out)) == {"base": "failed", "joint": "failed"}
        assert "no luck" in (tmp_path / "comparison" / "report.html").read_text()
    run_cell(tmp_path / "comparison", "base-1", lambda *_: None)
    said = cli("compare", file, "--output", tmp_path / "comparison", "--json")
    assert (said.code, cells_of(json.loads(said.out))) == (1, {"base": "done", "joint": "failed"}), "also for its cost"
