"""Whole comparisons that take seconds: matrices on the tasks of `small_runs`, and their cells run in this process.

ARMS         of a small matrix, each with its own part of a run.yaml
small        the tree of a small matrix; dotted keys on top
matrix_file  the same as a YAML file
read_matrix  such a file, where nothing is wrong with it
Compared     a comparison that ran: its file and folder, its matrix, its results
run_here     begins a comparison and runs its cells without a process for each
scores_of    a cell's pieces by name
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from innerloop.comparison.cells import run_cell
from innerloop.comparison.compare import begin
from innerloop.comparison.matrix import Matrix
from innerloop.comparison.reading import sound_matrix
from innerloop.config.document import to_yaml
from innerloop.config.schema import ABSENT
from innerloop.errors import Faults
from innerloop.results.schema import Results
from innerloop.results.summary import summarize
from small_runs import NOTHING, Changes, World

ARMS: dict[str, dict[str, Any]] = {
    "base": {},
    "in-context": {},
    "lora": {},
    "joint-lora": {},
    "fomaml-lora": {},
    "meta-lora": {},
    "joint": {},
}
TRAIN, VALIDATION, HELD_OUT = ["ada", "bob"], ["dee"], ["cy"]
TEST, K = 3, 4


class Compared(NamedTuple):
    file: Path
    folder: Path
    matrix: Matrix
    results: Results

    def cell(self, name: str) -> Path:
        return self.folder / "cells" / name


def small(world: World, changes: Changes = NOTHING) -> dict[str, Any]:
    """`changes`: dotted keys; ABSENT leaves one out."""
    tree: dict[str, Any] = {
        "name": "small",
        "runs": {
            "every": {
                "model": {"name": str(world.base)},
                "tasks": {"folder": str(world.tasks), "test": TEST, "support": 3, "query": 2}
                | {"held_out": HELD_OUT, "validation": VALIDATION},
                "outer": {"tasks_per_step": 2},
            },
            "lora": {
                "method": {"lora": {"r": 2, "lora_alpha": 4, "layers": "last-1"}},
                "memory": {"trunk_cache": True},
            },
            "all": {},
        },
        "arms": ARMS,
        "cost_only": {"steps": 2, "arms": {"fomaml": {}}},
        "budgets": {"tokens": 3000},
        "seeds": [1],
        "evaluation": {
            "k": [0, K],
            "draws": 2,
            "grid": {"lora": {"lr": [0.01, 0.1], "steps": [1, 3]}, "all": {"lr": [0.01], "steps": [2]}},
            "forgetting_prompts": 3,
        },
    }
    for key, value in changes.items():
        _set(tree, key.split("."), value)
    return tree


def matrix_file(world: World, folder: Path, changes: Changes = NOTHING) -> Path:
    path = folder / "matrix.yaml"
    path.write_text(to_yaml(small(world, changes)))
    return path


def read_matrix(path: Path) -> Matrix:
    """Raises UserError with everything that is wrong with the file and with each arm's run."""
    faults = Faults()
    matrix = sound_matrix(path, faults)
    faults.raise_if_any()
    assert matrix is not None
    return matrix


def run_here(file: Path, folder: Path) -> Compared:
    begun = begin(file, folder)
    for cell in begun.missing:
        run_cell(folder, cell.name, lambda *_: None)
    return Compared(file, folder, begun.matrix, summarize(folder))


def scores_of(cell: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((cell / "scores").glob("*.json"))}


def _set(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """In copies of the sections on the way."""
    name, *rest = path
    if rest:
        inside = tree.get(name, {})
        tree[name] = dict(inside) if isinstance(inside, Mapping) else {}
        _set(tree[name], rest, value)
    elif value is ABSENT:
        tree.pop(name, None)
    else:
        tree[name] = value
