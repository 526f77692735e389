"""Numbers print as they are meant, class labels by their names, whatever the file."""

import math
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from innerloop.data.arrow_values import Written
from innerloop.data.examples import read_tasks


def answers(path: Path) -> dict[str, str]:
    (task,) = read_tasks(path, test=0).tasks
    return {str(example.prompt)[10:-8]: example.answer[1:] for example in task.pool}


def parquet(path: Path, answer: Any) -> Path:
    pq.write_table(pa.table({"question": [f"q{n}" for n in range(len(answer))], "answer": answer}), path)
    return path


def test_a_float32_prints_its_shortest_text(tmp_path: Path) -> None:
    values = [0.8, 1.1, 1e-7, 16777216.5]
    path = parquet(tmp_path / "a.parquet", pa.array(values, pa.float32()))
    assert answers(path) == {"q0": "0.8", "q1": "1.1", "q2": "1e-07", "q3": "16777216.0"}
    lists = parquet(tmp_path / "b.parquet", pa.array([[0.8, 1.5]], pa.list_(pa.float32())))
    assert answers(lists) == {"q0": "[0.8, 1.5]"}


def digits(text: str) -> str:
    """Those that carry the value: neither zeros at an end nor an exponent."""
    return "".join(filter(str.isdigit, text.split("e")[0])).strip("0")


@settings(max_examples=60, deadline=None)
@example(value=999999995904.0)  # 1000000000000.0 is longer to print, and has one digit
@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_printed_float32_is_the_stored_one(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = parquet(tmp_path_factory.getbasetemp() / "f.parquet", pa.array([value, 0.5], pa.float32()))
    text = answers(path)["q0"]
    assert np.float32(text) == np.float32(value)
    assert len(digits(text)) <= len(digits(repr(value)))


def test_whole_numbers_of_a_column_with_an_empty_cell_are_whole(tmp_path: Path) -> None:
    assert answers(parquet(tmp_path / "a.parquet", pa.array([11.0, 3.0]))) == {"q0": "11", "q1": "3"}
    assert answers(parquet(tmp_path / "b.parquet", pa.array([11.0, 2.5]))) == {"q0": "11.0", "q1": "2.5"}
    assert answers(parquet(tmp_path / "c.parquet", pa.array([1e300, 3.0]))) == {"q0": "1e+300", "q1": "3.0"}


def test_decimals_print_as_they_are_stored(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", pa.array([Decimal("7.50"), Decimal("0.00")]))
    assert answers(path) == {"q0": "7.50", "q1": "0.00"}


@pytest.mark.parametrize("number", ["7.50", "1e5", "-0.0", "2.0", "1E+2", "0.30000000000000000001"])
def test_a_json_number_prints_as_it_is_written(tmp_path: Path, number: str) -> None:
    for name, text in (
        ("a.jsonl", '{"question": "q", "answer": %s}'),
        ("a.json", '[{"question": "q", "answer": [%s]}]'),
    ):
        (tmp_path / name).write_text(text % number)
    assert answers(tmp_path / "a.jsonl") == {"q": number}
    assert answers(tmp_path / "a.json") == {"q": f"[{number}]"}


def test_objects_have_the_keys_that_their_row_gave_them(tmp_path: Path) -> None:
    tools = [[{"name": "a", "parameters": {"x": 1}}], [{"name": "b", "parameters": {"y": 2.0}}]]
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]
    records = [{"messages": [{**turns[0], "content": str(n)}, turns[1]], "tools": each} for n, each in enumerate(tools)]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    (task,) = read_tasks(tmp_path / "a.parquet", test=0).tasks
    found = [example.template_arguments["tools"] for example in sorted(task.pool, key=lambda each: each.prompt[0])]
    assert found == tools


def test_a_written_number_is_a_float() -> None:
    number = Written("7.50")
    assert (number, repr(number), number + 1) == (7.5, "7.50", 8.5)
    assert repr(pickle.loads(pickle.dumps(number))) == "7.50"
    assert math.isinf(Written("1e999"))


def test_class_labels_are_their_names_also_in_parquet_of_datasets(tmp_path: Path) -> None:
    import datasets

    label = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"question": datasets.Value("string"), "answer": label})
    saved = datasets.Dataset.from_dict({"question": ["a", "b"], "answer": [0, 1]}, features=features)
    saved.save_to_disk(str(tmp_path / "saved"))
    saved.to_parquet(str(tmp_path / "a.parquet"))
    for path in (tmp_path / "saved", tmp_path / "a.parquet"):
        assert answers(path) == {"a": "negative", "b": "positive"}
    several = datasets.Features({"question": datasets.Value("string"), "answer": datasets.Sequence(label)})
    datasets.Dataset.from_dict({"question": ["a"], "answer": [[1, 0]]}, features=several).to_parquet(
        str(tmp_path / "b.parquet")
    )
    (task,) = read_tasks(tmp_path / "b.parquet", test=0).tasks
    assert task.pool[0].answers == (" positive", " negative")


@pytest.mark.parametrize("said", [b"no JSON", b"[]", b'{"info": 3}', b'{"info": {"features": {"answer": 3}}}', b"\xff"])
def test_metadata_that_is_none_changes_nothing(tmp_path: Path, said: bytes) -> None:
    table = pa.table({"question": ["q"], "answer": [1]}).replace_schema_metadata({b"huggingface": said})
    pq.write_table(table, tmp_path / "a.parquet")
    assert answers(tmp_path / "a.parquet") == {"q": "1"}
