"""A draw of whole tasks is the seed's alone."""

import pytest
from datasets import Dataset

from innerloop.api.tasks import sample_tasks
from innerloop.data.given import given_tasks
from innerloop.errors import UserError
from small_runs import NAMES, records

DATA = {name: records(name) for name in NAMES}
ROWS = [{**record, "task": name} for name, rows in DATA.items() for record in rows]


def test_splits_with_a_column_of_tasks_are_roles() -> None:
    splits = sample_tasks(Dataset.from_list(ROWS), held_out=1, validation=1, examples_per_task=5, seed=3)
    found = given_tasks(splits)
    assert {split: len(set(part["task"])) for split, part in splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert found.validation == tuple(set(splits["validation"]["task"]))
    assert found.held_out == tuple(set(splits["test"]["task"]))
    assert {len(rows) for rows in found.records.values()} == {5}
    for name, rows in found.records.items():
        assert all(dict(row) in DATA[name] for row in rows)


def test_a_draw_of_tasks_is_the_seeds_alone() -> None:
    backwards = Dataset.from_list(ROWS[::-1])
    one, again, other = (
        sample_tasks(data, held_out=2, seed=seed)
        for data, seed in ((Dataset.from_list(ROWS), 1), (backwards, 1), (Dataset.from_list(ROWS), 2))
    )
    assert set(one["test"]["task"]) == set(again["test"]["task"])
    assert set(one["test"]["task"]) != set(other["test"]["task"])


def test_more_tasks_than_there_are_can_not_be_drawn() -> None:
    for options in ({"held_out": 4}, {"held_out": 2, "validation": 2}, {"task_column": "zork"}):
        with pytest.raises(UserError):
            sample_tasks(Dataset.from_list(ROWS), **options)
