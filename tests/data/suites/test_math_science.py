import functools
import pickle
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.doubts import doubts
from innerloop.data.leaks import overlaps
from innerloop.data.suites import build_suite, science
from innerloop.data.suites.drawing import DIFFICULTIES, Difficulty
from innerloop.data.suites.math_science import GENERATORS, LONGEST_QUESTION
from innerloop.data.tasks import Task
from innerloop.errors import UserError

NAMES = [*GENERATORS, *science.FAMILIES]


@functools.cache
def tasks(difficulty: Difficulty = "default") -> dict[str, Task]:
    built = build_suite("math-science", seed=7, examples_per_task=100, test_examples=40, difficulty=difficulty)
    return {task.name: task for task in built}


def test_there_are_enough_families_and_each_is_one_task() -> None:
    assert len(GENERATORS) >= 16
    assert list(tasks()) == NAMES
    assert all(task.family == name for name, task in tasks().items())
    with pytest.raises(UserError, match="one task per family"):
        build_suite("math-science", seed=7, examples_per_task=10, test_examples=0, instances=2)


def is_other(name: str, text: str, other: str) -> bool:
    """Whether `other` is wrong where `text` is right; science answers within 1 % count as the same."""
    if name in GENERATORS:
        return text != other
    (value, unit), (other_value, other_unit) = (f"{answer.strip()} 1".split()[:2] for answer in (text, other))
    return unit != other_unit or abs(float(value) - float(other_value)) > 0.02 * float(value)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("name", NAMES)
def test_the_verifier_takes_the_answer_and_no_other(name: str, difficulty: Difficulty) -> None:
    task = tasks(difficulty)[name]
    examples = (*task.pool[:30], *task.test)
    wrong = 0
    for example, other in zip(examples, (*examples[1:], examples[0]), strict=True):
        assert task.verifier(example, example.answer) == 1.0
        assert task.verifier(example, f"{example.answer}.\n") == 1.0
        assert task.verifier(example, " no idea") == 0.0
        assert task.verifier(example, " nan") == 0.0
        if example.answer[-1].isdigit():
            assert task.verifier(example, example.answer + "7") == 0.0
            assert task.verifier(example, example.answer + " or 7") == 0.0
        if is_other(name, example.answer, other.answer):
            wrong += 1
            assert task.verifier(example, other.answer) == 0.0
    assert wrong > 20


@pytest.mark.parametrize("name", NAMES)
def test_prompts_and_answers_are_short_questions(name: str) -> None:
    for example in tasks()[name].pool:
        prompt = str(example.prompt)
        assert re.fullmatch(r"Question: [^a-z\s][^\n]*\S\nAnswer:", prompt), prompt
        assert len(prompt) <= LONGEST_QUESTION + 20
        assert "  " not in prompt
        assert not re.search(r"Give only|Return only|Your task|final answer", prompt)
        assert len(example.answer) <= 30


def test_no_example_is_in_two_tasks() -> None:
    for name, task in tasks().items():
        others = [other for other in tasks().values() if other.name != name]
        assert overlaps({"train": others, "held_out": [task]}) == []


def test_no_answer_is_most_of_a_task() -> None:
    for name, task in tasks().items():
        counts = Counter(example.answer for example in (*task.pool, *task.test))
        assert max(counts.values()) / counts.total() < 0.6, name


def test_difficulty_changes_the_problems() -> None:
    same = {name for name in NAMES if tasks("easy")[name].pool == tasks("hard")[name].pool}
    assert same == {"gsm_symbolic"}  # it has a single difficulty


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12) | st.text("0123456789-+*/.:×i(){}$ daysnif\\", max_size=12))
def test_any_text_is_right_or_wrong(text: str) -> None:
    for task in tasks().values():
        assert task.verifier(task.pool[0], text) in (0.0, 1.0)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_nothing_is_to_be_said_of_the_verifiers(difficulty: Difficulty) -> None:
    assert doubts(tasks(difficulty).values()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_task_survives_pickling(name: str) -> None:
    task = tasks()[name]
    again = pickle.loads(pickle.dumps(task))
    assert again == task
    assert hash(again) == hash(task)
    assert again.verifier(again.test[0], again.test[0].answer) == 1.0
