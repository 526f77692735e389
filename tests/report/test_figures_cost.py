"""The bars of costs: every number that is drawn, what is predicted, and one kind of memory in one figure."""

from typing import Any

import pytest

from innerloop.report.figure_style import looks, style
from innerloop.report.figure_view import View
from innerloop.report.figures_cost import bars, memory, quantities
from innerloop.report.page import NOTHING, Figure
from innerloop.results.entries import ArmRow
from report.conftest import ARMS, texts
from results_example import example, read


def drawn(budget: str = "tokens", **changes: Any) -> Figure | None:
    with style():
        return bars(View(read(example() | changes), looks(ARMS), budget, table=None))


def figure(budget: str = "tokens", **changes: Any) -> Figure:
    found = drawn(budget, **changes)
    assert isinstance(found, Figure)
    return found


def row(arm: str, **values: Any) -> ArmRow:
    (first,) = (row for row in example()["rows"] if (row["arm"], row["budget"]) == ("joint-lora", "tokens"))
    return ArmRow.model_validate(first | {"arm": arm} | values)


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ([{"rss": 1, "allocated": 2}, {"rss": 3, "allocated": 4}], "allocated"),
        ([{"rss": 1, "allocated": 2}, {"rss": 3}], "rss"),
        ([{"rss": 1}, {"rss": 3}], "rss"),
        ([{"allocated": 2}, {}], "allocated"),
    ],
)
def test_one_kind_of_memory_is_compared(peaks: list[dict[str, int]], expected: str) -> None:
    rows = [row(f"arm {place}", peak_bytes=peak) for place, peak in enumerate(peaks)]
    found = memory(rows)
    assert found.field == f"peak_bytes.{expected}"
    assert [found.value(each) for each in rows] == [peak.get(expected) for peak in peaks]


def test_an_arm_that_trained_nothing_has_no_say_in_which() -> None:
    base, trained = row("base", tokens=0, peak_bytes={"rss": 1}), row("lora", peak_bytes={"rss": 3, "allocated": 4})
    assert memory([base, trained]).field == "peak_bytes.allocated"
    assert memory([base]).field == "peak_bytes.rss"


def test_every_cost_of_every_arm_is_told() -> None:
    found = figure()
    rows = read(example()).rows_of("tokens")
    for quantity in quantities(rows):
        told = ", ".join(
            f"{row.arm} {quantity.show(value)}" for row in rows if (value := quantity.value(row)) is not None
        )
        assert f"{quantity.title}: {told}" in found.alt
        assert quantity.title in texts(found.svg)
    assert "All measured." in found.caption
    assert "Runs of" not in found.caption


def test_what_is_predicted_is_marked_and_only_that() -> None:
    measured, predicted = figure(), figure("cost")
    assert not any("≈" in text for text in texts(measured.svg))
    assert "Hatched, with ≈: predicted." in predicted.caption
    assert sum("≈" in text for text in texts(predicted.svg)) == 1, "fomaml's memory"
    assert predicted.caption.startswith("Runs of 5 steps, for these figures only, never scored.")


def test_an_arm_without_a_cost_says_why() -> None:
    words = texts(figure("seconds").svg)
    assert {"failed", "not run yet"} <= {*words}
    assert NOTHING not in texts(figure().svg)


def test_a_cost_that_no_arm_has_is_no_panel() -> None:
    rows = [entry | {"tokens": None} for entry in example()["rows"]]
    assert "tokens" in texts(figure().svg)
    assert "tokens" not in texts(figure(rows=rows).svg)
    assert drawn(rows=[]) is None
