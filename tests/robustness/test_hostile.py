"""hostile/: every case comes to what it should, and the harness finds readers that are wrong."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.config.loading import load_config
from innerloop.data.examples import ReadResult, read_tasks
from innerloop.data.formats import find_sources
from innerloop.errors import Fault, UserError
from robustness.hostile import corpus
from robustness.hostile.fuzz import fuzz_config, fuzz_reader, limited
from robustness.hostile.inputs import is_task_name, is_text

CORPUS = corpus.every_case()
DRAWN = 1_500


@pytest.mark.parametrize("case", CORPUS, ids=[case.name for case in CORPUS])
def test_a_case_comes_to_what_it_should(case: Any, tmp_path: Path) -> None:
    found = corpus.try_case(case, tmp_path / "case")
    if found["outcome"] == "skipped":
        pytest.skip(found["said"])
    assert found["outcome"] == ("read" if case.right is not None else "refused"), found["said"]


@pytest.mark.parametrize(("fuzz", "kinds"), [(fuzz_reader, 7), (fuzz_config, 5)])
def test_drawn_inputs_are_read_or_refused(fuzz: Any, kinds: int, tmp_path: Path) -> None:
    found = fuzz(DRAWN, 1, tmp_path)
    assert found["failed"] == []
    assert len(found["kinds"]) == kinds
    assert found["read"] + found["refused"] == DRAWN
    assert min(found["read"], found["refused"]) > DRAWN / 20


def test_cases_and_inputs_are_the_same_each_time(tmp_path: Path) -> None:
    assert len({case.name for case in CORPUS}) == len(CORPUS)
    one, two = (fuzz_reader(60, 3, tmp_path) for _ in range(2))
    assert {key: one[key] for key in ("read", "refused", "kinds")} == {
        key: two[key] for key in ("read", "refused", "kinds")
    }
    assert fuzz_reader(60, 4, tmp_path)["kinds"] != one["kinds"]


def test_a_folder_of_thousands_of_tasks_is_looked_through_at_once(tmp_path: Path) -> None:
    for number in range(2_500):
        (tmp_path / f"{number}.jsonl").touch()
    (tmp_path / "notes.txt").touch()
    sources, ignored = limited(0.5, lambda: find_sources(tmp_path))
    assert (len(sources), ignored) == (2_500, ["notes.txt"])


# a reader that is wrong is found


def raises(*_: Any, **__: Any) -> Any:
    raise KeyError("prompt")


def loops(*_: Any, **__: Any) -> Any:
    while True:
        time.sleep(0)


def refuses(path: Path, **_: Any) -> Any:
    raise UserError(Fault("no", str(path)))


def names_nothing(*_: Any, **__: Any) -> Any:
    raise UserError(Fault("something is wrong"))


def accepts(path: Path, **_: Any) -> ReadResult:
    return ReadResult([], [], [])


def loses_one(path: Path, **options: Any) -> ReadResult:
    result = read_tasks(path, **options)
    return ReadResult(result.tasks[1:], result.files, result.ignored)


def another_seed(source: Any, sets: Any = ()) -> Any:
    config = load_config(source, sets)
    return config.model_copy(update={"seed": config.seed + 1})


@pytest.mark.parametrize(
    ("fuzz", "wrong", "said"),
    [
        (fuzz_reader, {"read": raises}, "KeyError: 'prompt'"),
        (fuzz_reader, {"read": loops, "seconds": 0.01}, "Hang: more than 0.01 s"),
        (fuzz_reader, {"read": refuses}, "what is sound was refused"),
        (fuzz_reader, {"read": names_nothing}, "a fault names no file"),
        (fuzz_reader, {"read": accepts}, "what has to be refused was read"),
        (fuzz_reader, {"read": loses_one}, "another result than was written"),
        (fuzz_config, {"load": raises}, "KeyError: 'prompt'"),
        (fuzz_config, {"load": loops, "seconds": 0.01}, "Hang: more than 0.01 s"),
        (fuzz_config, {"load": another_seed}, "another result than was written"),
    ],
)
def test_a_wrong_reader_is_found(fuzz: Any, wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    found = fuzz(60, 1, tmp_path, **wrong)
    assert any(said in each["problem"] for each in found["failed"])
    assert found["read"] + found["refused"] + found["failures"] == 60


def test_a_reader_that_fills_the_memory_is_found(tmp_path: Path) -> None:
    kept: list[bytes] = []

    def hoards(path: Path, **options: Any) -> ReadResult:
        kept.append(b"x" * 1_200_000)
        return read_tasks(path, **options)

    (problem,) = [each["problem"] for each in fuzz_reader(512, 1, tmp_path, read=hoards)["failed"]]
    assert problem.startswith("memory grew by ")  # less than was kept, where memory that was free is used first


def no_words(_: Path, **__: Any) -> Mapping[str, Any]:
    raise UserError(Fault("no"))


@pytest.mark.parametrize(
    ("name", "reader", "said"),
    [
        ("line: null", raises, "KeyError"),
        ("line: null", loops, "Hang"),
        ("line: null", no_words, "refused without ['a.jsonl:2: '"),
        ("line: null", lambda _, **__: {"tasks": {}}, "read: {'tasks': {}}"),
        ("sound: no line end", no_words, "refused without []"),
        ("sound: no line end", lambda _, **__: {"tasks": {}}, "read: {'tasks': {}}"),
    ],
)
def test_a_case_that_comes_to_something_else_has_failed(name: str, reader: Any, said: str, tmp_path: Path) -> None:
    (case,) = [case for case in CORPUS if case.name == name]
    found = corpus.try_case(case, tmp_path / "case", readers={"tasks": reader}, seconds=0.1)
    assert found["outcome"] == "failed"
    assert said in found["said"]


def test_a_case_that_fills_the_memory_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "GROWTH", 10_000_000)

    def hoards(_: Path, **__: Any) -> Mapping[str, Any]:
        raise UserError(Fault("a.jsonl:2: completion: is null " + str(len(b"x" * 50_000_000))))

    (case,) = [case for case in CORPUS if case.name == "line: null"]
    assert "the process grew by" in corpus.try_case(case, tmp_path / "case", readers={"tasks": hoards})["said"]


# properties of JSONL files

TEXT = st.text(min_size=1, max_size=8).filter(is_text)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["", " \n", "a\0", "\ud83d", "x\ud83dy"]),
)


def read(
    folder: Path, *files: list[Any], test: int = 0, bom: bool = False, end: str = "\n", ascii_only: bool = True
) -> Any:
    """Each file's records, as lines."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, records in enumerate(files):
        lines = (json.dumps(record, ensure_ascii=ascii_only) for record in records)
        text = "\ufeff" * bom + "".join(line + end for line in lines)
        (folder / f"f{number}.jsonl").write_bytes(text.encode())
    return read_tasks(folder, test=test)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6),
    bom=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n", " \n", "\r\n\r\n"]),
    ascii_only=st.booleans(),
)
def test_any_text_is_read_as_it_was_written(
    pairs: list[Any], bom: bool, end: str, ascii_only: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    folder = tmp_path_factory.getbasetemp() / "written"
    result = read(folder, records, bom=bom, end=end, ascii_only=ascii_only)
    (task,) = result.tasks
    assert {(example.prompt, example.answer) for example in task.pool} == set(pairs)
    (count,) = result.files
    assert (count.kept, count.kept + count.duplicates) == (len(set(pairs)), len(pairs))
    lines = {example.where.removeprefix(f"{count.file}:") for example in task.pool}
    assert len(lines) == len(task.pool)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(TEXT | ODD, TEXT | ODD), min_size=1, max_size=30))
def test_every_bad_field_of_every_line_is_named(pairs: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "bad"
    bad = [
        f"{folder / 'f0.jsonl'}:{line}: {field}"
        for line, pair in enumerate(pairs, 1)
        for field, value in zip(("prompt", "completion"), pair, strict=True)
        if not is_text(value)
    ]
    records = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    if not bad:
        read(folder, records)
        return
    with pytest.raises(UserError) as error:
        read(folder, records)
    assert [fault.where for fault in error.value.faults] == bad


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), max_size=12), min_size=1, max_size=3),
    test=st.integers(0, 5),
)
def test_no_example_is_on_two_sides_however_often_and_wherever_it_is_written(
    files: list[Any], test: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = [rows for rows in files if rows] or [[("a", 0)]]
    records = [[{"task": task, "question": f"q{n}", "answer": n} for task, n in rows] for rows in files]
    result = read(tmp_path_factory.getbasetemp() / "sides", *records, test=test)
    written = {pair for rows in files for pair in rows}
    for task in result.tasks:
        pool, reserved = ({example.id for example in side} for side in (task.pool, task.test))
        assert not pool & reserved
        assert len(pool) + len(reserved) == len(task.pool) + len(task.test) == sum(task.name == t for t, _ in written)
        assert len(reserved) == min(test, len(pool | reserved))
        assert sorted(pool | reserved)[: len(reserved)] == sorted(reserved)
    assert sum(count.kept for count in result.files) == len(written)
    assert sum(count.kept + count.duplicates for count in result.files) == sum(map(len, files))


@settings(max_examples=100, deadline=None)
@given(
    name=st.text(max_size=6)
    | st.text(alphabet="./\\ ~ab_-\0:\n", max_size=8)
    | st.sampled_from(["../x", "..", "x" * 101])
)
def test_a_task_has_a_safe_name_or_none(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "names"
    records = [{"task": name, "prompt": "p", "completion": "c"}]
    if not is_task_name(name):
        with pytest.raises(UserError, match=r"f0\.jsonl:1: task: "):
            read(folder, records)
        return
    (task,) = read(folder, records).tasks
    assert (folder / task.name).parent.resolve() == folder.resolve()
    assert task.name == "_".join(name.split())
