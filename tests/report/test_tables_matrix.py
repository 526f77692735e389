"""The matrix: a row for each arm that has a budget, and a mark on what was predicted alone."""

from innerloop.report.tables_matrix import matrix
from innerloop.results.names import COST
from report.conftest import column
from results_example import example, read

RESULTS = read(example())


def test_the_matrix_has_a_row_for_each_method_of_its_budget() -> None:
    for budget in ("tokens", "seconds"):
        table, empty = matrix(RESULTS, budget, "own")
        assert [row[0].text for row in table.rows] == [row.arm for row in RESULTS.rows_of(budget)]
        assert {"peak memory, allocated", "peak memory, reserved"} == set(empty)
        tokens = {arm: cell.value for arm, cell in column(table, "tokens").items()}
        assert tokens == {row.arm: row.tokens for row in RESULTS.rows_of(budget)}
    cost, empty = matrix(RESULTS, COST, "own")
    assert [row[0].text for row in cost.rows] == ["joint", "fomaml"]
    assert not [title for title in cost.columns if "k = " in title], "never scored"


def test_only_predicted_numbers_carry_the_mark() -> None:
    for budget, expected in (
        ("tokens", {("meta-lora", "file")}),
        ("seconds", set()),
        (COST, {("fomaml", "file"), ("fomaml", "peak memory, resident")}),
    ):
        table, _ = matrix(RESULTS, budget, "own")
        marked = {
            (row[0].text, title)
            for row in table.rows
            for title, cell in zip(table.columns, row, strict=True)
            if cell.mark == "predicted"
        }
        told = {(r[0].text, t) for r in table.rows for t, c in zip(table.columns, r, strict=True) if "≈" in c.text}
        assert marked == told == expected
