"""A comparison's folder, read and checked: what was planned, what became of each cell, and every score.

Legend: S = training seeds, D = support draws, E = test examples of a task; cell = one arm, budget and seed.

Key               what the scores of one line of a table have in common
ScoredPiece       scores of one seed and draw
Scores            the pieces of a key, as arrays (S, D, E)
Comparison        all of a folder
read_comparison   folder -> Comparison; names every file that is damaged or doesn't fit the others
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from innerloop.errors import Faults, did_you_mean
from innerloop.results.cell_files import CellFile, PieceFile, PlanFile, PlannedCell, TaskScores
from innerloop.results.names import NO_BUDGET, UNTRAINED, How, MetricName, TaskSet, known_arms, read_record

Values = NDArray[np.float64]


class Key(NamedTuple):
    table: TaskSet
    budget: str
    arm: str
    how: How
    k: int


@dataclass(frozen=True)
class ScoredPiece:
    """ids: task -> test examples, sorted; values: metric -> task -> (E,), in that order."""

    path: Path
    file: PieceFile

    @property
    def tasks(self) -> dict[str, TaskScores]:
        return self.file.tasks

    @cached_property
    def ids(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(sorted(task.ids)) for name, task in self.tasks.items()}

    @cached_property
    def values(self) -> dict[MetricName, dict[str, Values]]:
        fields: dict[MetricName, str] = {"nats": "nats", "accuracy": "correct", "stop_nats": "stop_nats"}
        return {metric: self._sorted(field) for metric, field in fields.items() if self._has(field)}

    def _has(self, field: str) -> bool:
        return all(getattr(task, field) is not None for task in self.tasks.values())

    def _sorted(self, field: str) -> dict[str, Values]:
        orders = {name: sorted(range(len(task.ids)), key=task.ids.__getitem__) for name, task in self.tasks.items()}
        return {name: np.array(getattr(task, field), np.float64)[orders[name]] for name, task in self.tasks.items()}


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Pieces by (seed, draw). seeds: those with every draw; the others take no part."""

    pieces: Mapping[tuple[int, int], ScoredPiece]
    seeds: tuple[int, ...]
    draws: int

    @property
    def metrics(self) -> list[MetricName]:
        """Those that every piece has."""
        return [metric for metric in get_args(MetricName) if all(metric in piece.values for piece in self.chosen)]

    @property
    def cut(self) -> tuple[int, int] | None:
        """How many answers were cut off before they ended, of how many; None where a piece doesn't say."""
        tasks = [task for piece in self.chosen for task in piece.tasks.values()]
        known = [task.cut for task in tasks if task.cut is not None]
        return (sum(known), sum(len(task.ids) for task in tasks)) if len(known) == len(tasks) else None

    @property
    def chosen(self) -> list[ScoredPiece]:
        return [self.pieces[seed, draw] for seed in self.seeds for draw in range(self.draws)]

    def array(self, metric: MetricName, seeds: Sequence[int]) -> dict[str, Values]:
        """Task -> (S, D, E), seeds in the order given."""
        rows = [[self.pieces[seed, draw].values[metric] for draw in range(self.draws)] for seed in seeds]
        return {task: np.array([[piece[task] for piece in row] for row in rows]) for task in rows[0][0]}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """results: by the cell's name; a cell that has none yet is absent."""

    matrix: PlanFile
    results: Mapping[str, CellFile]
    scores: Mapping[Key, Scores]

    @property
    def whole(self) -> bool:
        """Every cell that is to be scored has its result and, unless it failed, scores of every draw."""
        cells = [cell for cell in self.matrix.cells if not cell.cost_only]
        done = {
            (cell.arm, cell.budget, cell.seed)
            for cell in cells
            if cell.cell in self.results and self.results[cell.cell].status == "done"
        }
        found = {(key.arm, key.budget, seed) for key, each in self.scores.items() for seed, _ in each.pieces}
        ended = all(cell.cell in self.results for cell in cells) and done == found
        return ended and all({seed for seed, _ in each.pieces} == set(each.seeds) for each in self.scores.values())


_Pieces = dict[Key, dict[tuple[int, int], ScoredPiece]]


def read_comparison(folder: Path) -> Comparison:
    """Raises UserError with all faults of the files that matrix.json's cells have."""
    faults = Faults()
    matrix = read_record(folder / "matrix.json", PlanFile, faults)
    faults.raise_if_any()
    assert matrix is not None
    _check_cells(matrix, folder / "matrix.json", faults)
    faults.raise_if_any()
    results = _results(folder, matrix, faults)
    pieces: _Pieces = defaultdict(dict)
    for cell in matrix.cells:
        # What an interrupted or failed cell left behind is no score.
        if not cell.cost_only and cell.cell in results and results[cell.cell].status == "done":
            _read_pieces(folder / "cells" / cell.cell / "scores", cell, matrix.protocol.draws, pieces, faults)
    faults.raise_if_any()
    _check_pairs(pieces, faults)
    faults.raise_if_any()
    draws = matrix.protocol.draws
    scores = {key: _scores(found, draws if key.k else 1) for key, found in pieces.items()}
    return Comparison(matrix=matrix, results=results, scores=scores)


def _check_cells(matrix: PlanFile, path: Path, faults: Faults) -> None:
    seen: set[tuple[Any, ...]] = set()
    for cell in matrix.cells:
        where = f"{path}: cell {cell.cell}"
        if cell.arm not in known_arms():
            faults.add("unknown arm", where, cell.arm, did_you_mean(cell.arm, known_arms()))
        elif (cell.arm in UNTRAINED) != (cell.budget == NO_BUDGET):
            right = "\"\" for arms that don't train, a budget's name for those that do"
            faults.add("not the arm's budget", where, cell.budget, right)
        names = {(cell.cell,), (cell.arm, cell.budget, cell.seed, cell.cost_only)}
        if names & seen:
            faults.add("a cell that is there twice", where)
        seen |= names


def _results(folder: Path, matrix: PlanFile, faults: Faults) -> dict[str, CellFile]:
    found: dict[str, CellFile] = {}
    for cell in matrix.cells:
        path = folder / "cells" / cell.cell / "result.json"
        result = read_record(path, CellFile, faults) if path.exists() else None
        if result is not None:
            _check_names(result, cell, ("cell", "arm", "budget", "seed", "cost_only"), path, faults)
            found[cell.cell] = result
    return found


def _read_pieces(folder: Path, cell: PlannedCell, draws: int, pieces: _Pieces, faults: Faults) -> None:
    for path in sorted(folder.glob("*.json")):
        file = read_record(path, PieceFile, faults)
        if file is None:
            continue
        known = len(faults)
        _check_names(file, cell, ("arm", "budget", "seed"), path, faults)
        if file.k == 0 and (file.draw, file.how) != (0, "none"):
            faults.add("k = 0 has nothing to adapt on", str(path), (file.draw, file.how), "draw 0, how none")
        if file.table == "seen" and file.k:
            faults.add("tasks that were trained on are scored without examples", str(path), file.k, "k = 0")
        if file.draw >= draws:
            faults.add("more draws than the protocol's", str(path), file.draw, f"a draw from 0 to {draws - 1}")
        for name, task in file.tasks.items():
            lists = [task.ids, set(task.ids), task.nats, task.correct]
            counts = tuple(map(len, lists if task.stop_nats is None else [*lists, task.stop_nats]))
            if len(set(counts)) > 1:
                right = "as many nats, stop_nats and correct as ids, no id twice"
                faults.add("scores that don't fit their ids", f"{path}: task {name}", counts, right)
        same = pieces[Key(file.table, file.budget, file.arm, file.how, file.k)]
        if (other := same.get((file.seed, file.draw))) is not None:
            faults.add(f"the same table, k, draw and how as in {other.path.name}", str(path))
        if len(faults) == known:
            same[file.seed, file.draw] = ScoredPiece(path, file)


def _scores(pieces: Mapping[tuple[int, int], ScoredPiece], draws: int) -> Scores:
    seeds = dict.fromkeys(seed for seed, _ in pieces)
    whole = tuple(sorted(seed for seed in seeds if all((seed, draw) in pieces for draw in range(draws))))
    return Scores(pieces=pieces, seeds=whole, draws=draws)


def _check_pairs(pieces: _Pieces, faults: Faults) -> None:
    """Arms are compared example by example, and the pieces of a key become one array."""
    arms: dict[tuple[TaskSet, int, int, int], ScoredPiece] = {}
    for key, found in pieces.items():
        first = next(iter(found.values()))
        for (seed, draw), piece in found.items():
            other = arms.setdefault((key.table, seed, draw, key.k), piece)
            if differing := _unlike(piece.ids, other.ids):
                faults.add("other test examples", str(piece.path), differing, f"the same ids as in {other.path}")
            elif differing := _unlike(_counts(piece), _counts(first)):
                faults.add("another number of test examples", str(piece.path), differing, f"as many as in {first.path}")


def _counts(piece: ScoredPiece) -> dict[str, int]:
    return {task: len(ids) for task, ids in piece.ids.items()}


def _unlike(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Tasks that only one has, or that differ."""
    return sorted(task for task in one.keys() | other.keys() if one.get(task) != other.get(task))


def _check_names(
    found: CellFile | PieceFile, cell: PlannedCell, names: Sequence[str], path: Path, faults: Faults
) -> None:
    for name in names:
        if (value := getattr(found, name)) != getattr(cell, name):
            right = f"{getattr(cell, name)!r}, as matrix.json has cell {cell.cell}"
            faults.add(f"another {name} than its cell's", str(path), value, right)
