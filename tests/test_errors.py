"""Messages for people: every fault says what, where, the value and what would be right."""

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.errors import FAULTS_SHOWN, Fault, Faults, RunError, UserError, did_you_mean


def test_a_fault_says_where_the_value_and_what_would_be_right() -> None:
    fault = Fault("not a count", "run.yaml: outer.steps (line 3)", -1, "whole number above 0")
    assert str(fault) == (
        "run.yaml: outer.steps (line 3): not a count\n    value:    -1\n    expected: whole number above 0"
    )


@pytest.mark.parametrize("value", [None, "", 0, False])
def test_an_empty_value_is_shown_and_an_absent_one_is_not(value: object) -> None:
    assert f"value:    {value!r}" in str(Fault("wrong", value=value))
    assert str(Fault("wrong")) == "wrong"
    assert str(Fault("wrong", "here")) == "here: wrong"


@given(st.text(max_size=400))
def test_a_long_value_is_cut(value: str) -> None:
    shown = str(Fault("p", value=value)).removeprefix("p\n    value:    ")
    assert len(shown) <= 120
    assert "\n" not in shown
    assert shown == repr(value) if len(repr(value)) <= 120 else shown == repr(value)[:119] + "…"


def test_a_user_error_holds_all_faults_and_text_is_a_fault() -> None:
    error = UserError(Fault("one", "a"), "two")
    assert error.faults == (Fault("one", "a"), Fault("two"))
    assert str(error) == "a: one\ntwo"


def test_faults_are_raised_together_and_only_if_there_are_any() -> None:
    faults = Faults()
    faults.raise_if_any()
    faults.add("one", "a", 1, "2")
    faults.add("two")
    with pytest.raises(UserError) as caught:
        faults.raise_if_any()
    assert caught.value.faults == (Fault("one", "a", 1, "2"), Fault("two"))


def test_what_only_a_place_a_value_and_numbers_tell_apart_is_said_once_with_its_places() -> None:
    """One a task, say: where something else differs, both are said."""
    small = [Fault("too small for 9", f"task {name}", size, "at least 9") for size, name in enumerate("abcdefgh")]
    other = Fault("too large", "task a", 1, "at least 9")
    error = UserError(*small[:3], other, *small[3:], small[0])
    assert error.faults == (*small[:3], other, *small[3:])
    assert str(UserError(*small[:3])).count("value:") == 3, "of a few each is said whole"
    assert str(error) == (
        "task a: too small for 9\n    value:    0\n    expected: at least 9\n"
        "    also at:  task b; task c; task d; task e; 3 more (8 in all)\n"
        "task a: too large\n    value:    1\n    expected: at least 9"
    )


def test_many_faults_that_differ_are_cut_and_counted() -> None:
    error = UserError(*(Fault(f"wrong {'x' * number}", "here") for number in range(25)))
    assert len(error.faults) == 25
    assert str(error).count("here: wrong") == FAULTS_SHOWN
    assert str(error).endswith("\n... and 5 more")
    assert "more" not in str(UserError(*error.faults[:FAULTS_SHOWN]))


class Turn(NamedTuple):
    role: str
    content: str


def test_a_value_is_shown_as_a_user_wrote_it() -> None:
    shown = str(Fault("wrong", value=(Turn("user", "hi"), Path("a"), {"k": (1, 2)})))
    assert shown == "wrong\n    value:    [{'role': 'user', 'content': 'hi'}, 'a', {'k': [1, 2]}]"


def test_exit_codes() -> None:
    assert (UserError("x").exit_code, RunError("x").exit_code) == (2, 1)


def test_the_nearest_word_is_offered_and_all_where_none_is_near() -> None:
    assert did_you_mean("stpes", ["steps", "lr"]) == 'did you mean "steps"?'
    assert did_you_mean("zork", ["steps", "lr"]) == "one of: lr, steps"
