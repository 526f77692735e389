"""New tasks are read from a file or a folder, with the tests of their names; a faulty file is told with all others."""

from pathlib import Path

import pytest

from innerloop.comparison.new_tasks import encoded_tasks, read_new_tasks
from innerloop.data.tasks import Example, Task
from innerloop.errors import UserError
from record_files import write
from small_runs import Runs, records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "new"
    place.mkdir()
    for name in ("eve", "fay"):
        write(place / f"{name}.jsonl", *records(name)[:5])
    return place


def test_a_file_is_a_task_and_a_folder_several(runs: Runs, folder: Path, tmp_path: Path) -> None:
    config = runs("fomaml-lora").config
    one = read_new_tasks(config, folder / "eve.jsonl", write(tmp_path / "other.jsonl", *records("eve")[5:]))
    assert [(task.name, len(task.pool), len(task.test)) for task in one.tasks] == [("eve", 5, 9)]
    assert not one.folder
    both = read_new_tasks(config, folder)
    assert [(task.name, len(task.pool), len(task.test)) for task in both.tasks] == [("eve", 5, 0), ("fay", 5, 0)]
    assert both.folder
    (folder / "fay.jsonl").unlink()
    assert read_new_tasks(config, folder).folder, "a folder's tasks go to a folder, though it be one"
    named = write(tmp_path / "named.jsonl", *({**row, "task": name} for name in "ab" for row in records(name)))
    assert [task.name for task in read_new_tasks(config, named).tasks] == ["a", "b"]


def test_tests_are_found_by_name(runs: Runs, folder: Path, tmp_path: Path) -> None:
    config, tests = runs("fomaml-lora").config, tmp_path / "tests"
    tests.mkdir()
    write(tests / "eve.jsonl", *records("eve")[5:])
    with pytest.raises(UserError, match=r"no test examples of this task\n *value: *'fay'"):
        read_new_tasks(config, folder, tests)
    write(tests / "fay.jsonl", *records("fay")[4:])
    with pytest.raises(UserError, match="1 prompts are among the examples too"):
        read_new_tasks(config, folder, tests)
    write(tests / "fay.jsonl", *records("fay")[5:])
    write(tests / "gus.jsonl", *records("gus"))
    found = read_new_tasks(config, folder, tests)
    assert [len(task.test) for task in found.tasks] == [9, 9]
    assert found.notes == ("not read: test examples of gus, which have no examples to adapt to",)


def test_faults_of_every_file_come_together(runs: Runs, folder: Path, tmp_path: Path) -> None:
    write(folder / "gus.jsonl", {"prompt": "p"})
    write(folder / "hal.jsonl", {"prompt": 3, "completion": "c"})
    tests = write(tmp_path / "tests.jsonl", {"completion": "c"})
    with pytest.raises(UserError) as error:
        read_new_tasks(runs("fomaml-lora").config, folder, tests)
    said = str(error.value)
    assert [name for name in ("gus.jsonl", "hal.jsonl", "tests.jsonl") if name not in said] == []
    with pytest.raises(UserError, match="can't be read"):
        read_new_tasks(runs("fomaml-lora").config, tmp_path / "gone.jsonl")


def test_examples_that_do_not_fit_are_told_of_every_task(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    long = Example("x" * 600, " y")
    with pytest.raises(UserError) as error:
        encoded_tasks(learned, [Task("one", (long,)), Task("two", (long,))])
    assert [fault.where.split(":")[0] for fault in error.value.faults] == ["task one", "task two"]
    (found,) = encoded_tasks(learned, [Task("one", (Example("x", " y"),))])
    assert len(found.pool) == 1
