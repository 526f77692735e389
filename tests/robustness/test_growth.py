"""growth.py: the fit and its interval, and that every axis is timed and shown."""

from pathlib import Path

import pytest

from robustness import growth


def test_a_power_is_found_with_no_doubt() -> None:
    sizes = [1, 2, 4, 8, 16]
    for power in (0.0, 0.5, 1.0, 2.0):
        found = growth.fit(sizes, [0.3 * size**power for size in sizes])
        assert found.slope == pytest.approx(power, abs=1e-9)
        assert found.high - found.low < 1e-6
        assert found.constant == pytest.approx(0.3)


def test_what_is_no_power_has_a_wide_interval() -> None:
    sizes = [1, 2, 4, 8, 16]
    found = growth.fit(sizes, [1 + size for size in sizes])
    assert found.low < found.slope < found.high
    assert found.high - found.low > 0.1


def test_an_interval_by_hand() -> None:
    """log2 of the points: 0, 1, 2 against 0, 1, 1. Slope 1/2, residuals -1/6, 1/3, -1/6, one degree of freedom."""
    found = growth.fit([1, 2, 4], [1, 2, 2])
    error = ((1 / 36 + 1 / 9 + 1 / 36) / 1 / 2) ** 0.5
    assert found.slope == pytest.approx(0.5)
    assert found.high - found.slope == pytest.approx(12.706 * error, rel=1e-3)


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (30, 2.042)])
def test_quantiles_are_those_of_students_table(freedom: int, expected: float) -> None:
    assert growth.quantile(freedom) == pytest.approx(expected, rel=1e-3)


def test_every_axis_has_five_points_and_a_row(tmp_path: Path) -> None:
    results = growth.benchmark(tiny=True, repeats=1)
    assert set(results["axes"]) == {"tasks", "inner steps", "tokens an example", "rank", "parameters"}
    for row in results["axes"].values():
        sizes = [point["size"] for point in row["points"]]
        assert len(sizes) >= 5
        assert sizes == sorted(set(sizes))
        assert all(len(point["seconds"]) == 1 and point["seconds"][0] > 0 for point in row["points"])
    table = growth.growth_table(results)
    assert all(any(line.startswith(f"| {axis} |") for line in table) for axis in results["axes"])
    pytest.importorskip("matplotlib")
    svg, png = growth.growth_figure(results)
    assert all(f">{axis}<" in svg for axis in results["axes"])
    assert png.startswith(b"\x89PNG")
