"""The matrix: one row for each method of a budget, with what it trained, what it cost and what it scored.

matrix   the table, and the columns that no row has a value for
"""

from collections.abc import Iterator
from typing import Any

from innerloop.report.page import NOTHING, Table, TableCell, cell, number, size, whole
from innerloop.report.tables import difference_cell, score_cell
from innerloop.report.words import MAIN_METRICS, NOT_DONE, Metric, budget_title, reported_metrics
from innerloop.results.entries import ArmRow
from innerloop.results.names import COST, REFERENCE, How
from innerloop.results.schema import Results


def matrix(results: Results, budget: str, how: How) -> tuple[Table, list[str]]:
    """One row for each method, and the columns that were left out because no row has a value for them."""
    rows = results.rows_of(budget)
    columns: dict[str, list[TableCell]] = {"method": [_method(row) for row in rows]}
    columns |= {
        "algorithm": [_algorithm(row) for row in rows],
        "parameters trained": [_parameters(row) for row in rows],
    }
    columns |= {title: [_fact(row, field, show) for row in rows] for title, field, show in _FACTS}
    for metric in reported_metrics(results) if budget != COST else ():
        for change in (False, True) if metric in MAIN_METRICS else (False,):
            columns |= dict(_outcomes(results, budget, how, metric, change=change))
    seeds = [row.seeds for row in rows]
    columns["seeds"] = [
        cell(len(given), ", ".join(map(str, given))) if given else TableCell(NOTHING) for given in seeds
    ]
    empty = [title for title, cells in columns.items() if all(_is_empty(cell) for cell in cells)]
    kept = {title: cells for title, cells in columns.items() if title not in empty}
    body = [list(line) for line in zip(*kept.values(), strict=True)]
    return Table(f"{budget}-matrix", f"The matrix · {budget_title(budget)}", [*kept], body, wide=True), empty


def _method(row: ArmRow) -> TableCell:
    status = NOT_DONE.get(row.status, "")
    return TableCell(row.arm, row.arm, mark="failed" if status else "", tag=status, arm=row.arm)


def _algorithm(row: ArmRow) -> TableCell:
    return cell(row.algorithm, detail=(f"trains {row.trains or 'nothing'}",))


def _parameters(row: ArmRow) -> TableCell:
    percent = (f"{row.percent:.3g} %",) if row.percent else ()
    return _fact(row, "parameters", whole)._replace(detail=percent)


def _fact(row: ArmRow, field: str, show: Any) -> TableCell:
    """One measured or predicted value; `peak_bytes.rss` is a kind of memory."""
    outer, _, inner = field.partition(".")
    value = getattr(row, outer)
    value = value.get(inner) if inner else value
    return cell(value, None if value is None else show(value), mark="predicted" if row.is_predicted(field) else "")


def _outcomes(
    results: Results, budget: str, how: How, metric: Metric, *, change: bool
) -> Iterator[tuple[str, list[TableCell]]]:
    """A column for each k (of stopping, for the largest): the scores of the matrix's rows, or their differences."""
    arms = [row.arm for row in results.rows_of(budget)]
    for k in results.ks if metric in MAIN_METRICS else results.ks[-1:]:
        if change:
            found = [results.difference(budget, arm, how, k, metric.name) for arm in arms]
            cells = [
                difference_cell(results, budget, arm, metric, e, p=False) for arm, e in zip(arms, found, strict=True)
            ]
            yield f"{metric.differences} minus {REFERENCE}, k = {k}", cells
        else:
            found = {arm: results.score(budget, arm, how, k, metric.name) for arm in arms}
            cells = [score_cell(results, budget, arm, metric, entry) for arm, entry in found.items()]
            yield f"{metric.heading}, k = {k}", cells


def _is_empty(cell: TableCell) -> bool:
    return cell.value is None


_FACTS = (
    ("examples per task", "examples_per_task", number),
    ("tasks", "tasks", number),
    ("passes", "passes", number),
    ("outer steps", "steps", number),
    ("tokens", "tokens", whole),
    ("seconds", "seconds", lambda value: whole(value) if value >= 1000 else f"{value:.1f}"),
    ("tokens per second", "tokens_per_second", whole),
    ("peak memory, allocated", "peak_bytes.allocated", size),
    ("peak memory, reserved", "peak_bytes.reserved", size),
    ("peak memory, resident", "peak_bytes.rss", size),
    ("file", "file_bytes", size),
)
