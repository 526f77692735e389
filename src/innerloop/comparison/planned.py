"""What a comparison is going to be, as matrix.json has it: its tasks, its cells, and which effect it can detect.

planned   a matrix and the session of its first seed -> matrix.json
protocol_facts   what of it a comparison of one run has too
ASSUMED   the spreads that the effect is computed for
"""

import math
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from innerloop.comparison.arms import Derived
from innerloop.comparison.cells import identity
from innerloop.comparison.matrix import Matrix, cells
from innerloop.engine.session import Session
from innerloop.machine import commit, environment
from innerloop.report.page import counted
from innerloop.results.statistics import FEWEST, Spread, detectable_effect, unjudged

FEW_TASKS = 10

# Standard deviations of tuned META-LORA's difference from tuned joint LoRA over 12 tasks and 3 seeds, as the demo of
# release 0.1.0 measured them, rounded up. Only the effect that is printed beforehand uses them.
ASSUMED = {
    "nats": Spread(tasks=0.6, seeds=0.75, both=1.2),
    "accuracy": Spread(tasks=0.05, seeds=0.04, both=0.19),
}


def planned(
    matrix: Matrix, session: Session, *, path: Path, folder: Path, derived: Derived | None = None
) -> dict[str, Any]:
    """path: of the matrix, or of the run that it was derived from."""
    part, options = matrix.evaluation, derived.options if derived else ()
    return {
        "name": matrix.name,
        "command": shlex.join(["innerloop", "compare", str(path), *options, "--output", str(folder)]),
        "matrix_yaml": derived.text if derived else path.read_text(encoding="utf-8"),
        "matrix": matrix.model_dump(mode="json"),
        **protocol_facts(session, k=part.k, draws=part.draws, seeds=matrix.seeds),
        "primary": matrix.primary_contrast,
        "targets": part.targets.model_dump(),
        "cells": [identity(cell) for cell in cells(matrix)],
    }


def protocol_facts(session: Session, *, k: Sequence[int], draws: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Where and on what everything is scored, and which effect that can detect."""
    names = {role: [task.task.name for task in getattr(session, role)] for role in ("train", "validation", "held_out")}
    tests, tasks = len(session.held_out[0].test), len(session.held_out)
    notes = [f"{tasks} held-out tasks: valid for these tasks only"] if tasks < FEW_TASKS else []
    return {
        "environment": {**environment(), "commit": commit()},
        "started": datetime.now(UTC).date().isoformat(),
        "protocol": {"k": sorted(k), "draws": draws, "seeds": list(seeds), "test_examples": tests, **names},
        "notes": [*notes, *session.warnings],
        "overlaps": [overlap._asdict() for overlap in session.overlaps],
        "detectable": _detectable(tasks=tasks, seeds=len(seeds)),
    }


def _detectable(*, tasks: int, seeds: int) -> dict[str, Any]:
    """Effect of each metric, and what it assumes; without effects where nothing can be said of a method."""
    if unjudged(tasks=tasks, seeds=seeds) is not None:
        here = f"{counted(tasks, 'unseen task')} and {counted(seeds, 'training seed')}"
        return {"assumptions": f"nothing about methods from {here}: {FEWEST} are needed"}
    found = {metric: detectable_effect(spread, tasks=tasks, seeds=seeds) for metric, spread in ASSUMED.items()}
    most = {"nats": math.inf, "accuracy": 1}  # no two accuracies differ by more
    effects = {metric: effect for metric, effect in found.items() if effect is not None and effect < most[metric]}
    spreads = [
        f"{', '.join(f'{part:g}' for part in spread)} {unit}"
        for spread, unit in ((ASSUMED["nats"], "nats"), (Spread(*(100 * p for p in ASSUMED["accuracy"])), "points"))
    ]
    assumed = f"assuming standard deviations between tasks, seeds and their pairs of {' and '.join(spreads)}"
    return {**effects, "assumptions": assumed}
