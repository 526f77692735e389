"""A comparison's folder becomes its Results.

summarize   folder -> Results. What a cell doesn't have is absent; nothing is estimated

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
from innerloop.results.cell_files import AnswerSample, CellFile, PlanFile, PlannedCell
from innerloop.results.entries import ArmAnswer, ArmRow, Curves, Forgetting, Question
from innerloop.results.intervals import (
    Board,
    adaptation,
    contrasts,
    differences,
    mean,
    note,
    plain,
    positive,
    primary,
    scores,
    targets,
)
from innerloop.results.names import NO_BUDGET, How, TaskSet
from innerloop.results.pieces import Comparison, read_comparison
from innerloop.results.schema import FORMAT, Results
from innerloop.results.statistics import interval

# Known before a cell trains, so that a failed one has them too.
GIVEN = {"algorithm", "trains", "config_yaml", "command"}
COUNTED = ("parameters", "percent", "examples_per_task")
MEASURED = ("tasks", "passes", "steps", "tokens", "seconds", "tokens_per_second", "file_bytes")
TAKEN_OVER = {"name", "started", "command", "matrix_yaml", "environment", "overlaps", "protocol", "detectable"}


def summarize(folder: Path) -> Results:
    """What has been finished in the folder; status "partial" while scored cells lack their result.

    Raises UserError that names every file that is damaged or doesn't fit the others.
    """
    comparison = read_comparison(folder)
    matrix = comparison.matrix
    boards = [Board(comparison, budget) for budget in _budgets(matrix)]
    return Results(
        format=FORMAT,
        status="done" if comparison.whole else "partial",
        **{name: getattr(matrix, name) for name in TAKEN_OVER},
        notes=[*matrix.notes, *_notes(comparison)],
        primary=primary(boards, matrix.primary) if matrix.primary else None,
        rows=rows(comparison),
        scores=[entry for board in boards for entry in scores(board)],
        differences=[entry for board in boards for entry in differences(board)],
        contrasts=[entry for board in boards for entry in contrasts(board)],
        adaptation=[entry for board in boards for entry in adaptation(board)],
        targets=[entry for board in boards for entry in targets(board, matrix.targets)],
        forgetting=[entry for board in boards for entry in forgetting(comparison, board, folder)],
        training=[
            Curves(budget=cell.budget, arm=cell.arm, seed=cell.seed, **result.training.model_dump(exclude_unset=True))
            for cell, result in _done(comparison)
            if result.training.model_fields_set
        ],
        questions=questions(comparison),
    )


def rows(comparison: Comparison) -> list[ArmRow]:
    """One for each arm and budget: means over the seeds that are done."""
    groups: dict[tuple[str, str, bool], list[PlannedCell]] = defaultdict(list)
    for cell in comparison.matrix.cells:
        groups[cell.arm, cell.budget, cell.cost_only].append(cell)
    return [_row(cells, [comparison.results.get(cell.cell) for cell in cells]) for cells in groups.values()]


def forgetting(comparison: Comparison, board: Board, folder: Path) -> Iterator[Forgetting]:
    """Over tasks and seeds. Raises UserError where a seed has other tasks than the first."""
    found: dict[tuple[str, How, int], list[dict[str, float]]] = defaultdict(list)
    for cell, result in _done(comparison):
        for measured in result.forgetting if cell.budget in (board.budget, NO_BUDGET) else ():
            seeds = found[cell.arm, measured.how, measured.k]
            seeds.append(measured.kl)
            if seeds[0].keys() != measured.kl.keys():
                where = f"{folder / 'cells' / cell.cell / 'result.json'}: forgetting"
                raise UserError(Fault("other tasks than another seed's", where, sorted(measured.kl)))
    for (arm, how, k), seeds in found.items():
        said = positive(interval({task: np.array([[each[task]] for each in seeds]) for task in seeds[0]}))
        yield Forgetting(budget=board.budget, arm=arm, how=how, k=k, kl=said.pop("mean"), **said)


def questions(comparison: Comparison) -> list[Question]:
    """The questions that pieces show, with every arm's answer at its largest k, in the first draw of the first seed."""
    last: dict[tuple[str, str], int] = defaultdict(int)
    for key in comparison.scores:
        last[key.arm, key.budget] = max(key.k, last[key.arm, key.budget])
    seed = min((seed for each in comparison.scores.values() for seed in each.seeds), default=0)
    asked: dict[tuple[str, str], AnswerSample] = {}
    given: dict[tuple[str, str], list[ArmAnswer]] = defaultdict(list)
    for key, found in comparison.scores.items():
        if key.table != "unseen" or key.k != last[key.arm, key.budget] or seed not in found.seeds:
            continue
        for task, scored in found.pieces[seed, 0].tasks.items():
            for each in scored.samples:
                asked.setdefault((task, each.id), each)
                where = {"budget": key.budget, "arm": key.arm, "how": key.how, "k": key.k}
                given[task, each.id].append(ArmAnswer(**where, text=each.written, correct=each.correct))
    return [
        Question(task=task, id=name, prompt=each.prompt, right=each.right, answers=given[task, name])
        for (task, name), each in asked.items()
    ]


def _notes(comparison: Comparison) -> Iterator[str]:
    """What the intervals cover, and answers that were not checked."""
    for table in get_args(TaskSet):
        if (said := note(comparison, table)) is not None:
            yield said
    chosen = (piece for found in comparison.scores.values() for piece in found.chosen)
    if count := sum(len(task.unchecked) for piece in chosen for task in piece.tasks.values()):
        yield f"{count} answers count as wrong because checking them failed"


def _budgets(matrix: PlanFile) -> list[str]:
    """In the matrix's order; where nothing is trained, the one of no name."""
    named = dict.fromkeys(cell.budget for cell in matrix.cells if cell.budget and not cell.cost_only)
    return list(named) or [NO_BUDGET]


def _done(comparison: Comparison) -> Iterator[tuple[PlannedCell, CellFile]]:
    for cell in comparison.matrix.cells:
        result = comparison.results.get(cell.cell)
        if result is not None and result.status == "done" and not cell.cost_only:
            yield cell, result


def _row(cells: Sequence[PlannedCell], results: Sequence[CellFile | None]) -> ArmRow:
    done = [result for result in results if result is not None and result.status == "done"]
    failed = [result for result in results if result is not None and result.status == "failed"]
    lacking = [
        (cell.seed, "no result yet" if result is None else result.reason)
        for cell, result in zip(cells, results, strict=True)
        if result is None or result.status == "failed"
    ]
    alone, known = len(cells) == 1, done or failed
    numbers: dict[str, Any] = known[0].model_dump(include=GIVEN, exclude_none=True) if known else {}
    for name in (*COUNTED, *MEASURED):
        numbers |= _average(name, [getattr(result, name) for result in (known if name in COUNTED else done)])
    peaks: dict[str, Any] = {}
    for name in dict.fromkeys(name for result in done for name in result.peak_bytes):
        peaks |= _average(name, [result.peak_bytes.get(name) for result in done])
    return ArmRow(
        arm=cells[0].arm,
        budget=cells[0].budget,
        cost_only=cells[0].cost_only,
        status="failed" if failed else "done" if len(done) == len(cells) else "missing",
        reason="; ".join(reason if alone else f"seed {seed}: {reason}" for seed, reason in lacking),
        seeds=[result.seed for result in done],
        predicted=sorted({name for result in done for name in result.predicted}),
        **numbers,
        peak_bytes=peaks,
    )


def _average(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """Nothing where no seed has a value."""
    known = [value for value in values if value is not None]
    return {name: plain(mean(known))} if known else {}
