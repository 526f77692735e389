"""Verifiers are tried on other examples' references before training, and said to be wrong where they are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data import doubts as module
from innerloop.data.doubts import doubts, wrong_pairs
from innerloop.data.tasks import Example, Task, exact_match
from innerloop.data.verifiers import same_mathematics, same_number


def task(*answers: str, verifier=same_number, name: str = "t") -> Task:
    examples = tuple(Example(f"q{row}", answer, where=f"a.jsonl:{row}") for row, answer in enumerate(answers))
    return Task(name, examples[1:], examples[:1], verifier=verifier)


def takes_the_last_digit(example: Example, text: str) -> float:
    return float(example.answer.strip()[-1:] == text.strip()[-1:])


def takes_anything(example: Example, text: str) -> float:
    return 1.0


def test_a_verifier_that_reads_a_units_exponent_is_found_with_an_example() -> None:
    answers = [f"{number} m/s^2" for number in range(30)]
    (said,) = doubts([task(*answers, verifier=takes_the_last_digit)])
    assert said.startswith("wrong answers are taken for right: 30 of 30 answers to other examples of task t; ")
    assert "'1 m/s^2' for '0 m/s^2'" in said
    assert "(a.jsonl:0)" in said
    assert doubts([task(*answers)]) == []


def test_the_worst_task_is_named_and_the_others_counted() -> None:
    numbers = [str(number) for number in range(40)]
    bad = [task(*numbers, verifier=takes_anything, name=f"bad{n}") for n in range(3)]
    (said,) = doubts([task(*numbers, name="good"), *bad])
    assert "task bad0 and in 2 more tasks" in said


def test_small_tasks_are_judged_together() -> None:
    small = [task("1", "2", "3", verifier=takes_anything, name=f"s{n}") for n in range(4)]
    assert len(doubts(small)) == 1


def test_answers_that_only_look_different_and_exact_match_are_not_suspected() -> None:
    same = [f"so {n} + 0 =\n#### 7" for n in range(30)]
    assert list(wrong_pairs(task(*same))) == []
    assert doubts([task("1", "2", verifier=exact_match)]) == []
    accepted = tuple(Example(f"q{n}", f"{n}", accepted=(f"{n + 1}",)) for n in range(30))
    assert doubts([Task("t", accepted, verifier=same_number)]) == []


def test_references_of_several_numbers_are_named() -> None:
    (said,) = doubts([task(*(f"{n}" for n in range(30)), "from 10 to 12", "so 3 + 4 = 7\n#### 7", "9 m/s^2")])
    assert said.startswith("1 of 33 references hold several numbers")
    assert "'from 10 to 12' (task t: example " in said


def test_a_slow_verifier_is_asked_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [task(*(str(n) for n in range(90)), verifier=same_mathematics, name=f"t{n}") for n in range(20)]
    assert sum(module._pairs_of(each, tasks) for each in tasks) <= module.SLOW_PAIRS_IN_ALL
    monkeypatch.setattr(module, "SECONDS", -1)
    assert doubts(tasks[:1]) == []  # no time: nothing is tried, nothing is said


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=12))
def test_any_references_are_tried(answers: list[str]) -> None:
    assert len(doubts([task(*answers)])) <= 2
    for example, wrong in wrong_pairs(task(*answers)):
        assert wrong.strip() != example.answer.strip()
