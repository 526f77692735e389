"""What a run says of itself is on disk, whole, at every moment; nothing that was there is overwritten."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.errors import UserError
from innerloop.runs.journal import Journal, read_metrics
from small_runs import files_of, manifest_of


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


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


def test_what_is_behind_is_there_from_the_start(tmp_path: Path) -> None:
    first = Journal(tmp_path, {})
    for step in (1, 2, 3):
        first.record(step=step)
    again = Journal(tmp_path, {}, metrics="".join(first.metrics.splitlines(keepends=True)[:2]))
    assert lines(tmp_path) == [{"step": 1}, {"step": 2}]
    assert again.steps == 2
    again.record(step=2, eval={"nats": 1.5})
    again.record(step=3, loss=0.5)
    assert lines(tmp_path)[2:] == [{"step": 2, "eval": {"nats": 1.5}}, {"step": 3, "loss": 0.5}]
    assert again.steps == 3, "of outer steps"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3)))
def test_every_record_is_one_line(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("run")
    journal = Journal(folder, {})
    for record in records:
        journal.record(**record)
    journal.finish("done")
    assert lines(folder) == records


def test_lines_of_measurements_are_read_back(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read"):
        read_metrics(tmp_path)
    journal = Journal(tmp_path, {"config": {}, "model": {}})
    journal.record(step=1, loss=2.5)
    journal.record(step=2, loss=float("nan"))
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    for wrong in ("{", "[1]", "nan", "[" * 10_000):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + wrong)
        with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a line"):
            read_metrics(tmp_path)
