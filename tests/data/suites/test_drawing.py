import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.suites.drawing import Request, demo_import, draw_distinct, named_rng, named_seed, too_few
from innerloop.errors import UserError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20)), st.integers(1, 30))
def test_draws_are_distinct_in_order_and_prefixes_of_longer_draws(stream: list[int], wanted: int) -> None:
    drawn = draw_distinct(stream, wanted)
    assert drawn == list(dict.fromkeys(stream))[:wanted]
    assert draw_distinct(stream, wanted + 5)[: len(drawn)] == drawn


def test_the_key_decides_what_is_a_repeat() -> None:
    assert draw_distinct(["a1", "a2", "b1"], 3, key=lambda value: value[0]) == ["a1", "b1"]


def test_a_stream_that_repeats_itself_forever_ends() -> None:
    assert draw_distinct(iter(lambda: 1, 2), 3) == [1]


def test_seeds_depend_on_every_name() -> None:
    assert named_seed(7, "gcd") == 5223940530977706764
    assert len({named_seed(7, "gcd"), named_seed(8, "gcd"), named_seed(7, "lcm"), named_seed("gcd", 7)}) == 4
    assert named_rng(7, "gcd").random() == named_rng(7, "gcd").random()


def test_too_few_names_task_asked_and_available() -> None:
    text = str(too_few("gcd", Request(7, 100, 40), 63))
    assert "gcd" in text
    assert "140" in text
    assert "63" in text


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo_import("pint").__name__ == "pint"
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"reasoning-gym[\s\S]*pip install \"innerloop\[demo\]\""):
        demo_import("reasoning_gym")
