"""A comparison's folder as it is left on disk, with effects that are known because they were planted.

write_comparison   matrix.json, a result for each cell, and its scores
Planted            arm -> how many nats better than joint-lora (after adapting), and how much that varies
edit               change one JSON file in place
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

UNTRAINED = ("base", "in-context")
K = 8


class Planted(NamedTuple):
    gain: float = 0.0
    per_task: float = 0.05
    noise: float = 0.1


def write_comparison(
    folder: Path,
    arms: Mapping[str, Planted],
    *,
    budgets: Sequence[str] = ("tokens",),
    seeds: Sequence[int] = (1, 2, 3),
    draws: int = 2,
    tasks: int = 8,
    examples: int = 12,
    seen: bool = False,
    primary: Mapping[str, Any] | None = None,
    stopping: bool = False,
) -> None:
    """Nats fall, accuracies rise by the gain. Every file lists its examples in an order of its own.

    stopping: whether scores have the nats of what ends an answer, a tenth of the others.
    """
    cells = list(_cells(arms, budgets, seeds))
    names = [f"task {index}" for index in range(tasks)]
    protocol = {"k": [0, K], "draws": draws, "seeds": list(seeds), "test_examples": examples}
    matrix = {
        "name": "planted",
        "command": "innerloop compare planted.yaml",
        "matrix_yaml": "name: planted\n",
        "environment": {"python": "3", "packages": {}},
        "started": "2026-01-01",
        "protocol": protocol | {"held_out": names, "validation": ["v"], "train": ["t"]},
        "notes": ["planted"],
        "detectable": {"nats": 0.2, "accuracy": 0.1, "assumptions": "none"},
        "primary": primary,
        "targets": {"nats": 1.5, "accuracy": 0.5},
        "cells": cells,
    }
    _write(folder / "matrix.json", matrix)
    for cell in cells:
        _write(folder / "cells" / cell["cell"] / "result.json", _result(cell, names))
        for piece in _pieces(cell, arms[cell["arm"]], names, draws=draws, examples=examples, seen=seen):
            for scores in piece["tasks"].values() if stopping else ():
                scores["stop_nats"] = [nats / 10 for nats in scores["nats"]]
            name = "{table}-k{k}-draw{draw}-{how}.json".format(**piece)
            _write(folder / "cells" / cell["cell"] / "scores" / name, piece)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _cells(arms: Mapping[str, Planted], budgets: Sequence[str], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    for arm in arms:
        for budget in ("",) if arm in UNTRAINED else budgets:
            for seed in seeds:
                name = f"{arm}-{budget}-{seed}"
                yield {"cell": name, "arm": arm, "budget": budget, "seed": seed, "cost_only": False}


def _result(cell: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    seed, trained = cell["seed"], cell["arm"] not in UNTRAINED
    return {
        **cell,
        "status": "done",
        "reason": "",
        "algorithm": "an algorithm",
        "trains": "LoRA",
        "parameters": 1000,
        "percent": 0.5,
        "steps": 10 * seed,
        "seconds": 2.5 * seed,
        "peak_bytes": {"rss": 100 * seed},
        "config_yaml": "seed: 1\n",
        "command": "innerloop train run.yaml",
        "predicted": [],
        "forgetting": [{"how": "own", "k": K, "kl": dict.fromkeys(tasks, 0.1 * seed)}] if trained else [],
        "training": {"tokens": [10, 20], "loss": [2.0, 1.0], "support_first": [None, 2.0]} if trained else {},
    }


def _pieces(
    cell: Mapping[str, Any], planted: Planted, tasks: Sequence[str], *, draws: int, examples: int, seen: bool
) -> Iterator[dict[str, Any]]:
    arm = cell["arm"]
    hows = {"base": (), "in-context": ("none",)}.get(arm, ("tuned",) if arm == "joint-lora" else ("own", "tuned"))
    lines = [] if arm == "in-context" else [("unseen", 0, 0, "none")] + [("seen", 0, 0, "none")] * seen
    lines += [("unseen", K, draw, how) for how in hows for draw in range(draws)]
    for table, k, draw, how in lines:
        scores = {task: _scores(cell, planted, task, table, k, draw, how, examples) for task in tasks}
        last = float(np.mean([np.mean(each["nats"]) for each in scores.values()]))
        yield {
            **{name: cell[name] for name in ("arm", "budget", "seed")},
            **{"table": table, "draw": draw, "k": k, "how": how, "tasks": scores},
            **{"steps": 3 if how in ("own", "tuned") else 0, "lr": 0.01 if k else None},
            "curve": [[0, last + 1], [1, last + 0.5], [3, last]] if how in ("own", "tuned") else [[0, last]],
        }


def _scores(
    cell: Mapping[str, Any], planted: Planted, task: str, table: str, k: int, draw: int, how: str, examples: int
) -> dict[str, Any]:
    difficulty = _rng(table, task).normal(2.0, 0.5) + _rng(table, task, "examples").normal(0.0, 0.5, examples)
    own = _rng(cell["arm"], task).normal(planted.gain, planted.per_task) if k else planted.gain / 10
    noise = _rng(*map(str, (*cell.values(), task, table, k, draw, how))).normal(0.0, planted.noise, examples)
    nats = difficulty - own - 0.5 * bool(k) + noise
    order = _rng(cell["arm"], task, "order").permutation(examples)
    return {
        "ids": [f"{task} {index}" for index in order],
        "nats": np.maximum(nats, 0.0)[order].tolist(),
        "correct": (nats < 1.5)[order].astype(float).tolist(),
        "support_nats": 0.25 if k else None,
    }


def _rng(*names: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
