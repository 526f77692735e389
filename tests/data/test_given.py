"""Tasks in memory: every form gives the same records, and what is read of them is what a file of them gives."""

from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from hypothesis import given as drawn
from hypothesis import strategies as st

from innerloop.data.encoder import Encoder
from innerloop.data.examples import read_tasks
from innerloop.data.given import given_tasks, task_examples
from innerloop.errors import UserError
from small_runs import NAMES, records
from tiny import tiny_tokenizer

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


def test_examples_are_divided_as_those_of_a_file_are(tmp_path: Path) -> None:
    given, encoder = given_tasks(DATA), Encoder(tiny_tokenizer(), 64, "drop")
    given.write(tmp_path / "tasks.jsonl")
    for test in (2, 5):
        assert task_examples(given, encoder, most=1, test=test) == read_tasks(tmp_path / "tasks.jsonl", test=test).tasks
    assert task_examples(given, encoder, most=1, test=2) != read_tasks(tmp_path / "tasks.jsonl", test=3).tasks


@drawn(st.lists(st.integers(1, 14), min_size=1, max_size=4), st.integers(0, 16))
def test_half_of_the_smallest_task_is_tested_on_unless_k_needs_more(sizes: list[int], most: int) -> None:
    data = {f"task{place}": DATA["ada"][:size] for place, size in enumerate(sizes)}
    tasks = task_examples(given_tasks(data), Encoder(tiny_tokenizer(), 64, "drop"), most=most)
    (test,) = {len(task.test) for task in tasks}
    assert 1 <= test <= max(1, min(sizes) // 2)
    assert min(len(task.pool) for task in tasks) >= min(most, min(sizes) - 1)


def test_records_that_can_not_be_read_are_named_with_their_tasks() -> None:
    data = {"ada": [{"prompt": "x"}], "bob": [{"prompt": "x", "completion": 3.5j}]}
    with pytest.raises(UserError) as caught:
        task_examples(given_tasks(data), Encoder(tiny_tokenizer(), 64, "drop"), most=1)
    assert {fault.where.split(":")[0] for fault in caught.value.faults} == {"task ada", "task bob"}


def test_class_labels_are_their_names_and_gaps_are_none() -> None:
    label = ClassLabel(names=["billing", "hardware"])
    rows = {"prompt": ["a", "b"], "completion": [0, 1], "task": [1, 0], "accepted": [None, ["x"]]}
    data = Dataset.from_dict(rows).cast_column("completion", label).cast_column("task", label)
    found = given_tasks(data)
    assert {name: list(some) for name, some in found.records.items()} == {
        "hardware": [{"prompt": "a", "completion": "billing", "accepted": None}],
        "billing": [{"prompt": "b", "completion": "hardware", "accepted": ["x"]}],
    }
    encoder = Encoder(tiny_tokenizer(), 64, "drop")
    (example,) = encoder.examples(data.filter(lambda row: row["task"] == 1).with_format("torch"))
    assert (example.prompt, example.answer, example.accepted) == ("a", "billing", ())
    assert encoder.examples(data) == encoder.examples(
        [{"prompt": "a", "completion": "billing"}, {"prompt": "b", "completion": "hardware", "accepted": ["x"]}]
    )
