"""How numbers and names are written."""

import math

import pytest

from innerloop.report.page import cell, chance, counted, glued, listed, number, short, shortened, size, whole


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1 KiB"),
        (1_234_567, "1.18 MiB"),
        (1_046_478_848, "998 MiB"),
        (3 << 30, "3 GiB"),
    ],
)
def test_bytes(value: int, shown: str) -> None:
    assert size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.674, "0.674"),
        (96.5, "96.5"),
        (183.25, "183"),
        (2248, "2,248"),
        (1_843_200, "1.84 M"),
        (2.5e9, "2.5 G"),
    ],
)
def test_short_numbers(value: float, shown: str) -> None:
    assert short(value) == shown


def test_whole_numbers_and_means_of_them() -> None:
    assert [number(value) for value in (60.0, 3.75, 1_234_567, None)] == ["60", "3.75", "1,234,567", "–"]
    assert [whole(value) for value in (1234.6, None, math.nan)] == ["1,235", "–", "–"]


def test_p_values() -> None:
    assert [chance(p) for p in (0.0004, 0.0123, 0.4, 1, None)] == ["< 0.001", "0.012", "0.40", "1.00", "–"]


def test_words() -> None:
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert (counted(1, "task"), counted(2, "task")) == ("1 task", "2 tasks")
    assert (shortened("a\nb  c", 9), shortened("abcdefghij", 5)) == ("a b c", "abcd…")


def test_what_belongs_together_stays_on_a_line() -> None:
    assert glued("at k = 8, p < 0.05 (95 % of k)").split(" ") == [
        "at",
        "k\xa0=\xa08,",
        "p\xa0<\xa00.05",
        "(95\xa0%",
        "of",
        "k)",
    ]


def test_a_predicted_number_begins_with_its_mark_and_nothing_is_a_dash() -> None:
    assert cell(3, "3 s", mark="predicted").text == "≈ 3 s"
    assert cell(3, "3 s").text == "3 s"
    assert (cell(None).text, cell("").text, cell(0).text) == ("–", "–", "0")
    assert cell(None, mark="predicted").text == "–", "nothing can't be predicted"
