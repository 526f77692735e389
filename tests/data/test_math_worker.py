"""The process that compares mathematics: what it takes for a formula, and that it answers line by line."""

import json
import subprocess
import sys

import pytest

from innerloop.data import math_worker
from innerloop.data.math_worker import is_prose, marked


@pytest.mark.parametrize(
    "text", ["1/2", "x^2 + 1", r"\frac{1}{2}", r"12\text{ cm}", r"\operatorname{lcm}(4, 6)", "7", ""]
)
def test_a_bare_formula_goes_between_dollars(text: str) -> None:
    assert marked(text) == f"${text}$"
    assert not is_prose(text)


@pytest.mark.parametrize("text", ["$x$", r"the answer is \boxed{4}", r"\(x\)", "5 dollars", "from 10 to 12"])
def test_what_is_marked_or_has_words_stays_as_it_is(text: str) -> None:
    assert marked(text) == text


def test_a_word_makes_prose_and_a_mark_does_not() -> None:
    assert is_prose("5 dollars")
    assert not is_prose("$5$ dollars")
    assert not is_prose("a + b")  # letters by themselves are variables


def test_every_line_is_answered_in_turn() -> None:
    pytest.importorskip("math_verify")
    asked = [[r"\frac{1}{2}", "0.5", 20], ["7", "8", 20], ["7", "14/2", 20]]
    lines = "".join(json.dumps(each) + "\n" for each in asked)
    command = [sys.executable, math_worker.__file__]
    said = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    assert [json.loads(line) for line in said.splitlines()] == [True, False, True]


def test_a_line_that_takes_too_long_ends_the_process() -> None:
    pytest.importorskip("math_verify")
    line = json.dumps(["7", "$10^{10^{10}}$", 0.5]) + "\n"
    done = subprocess.run(
        [sys.executable, math_worker.__file__], input=line, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stdout == ""
