"""JSON that anybody may have written: what the standard's reader lets through is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.data.strict_json import LONGEST_NUMBER, NESTING, can_print, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_what_is_sound_is_read_as_it_was_written(value: Any) -> None:
    assert parse(json.dumps(value)) == value


def test_a_number_is_kept_as_it_was_written() -> None:
    read = parse("[1.50, 1e3, 2]")
    assert [str(each) for each in read] == ["1.50", "1e3", "2"]
    assert read == [1.5, 1000.0, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NaN", "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' appears twice"),
        ('[{"a": {"b": 1, "b": 1}}]', "the key 'b' appears twice"),
        pytest.param("[" * 100_000 + "]" * 100_000, "nested too deep", id="endless"),
        pytest.param("[" * (NESTING + 1) + "]" * (NESTING + 1), "nested too deep", id="a level too deep"),
        ("{", "Expecting property name"),
    ],
)
def test_what_is_not_by_the_book_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_the_limits_are_where_they_are_said_to_be() -> None:
    deepest = "[" * NESTING + "]" * NESTING
    assert can_print(parse(deepest))
    assert not can_print([json.loads(deepest)])
    largest = (1 << LONGEST_NUMBER) - 1
    assert len(str(largest)) < 4300
    assert can_print({"a": [largest]})
    assert not can_print({"a": [largest + 1]})
