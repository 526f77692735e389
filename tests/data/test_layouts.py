"""Splits and shards are parts of one data set, not tasks."""

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from innerloop.data.examples import ReadResult, read_tasks
from record_files import rows, write


def part(first: int, last: int, answer: str = " x") -> datasets.Dataset:
    prompts = [f"p{number}" for number in range(first, last)]
    return datasets.Dataset.from_dict({"prompt": prompts, "completion": [answer] * len(prompts)})


def sizes(result: ReadResult) -> list[tuple[str, int, int]]:
    return [(task.name, len(task.pool), len(task.test)) for task in result.tasks]


def saved(folder: Path, **splits: datasets.Dataset) -> Path:
    datasets.DatasetDict(**splits).save_to_disk(str(folder))
    return folder


def test_the_test_split_is_the_test_and_never_trained_on(tmp_path: Path) -> None:
    folder = saved(tmp_path / "dict", train=part(0, 12), validation=part(12, 22), test=part(20, 32))
    result = read_tasks(folder, test=5)
    assert sizes(result) == [("dict", 12, 5)]
    (task,) = result.tasks
    assert {example.prompt for example in task.pool} == {f"p{number}" for number in range(12)}
    assert {example.prompt for example in task.test} <= {f"p{number}" for number in range(20, 32)}
    assert "validation splits" in result.warnings[0]
    assert sizes(read_tasks(folder, test=100)) == [("dict", 12, 12)]


def test_a_training_row_that_the_test_split_asks_is_left_out(tmp_path: Path) -> None:
    folder = saved(tmp_path / "dict", train=part(0, 12), test=part(10, 20, " y"))
    result = read_tasks(folder, test=3)
    assert (sizes(result), result.left_out) == ([("dict", 10, 3)], 2)


def test_a_validation_split_takes_the_place_of_a_missing_test_split(tmp_path: Path) -> None:
    assert sizes(read_tasks(saved(tmp_path / "d", train=part(0, 9), validation=part(9, 14)), test=5)) == [("d", 9, 5)]


def test_splits_of_other_names_are_tasks(tmp_path: Path) -> None:
    assert sizes(read_tasks(saved(tmp_path / "d", en=part(0, 9), de=part(0, 8)), test=2)) == [
        ("de", 6, 2),
        ("en", 7, 2),
    ]


def test_a_folder_of_dataset_dicts_is_a_task_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        saved(tmp_path / name, train=part(0, 12), test=part(12, 20))
    result = read_tasks(tmp_path, test=4)
    assert sizes(result) == [("a", 12, 4), ("b", 12, 4)]
    assert (result.ignored, result.warnings) == ([], ())


def test_a_folder_of_folders_of_split_files_is_a_task_each(tmp_path: Path) -> None:
    for name in ("algebra", "logic"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.jsonl", *rows(6))
        write(tmp_path / name / "test.jsonl", *rows(9)[6:])
    (tmp_path / "notes").mkdir()
    write(tmp_path / "notes" / "todo.jsonl", *rows(2))
    result = read_tasks(tmp_path, test=2)
    assert sizes(result) == [("algebra", 6, 2), ("logic", 6, 2)]
    assert result.ignored == ["notes"]


@pytest.mark.parametrize("name", ["sums", "train"])
def test_shards_of_one_file_are_one_task(tmp_path: Path, name: str) -> None:
    for number in range(2):
        table = pa.table({"prompt": [f"p{number}{row}" for row in range(5)], "completion": [" y"] * 5})
        pq.write_table(table, tmp_path / f"{name}-0000{number}-of-00002.parquet")
    result = read_tasks(tmp_path, test=4)
    assert sizes(result) == [(name, 6, 4)]
    assert len(result.files) == 2
    assert [("called as splits" in said) for said in result.warnings] == ([True] if name == "train" else [])
    (tmp_path / f"{name}-00001-of-00002.parquet").unlink()
    assert read_tasks(tmp_path, test=1).warnings[-1] == f"shards are missing: 1 of 2 of {name} are here"


def test_files_called_like_splits_are_tasks_with_a_warning_unless_a_column_names_them(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write(tmp_path / f"{name}.jsonl", *rows(4))
    result = read_tasks(tmp_path, test=1)
    assert [task.name for task in result.tasks] == ["test", "train"]
    assert result.warnings[0].startswith("tasks are called as splits are (test, train)")
    for name in ("train", "test"):
        write(tmp_path / f"{name}.jsonl", *rows(4, task="sums"))
    assert read_tasks(tmp_path, test=1).warnings == ()
