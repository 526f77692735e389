import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.suites.quantities import number_text, same_number_and_unit, same_quantity
from innerloop.data.tasks import Example

DISTANCE = Example("Question: how far?\nAnswer:", " 1500 m")
COUNT = Example("Question: how many?\nAnswer:", " 12")


@pytest.mark.parametrize(
    "text", [" 1500 m", "1500m", "1.5 km", "150000 cm", "1.5e3 m\n", "1510 m", "1490 meters", "1500 m."]
)
def test_equivalent_quantities_are_right(text: str) -> None:
    assert same_quantity(DISTANCE, text) == 1.0


@pytest.mark.parametrize(
    "text",
    ["1500", "1500 s", "1500 km", "1520 m", "-1500 m", "1500 m m", "about 1500 m", "m", "", "1500 m..", "1500 m. So"],
)
def test_other_quantities_are_wrong(text: str) -> None:
    assert same_quantity(DISTANCE, text) == 0.0


def test_derived_units_are_compared_by_what_they_are() -> None:
    acceleration = Example("", " 6 m/s^2")
    assert same_quantity(acceleration, "6 m/s**2") == 1.0
    assert same_quantity(acceleration, "6 m / s / s") == 1.0
    assert same_quantity(acceleration, "6 N/kg") == 1.0
    assert same_quantity(acceleration, "6 m s^-2") == 1.0
    assert same_quantity(acceleration, "6 m/s².") == 1.0
    assert same_quantity(acceleration, "6 m/s") == 0.0
    force = Example("", " 6 N")
    assert [same_quantity(force, text) for text in ("6 kg m/s^2", "6 kg·m/s²", "6 kg m/s")] == [1.0, 1.0, 0.0]


def test_a_count_has_no_unit() -> None:
    assert same_quantity(COUNT, "12") == 1.0
    assert same_quantity(COUNT, "12 m") == 0.0
    assert same_quantity(COUNT, "13") == 0.0


def test_a_count_has_to_be_equal() -> None:
    offspring = Example("", " 200")
    assert [same_quantity(offspring, text) for text in ("200", "200.", "200.0")] == [1.0, 1.0, 1.0]
    assert [same_quantity(offspring, text) for text in ("201", "199", "200.5", "200 m", "20000 %")] == [0.0] * 5


def test_a_conversion_has_to_be_in_the_unit_asked_for() -> None:
    assert same_number_and_unit(DISTANCE, "1500 meter") == 1.0
    assert same_number_and_unit(DISTANCE, "1.5 km") == 0.0
    assert same_number_and_unit(DISTANCE, "1600 m") == 0.0


@pytest.mark.parametrize(
    "text", ["9**9**9**9", "1 m^9^9^9", "1e999 m", "1 dB", "1 degC*m", "nan m", "1/0 m", "3 __import__"]
)
def test_text_that_is_no_quantity_is_wrong_and_harmless(text: str) -> None:
    assert same_quantity(DISTANCE, text) == 0.0


numbers = st.floats(-1e6, 1e6).map(lambda value: f"{value:g}") | st.text("0123456789.eE+-*", max_size=12)
units = st.text("mskgLNJolh/*^-23° ²µ()", max_size=10) | st.sampled_from(["m", "km", "s", "degC", "dB", "pH"])


@settings(max_examples=150, deadline=None)
@given(st.tuples(numbers, units).map(" ".join) | st.text(max_size=20))
def test_any_text_scores_zero_or_one(text: str) -> None:
    for example in (DISTANCE, COUNT):
        loose, strict = same_quantity(example, text), same_number_and_unit(example, text)
        assert loose in (0.0, 1.0)
        assert strict <= loose


@settings(max_examples=60, deadline=None)
@given(st.integers(-(10**7), 10**7))
def test_numbers_have_at_most_one_decimal(tenths: int) -> None:
    text = number_text(tenths / 10)
    assert text is not None
    assert float(text) == tenths / 10
    assert not text.endswith(".0")
    assert number_text(tenths / 10 + 0.04) is None
