"""Messages for people: every fault says what, where, the value and what would be right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.errors import Fault, Faults, RunError, UserError, did_you_mean


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


def test_exit_codes() -> None:
    assert (UserError("x").exit_code, RunError("x").exit_code) == (2, 1)


def test_the_nearest_word_is_offered_and_all_where_none_is_near() -> None:
    assert did_you_mean("stpes", ["steps", "lr"]) == 'did you mean "steps"?'
    assert did_you_mean("zork", ["steps", "lr"]) == "one of: lr, steps"
