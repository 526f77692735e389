"""A comparison of one run: `innerloop eval`.

protocol_of   what is measured of a finished run
tuned_by_eval what that chose of rate and steps, for each k
to_score      the tasks that are going to be scored, checked
evaluate      all of it, in a folder of the run's that is as a comparison leaves it
"""

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from innerloop.artifacts.finished import Finished, finished
from innerloop.comparison.cells import RESULT, identity
from innerloop.comparison.matrix import PLAN, Cell
from innerloop.comparison.planned import protocol_facts
from innerloop.comparison.scores import noted, score_pieces, tuned
from innerloop.config.loading import RunConfig
from innerloop.engine.groundwork import Groundwork, Say, groundwork
from innerloop.engine.inspection import warn_of_more
from innerloop.engine.session import prepare
from innerloop.errors import Fault, Faults, UserError
from innerloop.evaluation.generation import cap_fault
from innerloop.evaluation.in_context import prompt_faults
from innerloop.evaluation.protocol import Initialization, Piece, Protocol, adaptations, measure, pieces
from innerloop.files import write_json
from innerloop.learning.inner_loop import InnerLoop
from innerloop.loading.architecture import positions_of
from innerloop.loading.models import LoadedModel
from innerloop.results.names import OWN_BUDGET, How
from innerloop.results.schema import RESULTS, Results
from innerloop.results.summary import summarize
from innerloop.runs.learned import Learned
from innerloop.runs.reloading import at_its_base, check_shared


class Evaluated(NamedTuple):
    folder: Path
    results: Results


def protocol_of(config: RunConfig, *, k: Sequence[int], draws: int, max_new_tokens: int | None = None) -> Protocol:
    """Raises UserError for a k below 0."""
    if min(k) < 0:
        raise UserError(Fault("less than no example", "--k", min(k), "0 or above"))
    grid = config.method.row.space.grid
    return Protocol(k=tuple(sorted(set(k))), draws=draws, grid=grid, max_new_tokens=max_new_tokens, seed=config.seed)


def to_score(
    folder: Path, protocol: Protocol, say: Say | None = None, *, model: LoadedModel | None = None
) -> Groundwork:
    """The tasks of a finished run that are going to be scored, before its model is read.

    Raises UserError where no task was held out, one has fewer than k examples, longer answers than allowed or, in
    context, too long prompts, or its data can't be read any more.
    """
    run, faults, found = finished(folder), Faults(), None
    check_shared(run)
    with faults.collecting():
        found = groundwork(run.config if model else at_its_base(run), model=model, say=say)
    if not run.config.tasks.held_out:
        faults.add("this run held no task out", "tasks.held_out", expected="names of tasks to score")
    if found:
        _check_examples(found, max(protocol.k), faults)
        scored = [task for task in found.held_out if task.test]
        faults += cap_fault(scored, protocol.max_new_tokens, "--max-new-tokens")
        faults += prompt_faults(scored, protocol, positions=positions_of(found.model))
        warn_of_more(run.config, max(protocol.k))
    faults.raise_if_any()
    assert found is not None
    return found


def _check_examples(found: Groundwork, most: int, faults: Faults) -> None:
    for task in (*found.held_out, *found.validation):
        if len(task.pool) < most:
            right = f"at most {len(task.pool)}, the examples of {task.task.name}"
            faults.add("more examples than a task has", "--k", most, right)
    if not all(task.test for task in found.held_out):
        faults.add("no test example is left", "tasks.test", expected="more examples per task")


def evaluate(learned: Learned, protocol: Protocol, say: Say, *, ground: Groundwork | None = None) -> Evaluated:
    """The scores of a finished run on the tasks that it held out; "tuned" where it has validation tasks.

    ground: what `to_score` found, where that was called before the run was loaded.
    Every piece is kept under the run's eval/ and, at equal arguments, not measured again.
    Raises UserError as `to_score` does.
    """
    ground = ground or to_score(learned.folder, protocol, model=learned.model)
    session = prepare(learned.config, model=learned.model, ground=ground)
    cell = Cell(learned.config.method.name, OWN_BUDGET, protocol.seed)
    folder = learned.folder / "eval" / hashlib.sha256(repr(protocol).encode()).hexdigest()[:12]
    place = folder / "cells" / cell.name
    choices = tuned(place, learned.space, protocol, session.validation, say) if session.validation else {}
    what = Initialization(learned.space, learned.model, learned.inner, choices)

    def measured(piece: Piece) -> dict[str, Any]:
        return cell._asdict() | measure(piece, what, session.held_out, protocol)

    hows: list[How] = [how for how in adaptations(in_context=learned.in_context) if choices or how != "tuned"]
    score_pieces(place, pieces(protocol, hows=hows), measured, say)
    if not (folder / PLAN).exists():
        facts = protocol_facts(session, k=protocol.k, draws=protocol.draws, seeds=[protocol.seed])
        name, command = str(learned.folder), _command(learned.folder, protocol)
        plan = {"name": name, "command": command, "matrix_yaml": "", **facts, "cells": [identity(cell)]}
        write_json(place / RESULT, {**identity(cell), "status": "done"})
        write_json(folder / PLAN, plan)
    results = summarize(folder)
    results.write(folder / RESULTS)
    learned.write_card()  # it says the scores
    return Evaluated(folder, results)


def tuned_by_eval(run: Finished) -> dict[int, InnerLoop]:
    """k -> the inner loop that the run's validation tasks chose. Raises UserError where none did."""
    notes = sorted((run.folder / "eval").glob("*/cells/*/tuned.json"))
    found = {k: inner for note in notes for k, inner in noted(note).items()}
    if found:
        return found
    if run.config.tasks.validation:
        right = shlex.join(["innerloop", "eval", str(run.folder)]) + ", which chooses them on its validation tasks"
    else:
        right = "--lr and --steps; or a run with tasks.validation, since those tasks choose"
    raise UserError(Fault("nothing was tuned of this run", "--tuned", str(run.folder), right))


def _command(folder: Path, protocol: Protocol) -> str:
    options = [f"--k={k}" for k in protocol.k] + [f"--draws={protocol.draws}"]
    options += [] if protocol.max_new_tokens is None else [f"--max-new-tokens={protocol.max_new_tokens}"]
    return shlex.join(["innerloop", "eval", str(folder), *options])
