"""Records become examples by documented rules; what is wrong is said with file, line and field."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.examples import FileCount, ReadResult, read_examples, read_tasks
from innerloop.data.tasks import Example, Task
from innerloop.errors import UserError
from record_files import faults_of, rows, the_example, write

SAMPLES = Path(__file__).parent / "samples"
THEOREMQA = {"question": "Question", "answer": "Answer", "task": "subfield"}


# columns


def test_columns_map_our_names_to_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"Q": "q", "A": 3, "kind": "sums", "answer": "not this one"})
    columns = {"question": "Q", "answer": "A", "task": "kind"}
    assert the_example(path, columns=columns) == Example("Question: q\nAnswer:", " 3")
    assert [task.name for task in read_tasks(path, columns=columns, test=0).tasks] == ["sums"]


def test_wrong_columns_are_reported_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"Question": "q", "answer": "a"})
    with pytest.raises(UserError) as error:
        read_tasks(path, columns={"question": "Qestion", "anwser": "answer"}, test=0)
    assert [(f.where, f.expected) for f in error.value.faults] == [
        ("tasks.columns.question", 'did you mean "Question"?'),
        ("tasks.columns.anwser", 'did you mean "answer"?'),
    ]


# tasks and their names


def test_a_folder_has_one_task_a_file(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", *rows(2))
    (tmp_path / "a b.csv").write_text("question,answer\n1,2\n")
    (tmp_path / "notes.txt").write_text("")
    result = read_tasks(tmp_path, test=0)
    assert [(task.name, len(task.pool)) for task in result.tasks] == [("a_b", 1), ("b", 2)]
    assert result.ignored == ["notes.txt"]


def test_a_task_column_groups_rows_over_files(tmp_path: Path) -> None:
    write(tmp_path / "1.jsonl", *rows(2, task="x y"), *rows(3, task=5))
    write(tmp_path / "2.jsonl", *rows(4, task="x y"))
    result = read_tasks(tmp_path, test=0)
    assert [(task.name, len(task.pool)) for task in result.tasks] == [("5", 3), ("x_y", 4)]
    assert [count[1:] for count in result.files] == [(5, 0, 0), (2, 0, 2)]


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "..", ".hidden", "-flag", "naïve", "a:b", "a\\b", "x" * 101, "a\x1bb"]
)
def test_unsafe_task_names_are_refused_once(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.jsonl", *rows(3, task=name))
    assert faults_of(path) == ["a.jsonl:1: task: not a safe task name"]


@pytest.mark.parametrize("name", ["a", "A-1.b_c", "_x", "  two  words\t", "x" * 100])
def test_safe_task_names_are_kept(tmp_path: Path, name: str) -> None:
    (task,) = read_tasks(write(tmp_path / "a.jsonl", *rows(1, task=name)), test=0).tasks
    assert task.name == "_".join(name.split())


def test_two_names_may_not_become_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *rows(1, task="a b"), *rows(2, task="a_b"))
    assert faults_of(path) == ["a.jsonl:2: task: two tasks would share a name"]
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.jsonl", *rows(1))
    (folder / "a.csv").write_text("question,answer\n1,2\n")
    assert faults_of(folder) == ["folder/a.jsonl: two tasks would share a name"]


# what is dropped


def test_only_pictures_leave_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *rows(2, image="x.png"))
    assert faults_of(path) == ["a.jsonl: no record is left: all need a picture"]


def test_repeated_rows_are_dropped_within_a_task_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *rows(3, task="x"), *rows(2, task="x", source="again"), *rows(3, task="y"))
    result = read_tasks(path, test=1)
    assert [(len(task.pool), len(task.test)) for task in result.tasks] == [(2, 1), (2, 1)]
    assert result.files == [FileCount(str(path), kept=6, pictures=0, duplicates=2)]


# pool and test


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    records = rows(20)
    one = read_tasks(write(tmp_path / "a.jsonl", *records), test=6).tasks
    assert read_tasks(write(tmp_path / "a.jsonl", *reversed(records)), test=6).tasks == one
    assert read_tasks(write(tmp_path / "a.jsonl", *rows(21)[1:]), test=6).tasks != one


def test_a_new_row_moves_at_most_one_example(tmp_path: Path) -> None:
    before = {example.id for example in read_tasks(write(tmp_path / "a.jsonl", *rows(30)), test=10).tasks[0].test}
    moved = []
    for count in range(31, 61):
        (task,) = read_tasks(write(tmp_path / "a.jsonl", *rows(30), rows(count)[-1]), test=10).tasks
        moved.append(len(before - {example.id for example in task.test}))
    assert set(moved) == {0, 1}


def test_test_examples_are_no_prefix_of_the_file(tmp_path: Path) -> None:
    (task,) = read_tasks(write(tmp_path / "a.jsonl", *rows(100)), test=50).tasks
    first_half = {f"p{index}" for index in range(50)}
    assert 10 < sum(example.prompt in first_half for example in task.test) < 40


def test_a_small_task_keeps_its_test_examples(tmp_path: Path) -> None:
    (task,) = read_tasks(write(tmp_path / "a.jsonl", *rows(3)), test=5).tasks
    assert (len(task.pool), len(task.test)) == (0, 3)


# faults


def test_a_task_column_must_be_filled_everywhere(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *rows(1, task="x"), *rows(1), *rows(1, task=None), *rows(1, task=True))
    assert faults_of(path) == [
        "a.jsonl:2: task: is missing",
        "a.jsonl:3: task: is null",
        "a.jsonl:4: task: is of type bool",
    ]


def test_all_faults_of_all_files_come_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.jsonl", {"prompt": None, "completion": 1})
    (folder / "b.csv").write_text("question,answer\n1\n2,\n")
    (folder / "c.json").write_text("[]")
    write(folder / "d.jsonl", {"text": "x"})
    assert sorted(faults_of(folder)) == [
        "folder/a.jsonl:1: completion: is of type int",
        "folder/a.jsonl:1: prompt: is null",
        "folder/b.csv:2: 1 cells",
        "folder/b.csv:3: answer: is empty",
        "folder/c.json: no records",
        "folder/d.jsonl: the columns fit no form of a record",
    ]


def test_the_same_fault_on_many_lines_is_said_once_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[{"prompt": "p", "completion": None}] * 25)
    with pytest.raises(UserError) as error:
        read_tasks(path, test=0)
    assert len(error.value.faults) == 25
    said = str(error.value)
    assert said.count("is null") == 1
    assert f"also at:  {path}:2: completion; {path}:3: completion;" in said
    assert "(25 in all)" in said


# real schemas


def check_gsm8k(folder: Path) -> ReadResult:
    result = read_tasks(folder, test=2)
    assert [task.name for task in result.tasks] == ["test", "train"]
    assert all(count.pictures == count.duplicates == 0 for count in result.files)
    for task in result.tasks:
        for example in (*task.pool, *task.test):
            assert str(example.prompt).startswith("Question: ")
            assert "\n#### " in example.answer
    return result


def check_theoremqa(folder: Path) -> ReadResult:
    result = read_tasks(folder / "theoremqa_test.json", columns=THEOREMQA, test=1)
    assert "Graph_theory" in [task.name for task in result.tasks]
    answers = {example.answer for task in result.tasks for example in (*task.pool, *task.test)}
    assert {" True", " False", " (b)", " 15", " 4.0"} <= answers
    assert any(answer.startswith(" [") for answer in answers)
    return result


def test_samples_in_the_schema_of_gsm8k() -> None:
    result = check_gsm8k(SAMPLES / "gsm8k")
    assert [len(task.pool) for task in result.tasks] == [3, 4]


def test_samples_in_the_schema_of_theoremqa() -> None:
    result = check_theoremqa(SAMPLES / "theoremqa")
    assert [(task.name, len(task.pool), len(task.test)) for task in result.tasks] == [
        ("Graph_theory", 2, 1),
        ("Probability_theory", 3, 1),
    ]
    assert result.files[0][1:] == (7, 1, 0)


def test_the_full_files() -> None:
    if "INNERLOOP_DATA" not in os.environ:
        pytest.skip("INNERLOOP_DATA names no folder with gsm8k/ and theoremqa/")
    folder = Path(os.environ["INNERLOOP_DATA"])
    assert [count.kept for count in check_gsm8k(folder / "gsm8k").files] == [1319, 7473]
    result = check_theoremqa(folder / "theoremqa")
    assert len(result.tasks) == 39
    assert result.files[0][1:] == (747, 53, 0)


# any input

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2), max_leaves=4)
TEXTS = st.text(min_size=1, max_size=6)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXTS | VALUES}),
    max_size=3,
)
RECORDS = st.one_of(
    st.fixed_dictionaries({"prompt": TEXTS, "completion": TEXTS}, optional={"task": st.sampled_from("ab") | VALUES}),
    st.fixed_dictionaries({"question": TEXTS, "answer": VALUES}, optional={"image": VALUES}),
    st.fixed_dictionaries({"messages": MESSAGES}),
    VALUES,
)


def all_is_well(path: Path, content: bytes, test: int) -> bool:
    """Whether the content was read; anything but a sound result or a UserError fails."""
    path.write_bytes(content)
    try:
        result = read_tasks(path, test=test)
    except UserError:
        return False
    ids = [(task.name, example.id) for task in result.tasks for example in (*task.pool, *task.test)]
    assert len(set(ids)) == len(ids) == sum(count.kept for count in result.files) > 0
    for task in result.tasks:
        assert len(task.test) == min(test, len(task.pool) + len(task.test))
    return True


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=60) | st.text(max_size=40).map(str.encode), test=st.integers(0, 3))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, test: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    for suffix in (".jsonl", ".json", ".csv"):
        all_is_well(folder / f"any{suffix}", content, test)


@settings(max_examples=120, deadline=None)
@given(records=st.lists(RECORDS, min_size=1, max_size=5), test=st.integers(0, 3))
def test_any_records_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], test: int
) -> None:
    content = "\n".join(json.dumps(record) for record in records).encode()
    all_is_well(tmp_path_factory.getbasetemp() / "records.jsonl", content, test)


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), min_size=1), test=st.integers(0, 4))
def test_good_records_are_always_read(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, int]], test: int
) -> None:
    lines = [json.dumps({"task": task, "question": f"q{number}", "answer": number}) for task, number in pairs]
    assert all_is_well(tmp_path_factory.getbasetemp() / "good.jsonl", "\n".join(lines).encode(), test)


def test_a_task_with_an_example_on_both_sides_is_impossible() -> None:
    example = Example("p", "c")
    with pytest.raises(ValueError, match="share or repeat"):
        Task("t", pool=(example,), test=(example,))


# the examples of one task


def test_records_given_directly_read_as_a_file_of_them_does(tmp_path: Path) -> None:
    records = [*rows(4), *rows(2)]
    examples = read_examples(records)
    assert [(example.prompt, example.answer) for example in examples] == [(f"p{n}", f" c{n}") for n in range(4)]
    path = write(tmp_path / "a.jsonl", *records)
    for source in (path, tmp_path):
        assert sorted(example.id for example in read_examples(source)) == sorted(e.id for e in examples)


def test_examples_pass_through_beside_records_in_their_order() -> None:
    ready = Example("x", "y")
    assert read_examples([rows(2)[1], ready, rows(1)[0], ready]) == [
        Example("p1", " c1"),
        ready,
        Example("p0", " c0"),
    ]
    assert read_examples([{"question": "q", "answer": 3}]) == [Example("Question: q\nAnswer:", " 3")]


def test_what_is_no_record_is_named() -> None:
    assert examples_faults([rows(1)[0], 3, "text"])[0].startswith("examples[1]: not a record")


def examples_faults(source: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        read_examples(source)
    return [f"{fault.where}: {fault.problem}" for fault in error.value.faults]


def test_all_faults_of_given_records_come_at_once_with_their_places() -> None:
    bad = [*rows(1), {"prompt": None, "completion": 1}, Example("x", "y"), {"prompt": "p", "completion": ""}]
    assert examples_faults(bad) == [
        "examples[1]: prompt: is null",
        "examples[1]: completion: is of type int",
        "examples[3]: completion: is empty",
    ]
    assert examples_faults([]) == ["examples: no example is given"]
    assert examples_faults([{"text": "x"}]) == ["examples: the columns fit no form of a record"]


def test_what_an_example_made_elsewhere_holds_is_checked() -> None:
    right = Example("p", "a", accepted=("b",), template='{"tools": []}')
    assert read_examples([right]) == [right]
    wrong: list[Any] = [Example("p", "a", accepted=("",)), Example("p", "a", template="[]")]
    wrong += [Example("p", "a", template="{"), Example("p", "a", accepted=(3,))]  # pyright: ignore[reportArgumentType]
    assert examples_faults(wrong) == [
        "examples[0].accepted[0]: is empty",
        "examples[1].template: no JSON object",
        "examples[2].template: no JSON object",
        "examples[3].accepted[0]: is of type int",
    ]


def test_a_file_of_several_tasks_is_not_one_task(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", *rows(2))
    assert examples_faults(tmp_path) == [f"{tmp_path}: several tasks"]
    assert len(read_examples(tmp_path / "a.jsonl")) == 2


@settings(max_examples=80, deadline=None)
@given(st.lists(RECORDS.filter(lambda record: isinstance(record, dict)), max_size=4))
def test_any_given_records_are_read_or_refused(records: list[Any]) -> None:
    try:
        examples = read_examples(records)
    except UserError:
        return
    assert 0 < len({example.id for example in examples}) == len(examples) <= len(records)
