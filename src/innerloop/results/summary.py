"""A comparison's folder becomes results.json, the one thing that a report reads.

summarize   folder -> its dictionary. What a cell doesn't have is absent; nothing is estimated

Draws and examples are averaged within a task and seed, tasks and seeds with equal weight. Every trained arm is
compared with joint-lora at the same budget, k and adaptation, with joint too if it trains all parameters, on the seeds
both have.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from innerloop.errors import Fault, UserError
from innerloop.results.intervals import (
    Board,
    Entry,
    adaptation,
    contrasts,
    differences,
    mean,
    note,
    plain,
    primary,
    scores,
    targets,
)
from innerloop.results.pieces import Comparison, read_comparison
from innerloop.results.schema import Cell, Matrix, Result, Table
from innerloop.results.statistics import interval

FORMAT = 1

# Known before a cell trains, so that a failed one has them too.
GIVEN = ("algorithm", "trains", "config_yaml", "command")
COUNTED = ("parameters", "percent", "examples_per_task")
MEASURED = ("tasks", "passes", "steps", "tokens", "seconds", "tokens_per_second", "file_bytes")


def summarize(folder: Path) -> dict[str, Any]:
    """results.json of what has been finished in the folder; status "partial" while scored cells lack their result.

    Raises UserError that names every file that is damaged or doesn't fit the others.
    """
    comparison = read_comparison(folder)
    matrix = comparison.matrix
    boards = [Board(comparison, budget) for budget in _budgets(matrix)]
    covered = [said for table in get_args(Table) if (said := note(comparison, table)) is not None]
    return {
        "format": FORMAT,
        "name": matrix.name,
        "status": "done" if comparison.whole else "partial",
        "started": matrix.started,
        "command": matrix.command,
        "matrix_yaml": matrix.matrix_yaml,
        "environment": matrix.environment,
        "notes": [*matrix.notes, *covered],
        "overlaps": matrix.overlaps,
        "protocol": matrix.protocol.model_dump(),
        "detectable": matrix.detectable,
        "primary": primary(boards, matrix.primary) if matrix.primary else None,
        "rows": rows(comparison),
        "scores": [entry for board in boards for entry in scores(board)],
        "differences": [entry for board in boards for entry in differences(board)],
        "contrasts": [entry for board in boards for entry in contrasts(board)],
        "adaptation": [entry for board in boards for entry in adaptation(board)],
        "targets": [entry for board in boards for entry in targets(board, matrix.targets)],
        "forgetting": [entry for board in boards for entry in forgetting(comparison, board, folder)],
        "training": list(training(comparison)),
    }


def rows(comparison: Comparison) -> list[Entry]:
    """One for each arm and budget: means over the seeds that are done."""
    groups: dict[tuple[str, str, bool], list[Cell]] = defaultdict(list)
    for cell in comparison.matrix.cells:
        groups[cell.arm, cell.budget, cell.cost_only].append(cell)
    return [_row(cells, [comparison.results.get(cell.cell) for cell in cells]) for cells in groups.values()]


def training(comparison: Comparison) -> Iterator[Entry]:
    for cell, result in _done(comparison):
        if result.training:
            yield {"budget": cell.budget, "arm": cell.arm, "seed": cell.seed, **result.training}


def forgetting(comparison: Comparison, board: Board, folder: Path) -> Iterator[Entry]:
    """Over tasks and seeds. Raises UserError where a seed has other tasks than the first."""
    found: dict[tuple[str, str, int], list[dict[str, float]]] = defaultdict(list)
    for cell, result in _done(comparison):
        for measured in result.forgetting if cell.budget in (board.budget, "") else ():
            seeds = found[cell.arm, measured.how, measured.k]
            seeds.append(measured.kl)
            if seeds[0].keys() != measured.kl.keys():
                where = f"{folder / 'cells' / cell.cell / 'result.json'}: forgetting"
                raise UserError(Fault("other tasks than another seed's", where, sorted(measured.kl)))
    for (arm, how, k), seeds in found.items():
        kl = {task: np.array([each[task] for each in seeds]).reshape(-1, 1, 1) for task in seeds[0]}
        said = interval(kl)
        entry = {"budget": board.budget, "arm": arm, "how": how, "k": k, "kl": said.mean}
        yield entry if said.low is None else {**entry, "low": max(said.low, 0.0), "high": said.high}


def _budgets(matrix: Matrix) -> list[str]:
    """In the matrix's order; where nothing is trained, the one of no name."""
    named = dict.fromkeys(cell.budget for cell in matrix.cells if cell.budget and not cell.cost_only)
    return list(named) or [""]


def _done(comparison: Comparison) -> Iterator[tuple[Cell, Result]]:
    for cell in comparison.matrix.cells:
        result = comparison.results.get(cell.cell)
        if result is not None and result.status == "done" and not cell.cost_only:
            yield cell, result


def _row(cells: Sequence[Cell], results: Sequence[Result | None]) -> Entry:
    done = [result for result in results if result is not None and result.status == "done"]
    failed = [result for result in results if result is not None and result.status == "failed"]
    status = "failed" if failed else "done" if len(done) == len(cells) else "missing"
    lacking = [
        (cell.seed, "no result yet" if result is None else result.reason)
        for cell, result in zip(cells, results, strict=True)
        if result is None or result.status == "failed"
    ]
    alone = len(cells) == 1
    row: Entry = {
        "arm": cells[0].arm,
        "budget": cells[0].budget,
        "cost_only": cells[0].cost_only,
        "status": status,
        "reason": "; ".join(reason if alone else f"seed {seed}: {reason}" for seed, reason in lacking),
        "seeds": [result.seed for result in done],
        "predicted": sorted({name for result in done for name in result.predicted}),
    }
    known = done or failed
    if known:
        row |= known[0].model_dump(include=set(GIVEN), exclude_none=True)
    for name in (*COUNTED, *MEASURED):
        row |= _average(name, [getattr(result, name) for result in (known if name in COUNTED else done)])
    peaks = dict.fromkeys(name for result in done for name in result.peak_bytes)
    row["peak_bytes"] = {}
    for name in peaks:
        row["peak_bytes"] |= _average(name, [result.peak_bytes.get(name) for result in done])
    return row


def _average(name: str, values: Sequence[float | None]) -> Entry:
    """Nothing where no seed has a value."""
    known = [value for value in values if value is not None]
    return {name: plain(mean(known))} if known else {}
