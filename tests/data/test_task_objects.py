"""Tasks that are one JSON object are read as their own collections ask them, whatever their fields hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.examples import read_tasks
from innerloop.data.task_objects import records_of
from innerloop.errors import Faults, UserError
from record_files import faults_of, the_example

TEXTS = st.text(min_size=1, max_size=5)
ODD = st.none() | st.integers() | st.lists(TEXTS, max_size=2) | st.dictionaries(TEXTS, TEXTS, max_size=1)


def test_a_big_bench_task_is_read_as_it_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "sums.json"
    examples = [{"input": "2+2", "target": ["4", "four"]}, {"input": "3+3", "target": "6"}]
    path.write_text(json.dumps({"name": "x", "task_prefix": "Add.\n", "examples": examples}))
    (task,) = read_tasks(path, test=0).tasks
    assert task.name == "sums"
    assert {(each.prompt, each.answers) for each in task.pool} == {
        ("Add.\n\nQ: 2+2\nA:", (" 4", " four")),
        ("Add.\n\nQ: 3+3\nA:", (" 6",)),
    }
    scored = {"input": "Odd?", "target_scores": {"1": 1, "2": 0, "3": 1}}
    prefixes = {"example_input_prefix": "In: ", "example_output_prefix": "\nOut: "}
    path.write_text(json.dumps({"examples": [scored], **prefixes}))
    example = the_example(path)
    assert (example.prompt, example.answers) == (
        "In: Odd?\n  choice: 1\n  choice: 2\n  choice: 3\nOut:",
        (" 1", " 3"),
    )
    path.write_text(json.dumps({"examples": [scored], "append_choices_to_input": False}))
    assert the_example(path).prompt == "Q: Odd?\nA:"


def test_a_task_of_super_natural_instructions_is_read(tmp_path: Path) -> None:
    path = tmp_path / "task1.json"
    instances = [{"id": "1", "input": "2+2", "output": ["4", "four"]}]
    path.write_text(json.dumps({"Definition": ["Add."], "Positive Examples": [], "Instances": instances}))
    example = the_example(path)
    assert (example.prompt, example.answers) == ("Add.\n\nInput: 2+2\nOutput:", (" 4", " four"))
    assert example.where.endswith("task1.json: Instances[0]")
    path.write_text(json.dumps({"Definition": ["Add."], "Instances": [3, {"input": "x", "output": None}]}))
    assert faults_of(path) == [
        "task1.json: Instances[0]: not an example",
        "task1.json: Instances[1]: completion: is null",
    ]


@settings(max_examples=100, deadline=None)
@given(st.recursive(ODD | TEXTS, lambda inner: st.lists(inner, max_size=2), max_leaves=4), st.data())
def test_any_task_object_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, value: Any, data: st.DataObject
) -> None:
    entry = {"input": data.draw(TEXTS | ODD), "target": value, "output": value, "target_scores": data.draw(ODD)}
    key = data.draw(st.sampled_from(["examples", "Instances"]))
    more = {data.draw(st.sampled_from(["Definition", "task_prefix", "example_input_prefix", "choice_prefix"])): value}
    path = tmp_path_factory.getbasetemp() / "object.json"
    path.write_text(json.dumps({key: [entry], **more}))
    try:
        (task,) = read_tasks(path, test=0).tasks
    except UserError:
        return
    assert task.pool[0].answer.startswith(" ")


def test_another_object_is_no_task() -> None:
    faults = Faults()
    for value in ({}, {"examples": "x"}, {"Instances": {}}, {"rows": [{"input": "2+2", "target": "4"}]}):
        assert records_of(value, "a.json", faults) is None
    assert records_of({"examples": []}, "a.json", faults) == []
    assert not faults
