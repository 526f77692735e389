"""benchmarks/nulls.py: what is committed has every cell and holds its aims; the simulation sees a wrong test."""

import json
from itertools import product
from pathlib import Path

import nulls
import numpy as np
import pytest

from innerloop.results.statistics import Spread, Values, bounds, sides

BENCHMARKS = Path(nulls.__file__).parent


def rate(tables: Values) -> float:
    return float((sides(bounds(tables)) != 0).mean())


def test_what_is_committed_has_every_cell_and_holds_its_aims() -> None:
    found = json.loads((BENCHMARKS / "results" / "statistics.json").read_text())
    cells = {(tuple(row["spread"]), row["tasks"], row["seeds"]) for row in found["rows"]}
    assert cells == {(tuple(spread), *each) for spread in nulls.SPREADS for each in product(nulls.TASKS, nulls.SEEDS)}
    assert len(found["rows"]) == len(cells) == 30
    assert min(row["nulls"] for row in found["rows"]) >= 10_000
    rates = [row["false_positive_rate"] for row in found["rows"]]
    assert max(rates) <= 0.08
    assert np.mean(rates) <= 0.06
    assert all(row["found"] == pytest.approx(0.8, abs=0.02) for row in found["rows"]), "as often as is promised"


def test_the_way_before_misses_them() -> None:
    found = json.loads((BENCHMARKS / "results" / "statistics.json").read_text())["controls"]
    assert len(found) == 15
    assert max(row["false_positive_rate"] for row in found) > 0.3
    assert max(row["false_positive_rate"] for row in nulls.controls(100)) > 0.3


def test_it_is_what_the_library_does_now() -> None:
    for row in nulls.rows(500):
        assert row["false_positive_rate"] <= 0.12, row
        assert row["found"] == pytest.approx(0.8, abs=0.09), row


def test_the_seed_is_shared_by_all_tasks() -> None:
    """The control: were its effect drawn for each task apart, one seed's luck would never show."""
    rng = np.random.default_rng(0)
    tables = nulls.simulated(rng, Spread(0.1, 1, 0.3), 2000, 12, 3)
    assert tables.mean(1).std() > 0.9
    assert rate(tables) < 0.08
    one_seed_as_tasks = tables[:, :, :1]
    assert rate(one_seed_as_tasks) > 0.3, "an interval over tasks of one seed's values is none of other seeds"


def test_the_table_has_a_cell_for_each_row() -> None:
    row = {"tasks": 6, "seeds": 3, "spread": [1, 0.1, 0.3], "nulls": 10000, "false_positive_rate": 0.0512}
    rows = [row | {"detectable": 1.25, "found": 0.8}, row | {"tasks": 12, "detectable": 1.0, "found": 0.79}]
    summary = {"worst": 0.0512, "mean": 0.05, "aims": {"worst": 0.08, "mean": 0.06}}
    lines = nulls.nulls_table({"rows": rows, "controls": [row | {"false_positive_rate": 0.4}], **summary})
    assert "| 1, 0.1, 0.3 | 0.400 |" in lines
    assert "| 1, 0.1, 0.3 | 0.051 | 0.051 |" in lines
    assert "| 1, 0.1, 0.3 | 1.25, 0.80 | 1.00, 0.79 |" in lines
    assert "Worst cell 0.051 (aim: at most 0.08), mean 0.050 (at most 0.06)" in lines[-1]
