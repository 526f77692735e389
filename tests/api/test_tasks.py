"""Tasks in memory: every form gives the same records, and a draw of whole tasks is the seed's alone."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from innerloop.api.tasks import given_tasks, sample_tasks
from innerloop.data.examples import read_tasks
from innerloop.errors import UserError
from small_runs import NAMES, records

DATA = {name: records(name) for name in NAMES}
ROWS = [{**record, "task": name} for name, rows in DATA.items() for record in rows]


def plain(found: Any) -> dict[str, list[dict[str, Any]]]:
    return {name: [dict(record) for record in rows] for name, rows in found.records.items()}


def test_every_form_gives_the_same_records() -> None:
    forms = [
        DATA,
        {name: Dataset.from_list(rows) for name, rows in DATA.items()},
        DatasetDict({name: Dataset.from_list(rows) for name, rows in DATA.items()}),
        Dataset.from_list(ROWS),
        ROWS,
    ]
    for data in forms[:-1]:
        assert plain(given_tasks(data)) == DATA
    with pytest.raises(UserError, match="without a column of tasks"):
        given_tasks(forms[-1])


def test_splits_with_a_column_of_tasks_are_roles() -> None:
    splits = sample_tasks(Dataset.from_list(ROWS), held_out=1, validation=1, examples_per_task=5, seed=3)
    found = given_tasks(splits)
    assert {split: len(set(part["task"])) for split, part in splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert found.validation == tuple(set(splits["validation"]["task"]))
    assert found.held_out == tuple(set(splits["test"]["task"]))
    assert {len(rows) for rows in found.records.values()} == {5}
    for name, rows in plain(found).items():
        assert all(row in DATA[name] for row in rows)


def test_a_draw_of_tasks_is_the_seeds_alone() -> None:
    backwards = Dataset.from_list(ROWS[::-1])
    one, again, other = (
        sample_tasks(data, held_out=2, seed=seed)
        for data, seed in ((Dataset.from_list(ROWS), 1), (backwards, 1), (Dataset.from_list(ROWS), 2))
    )
    assert set(one["test"]["task"]) == set(again["test"]["task"])
    assert set(one["test"]["task"]) != set(other["test"]["task"])


def test_what_is_written_is_read_back_task_by_task(tmp_path: Path) -> None:
    given = given_tasks({**DATA, "gap": [{"prompt": "é", "completion": " y", "other": None}]})
    assert given.write(tmp_path / "tasks.jsonl")
    found = {task.name: task for task in read_tasks(tmp_path / "tasks.jsonl", test=0).tasks}
    assert {name: len(task.pool) for name, task in found.items()} == {**dict.fromkeys(NAMES, 14), "gap": 1}
    assert not given.write(tmp_path / "tasks.jsonl")  # as it is
    with pytest.raises(UserError, match="tasks of another run"):
        given_tasks(DATA).write(tmp_path / "tasks.jsonl")


@pytest.mark.parametrize("data", [{}, [], "tasks", {"ada": "text"}, {"ada": {"prompt": "x"}}, 3, {"ada": 3}])
def test_what_is_no_data_is_refused(data: Any) -> None:
    with pytest.raises(UserError):
        given_tasks(data)


def test_more_tasks_than_there_are_can_not_be_drawn() -> None:
    for options in ({"held_out": 4}, {"held_out": 2, "validation": 2}, {"task_column": "zork"}):
        with pytest.raises(UserError):
            sample_tasks(Dataset.from_list(ROWS), **options)
