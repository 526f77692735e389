"""A run's folder is read as far as it has come; what is half-written is left out, what is no run is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from innerloop.errors import UserError
from innerloop.report.run_record import read_run
from report.run_example import STEPS, evaluation, run_folder, step
from small_runs import Runs


def test_a_real_run_is_read(runs: Runs) -> None:
    learned = runs("meta-lora")
    run = read_run(learned.folder)
    lines = [json.loads(line) for line in (learned.folder / "metrics.jsonl").read_text().splitlines()]
    assert [each.loss for each in run.steps] == [line["loss"] for line in lines]
    assert run.manifest.status == "done"
    assert run.manifest.plan.trained.parameters == learned.space.trained().parameters
    assert run.manifest.host.peak_bytes
    assert run.config_yaml == (learned.folder / "run.yaml").read_text()
    assert run.eval is None


def test_steps_and_evaluations_are_told_apart(tmp_path: Path) -> None:
    run = read_run(run_folder(tmp_path, [evaluation(0, 3.0), step(1), step(2), evaluation(2, 2.0, 0.5)]))
    assert [each.step for each in run.steps] == [1, 2]
    assert [(each.step, each.eval.nats, each.eval.exact) for each in run.evaluations] == [(0, 3.0, None), (2, 2.0, 0.5)]


def test_the_newest_scores_that_can_be_read_are_taken(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, with_eval=True)
    (folder / "eval" / "later").mkdir()
    (folder / "eval" / "later" / "results.json").write_text("{")
    found = read_run(folder).eval
    assert found is not None
    assert {score.arm for score in found.scores} == {"meta-lora"}


def test_a_line_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    damaged = [step(1), '{"step": 2, "lo', "\n", step(3, loss="much"), '{"step": 4, "loss": NaN}\n', step(5)]
    assert [each.step for each in read_run(run_folder(tmp_path, damaged)).steps] == [1, 5]
    assert len(read_run(run_folder(tmp_path)).steps) == STEPS, "the control"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        read_run(tmp_path)
    run_folder(tmp_path, plan={"tasks": "many"})
    with pytest.raises(UserError, match=r"manifest.json: plan.tasks"):
        read_run(tmp_path)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40) | st.recursive(st.none() | st.floats() | st.text(max_size=4), st.lists, max_leaves=6))
def test_any_line_is_a_measurement_or_left_out(tmp_path: Path, line: object) -> None:
    text = line if isinstance(line, str) else json.dumps({"step": 2, "loss": line, "eval": line})
    run = read_run(run_folder(tmp_path, [step(1), text.replace("\n", " ") + "\n", step(3)]))
    assert {1, 3} <= {each.step for each in run.steps} <= {1, 2, 3}
