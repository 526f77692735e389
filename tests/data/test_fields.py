"""A record's fields are read or named with their place: nothing else comes of any value."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.fields import LONGEST_TEXT, MISSING, NOT_GIVEN, Fields, checked_text, is_empty
from innerloop.data.formats import RawRow
from innerloop.data.tasks import Message
from innerloop.errors import Faults

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def fields(**values: Any) -> Fields:
    return Fields(RawRow("a.jsonl:3", values), {name: name for name in values}, Faults())


def problems(read: Fields) -> list[str]:
    return [f"{fault.where}: {fault.problem}" for fault in read.faults]


def test_a_column_is_read_by_our_name_and_named_by_the_files() -> None:
    read = Fields(RawRow("a.csv:2", {"Frage": "2 + 2", "x": ""}), {"question": "Frage", "answer": "x"}, Faults())
    assert read.text("question") == "2 + 2"
    assert read.value("system") is MISSING
    assert read.text("answer") is None
    assert problems(read) == ["a.csv:2: x: is empty"]


@settings(max_examples=150, deadline=None)
@given(value=ANY, scalars=st.booleans())
def test_a_value_is_a_text_or_one_fault(value: Any, scalars: bool) -> None:
    faults = Faults()
    text = checked_text(value, "here", faults, scalars=scalars)
    assert (text is None) == (len(faults) == 1)
    if isinstance(value, str) and text is not None:
        assert text == value
    elif text is not None:
        assert scalars
        assert text == repr(value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (MISSING, "is missing"),
        (None, "is null"),
        (" \n", "is empty"),
        ("a\0", "holds a NUL character"),
        ("\ud800", "half a surrogate pair"),
        ("x" * (LONGEST_TEXT + 1), "has 10,000,001 characters"),
        (1.5, "is of type float"),
        ({"a": 1}, "is of type dict"),
    ],
)
def test_what_is_no_text_is_said(value: Any, problem: str) -> None:
    faults = Faults()
    assert checked_text(value, "here", faults) is None
    assert problem in faults[0].problem


def test_numbers_and_lists_of_them_are_answers_as_python_prints_them() -> None:
    for value, text in ((7, "7"), (True, "True"), ([1, [2.5, "b"]], "[1, [2.5, 'b']]")):
        assert fields(answer=value).answers("answer", scalars=True) == [text]
    for value in (float("nan"), [float("inf")], {"a": 1}, [[[[[[[[[1]]]]]]]]]):
        read = fields(answer=value)
        assert read.answers("answer", scalars=True) == []
        assert len(read.faults) == 1


def test_a_list_of_texts_is_an_answer_each_once() -> None:
    assert fields(answer=["4", "four", "4"]).answers("answer") == ["4", "four"]
    read = fields(answer=["4", " "], other=[])
    assert read.answers("answer") == ["4"]
    assert read.answers("other") == []
    assert problems(read) == ["a.jsonl:3: answer[1]: is empty", "a.jsonl:3: other: is an empty list"]


def test_messages_are_read_by_the_names_of_their_form() -> None:
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes", "weight": None}]
    read = fields(turns=turns).messages("turns", fewest=2, keys=("from", "value"))
    assert read == (Message("user", "hi"), Message("assistant", "yes"))


def test_every_fault_of_a_conversation_is_named_and_none_of_it_is_read() -> None:
    turns = [3, {"role": "nobody", "content": "x"}, {"role": "user", "content": None}, {"role": "user", "name": "a"}]
    read = fields(turns=turns)
    assert read.messages("turns", fewest=1) == ()
    assert problems(read) == [
        "a.jsonl:3: turns[0]: not a message",
        "a.jsonl:3: turns[1].role: no such role",
        "a.jsonl:3: turns[2].content: is null",
        "a.jsonl:3: turns[3]: only role and content of a message are read",
        "a.jsonl:3: turns[3].content: is missing",
    ]


def test_what_a_template_is_handed_is_json_and_none_of_what_innerloop_sets() -> None:
    own = {"enable_thinking": False}
    read = fields(tools=[{"name": "f"}], documents="[]", chat_template_kwargs=json.dumps(own))
    assert json.loads(read.template(("tools", "chat_template_kwargs"))) == {"tools": [{"name": "f"}], **own}
    assert fields(tools=None).template(("tools",)) == ""
    for name in NOT_GIVEN:
        taken = fields(chat_template_kwargs={name: 1})
        assert taken.template(("chat_template_kwargs",)) == ""
        assert problems(taken) == ["a.jsonl:3: chat_template_kwargs: set by innerloop"]


@given(value=ANY)
def test_what_is_empty_says_nothing(value: Any) -> None:
    nothing = value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())
    assert is_empty(value) == nothing
    assert is_empty(MISSING)
