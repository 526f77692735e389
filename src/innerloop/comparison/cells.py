"""One cell of a comparison, in a process of its own: train unless that is done, score what isn't scored yet.

    python -m innerloop.comparison.cells DIR CELL     prints a line of JSON for each advance

A process of its own measures its own peak memory, and takes no other cell down with it. Every piece of a cell is
written when it is measured, so a cell that was killed goes on behind its last piece, or its training's last checkpoint,
and gives the same numbers.

run_cell   trains and scores one cell of a comparison, and writes its result.json
main       the process: ends with its parent, and writes down why a cell failed
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from innerloop.comparison.facts import run_facts, untrained_facts
from innerloop.comparison.matrix import (
    BASE,
    IN_CONTEXT,
    Cell,
    Matrix,
    common_config,
    read_plan,
    run_config,
)
from innerloop.comparison.scores import forgotten, score_pieces, tuned
from innerloop.comparison.steps import budget_steps, timed_steps
from innerloop.config.loading import RunConfig
from innerloop.config.output_dir import read_manifest
from innerloop.data.encoding import EncodedTask
from innerloop.engine.groundwork import Say
from innerloop.engine.session import Session, prepare
from innerloop.engine.stopping import stoppable
from innerloop.errors import ResumableError, RunError, UserError
from innerloop.evaluation.in_context import in_context_task
from innerloop.evaluation.kshot import draw_support
from innerloop.evaluation.protocol import Initialization, Piece, Protocol, adaptations, measure, pieces
from innerloop.files import write_json
from innerloop.results.names import COST, UNTRAINED
from innerloop.runs.checkpoint import newest
from innerloop.runs.meta_train import meta_train
from innerloop.runs.reloading import load_run, task_adapter
from innerloop.spaces.space import ParameterSpace

RESULT = "result.json"
LAST_SECONDS = 10  # to save in, when the comparison has ended


def run_cell(folder: Path, name: str, say: Say) -> None:
    """Raises UserError or RunError where the cell can't be run to its end."""
    matrix, found = read_plan(folder)
    cell = next(cell for cell in found if cell.name == name)
    run = _Run(folder / "cells" / name, cell, matrix, say)
    facts = untrained_facts(cell.arm) if cell.arm in UNTRAINED else run.trained()
    facts["forgetting"] = run.scored() if cell.budget != COST else []
    write_json(run.place / RESULT, {**identity(cell), "status": "done", "reason": "", "predicted": [], **facts})


def identity(cell: Cell) -> dict[str, Any]:
    return {"cell": cell.name, **cell._asdict(), "cost_only": cell.budget == COST}


@dataclass(frozen=True)
class _Run:
    place: Path
    cell: Cell
    matrix: Matrix
    say: Say

    @cached_property
    def protocol(self) -> Protocol:
        return self.matrix.protocol(self.cell.arm, self.cell.seed)

    @cached_property
    def common(self) -> Session:
        """What every arm is scored on. In-context prompts are long and read once: no hidden states are kept of them."""
        config = common_config(self.matrix, self.cell.seed, trunk_cache=self.cell.arm != IN_CONTEXT)
        return prepare(config, say=self.say)

    # training

    def trained(self) -> dict[str, Any]:
        """Train, unless that is done; what training was and took, as the run itself recorded it."""
        output = self.place / "run"
        if not _is_done(output):
            config, done = self._config(self._steps()), _steps_behind(output)
            total = config.outer.steps * (len(self.common.train) if self.cell.one_task else 1)

            def on_step(*_: object) -> None:
                nonlocal done
                done += 1
                self.say("training", done, total)

            told = {"on_step": on_step, "on_stage": self.say}
            meta_train(config, model=self.common.model, store=self.common.store, resume=True, **told)
        return run_facts(output)

    def _steps(self) -> int | None:
        """What the budget buys: decided once, so that a restart takes the same; None: the config says it."""
        budget, note = self.cell.budget, self.place / "steps.json"
        if budget == COST:
            return None
        if not note.exists():
            session = prepare(self._config(None), model=self.common.model, store=self.common.store)
            amount = self.matrix.given_budgets[budget]
            steps = timed_steps(session, amount) if budget == "seconds" else budget_steps(session, budget, amount)
            write_json(note, {"budget": budget, "amount": amount, "steps": steps})
        return json.loads(note.read_text())["steps"]

    def _config(self, steps: int | None) -> RunConfig:
        seen = [task.task.name for task in self.common.train] if self.cell.one_task else None
        return run_config(self.matrix, self.cell, output_dir=self.place / "run", steps=steps, seen=seen)

    # scoring

    def scored(self) -> list[dict[str, Any]]:
        """Scores every piece; gives what adapting forgot."""
        arm, protocol, place = self.cell.arm, self.protocol, self.place
        if arm == IN_CONTEXT:
            score_pieces(
                place, [piece for piece in pieces(protocol, hows=("none",)) if piece.k], self.measured, self.say
            )
            return []
        if arm == BASE:
            score_pieces(place, pieces(protocol, hows=(), seen=True), self.measured, self.say)
            return []
        in_context = self._config(None).tasks.prompt == "in-context"
        score_pieces(
            place,
            pieces(protocol, hows=adaptations(in_context=in_context), seen=True, bare=not self.cell.one_task),
            self.measured,
            self.say,
        )
        hows = ("own", "tuned") if self.cell.one_task else ("none", "own", "tuned")
        prompts, held_out = self.matrix.evaluation.forgetting_prompts, self._stand(self.common.held_out)
        options = {"protocol": protocol, "prompts": prompts, "hows": hows, "say": self.say}
        return forgotten(place, self.what, self.common.model, held_out, **options)

    @cached_property
    def what(self) -> Initialization:
        """The shared values; for Std LoRA and the untrained arms a fresh LoRA, which is the base model."""
        arm, common = self.cell.arm, self.common
        if arm in UNTRAINED or self.cell.one_task:
            space, model, own = self._fresh(), common.model, common.row.adaptation
        else:
            learned = load_run(self.place / "run")
            space, model, own = learned.space, learned.model, learned.inner
        validation = self._stand(common.validation)
        chosen = {} if arm in UNTRAINED else tuned(self.place, space, self.protocol, validation, self.say)
        return Initialization(space, model, own, chosen)

    def measured(self, piece: Piece) -> dict[str, Any]:
        """The piece's scores, and whose they are."""
        what, protocol = self.what, self.protocol
        tasks = self._stand(self.common.train if piece.table == "seen" else self.common.held_out)
        if self.cell.one_task and piece.table == "seen":
            parts = [measure(piece, self._own_adapter(what, task), [task], protocol) for task in tasks]
            scores = {name: score for part in parts for name, score in part["tasks"].items()}
            found = {**parts[0], "tasks": scores, "curve": []}
        else:
            if self.cell.arm in UNTRAINED:
                seed, encoder = protocol.seed, self.common.encoder
                supports = [draw_support(task, piece.k, seed=seed, draw=piece.draw) for task in tasks]
                pairs = zip(tasks, supports, strict=True)
                tasks = [in_context_task(task, support, encoder) for task, support in pairs]
            found = measure(piece, what, tasks, protocol)
        return {"arm": self.cell.arm, "budget": self.cell.budget, "seed": self.cell.seed, **found}

    def _stand(self, tasks: Sequence[EncodedTask]) -> list[EncodedTask]:
        """As the arm's training has them: each example alone in its prompt, or behind others of its task."""
        trained = self.cell.arm not in UNTRAINED
        if not trained or self._config(None).tasks.prompt == "alone":
            return list(tasks)
        return [self.common.encoder.in_context(task) for task in tasks]

    def _fresh(self) -> ParameterSpace:
        """A LoRA at its starting values: Std LoRA's as its own adapters are."""
        config = self._config(None) if self.cell.one_task else self.common.config
        return replace(self.common, config=config).space()

    def _own_adapter(self, what: Initialization, task: EncodedTask) -> Initialization:
        space = self._fresh()
        stored = task_adapter(self.place / "run", task.task.name, what.model)
        space.shared = {name: value.to(space.shared[name].device) for name, value in stored.items()}
        return what._replace(space=space)


def main(folder: Path, name: str) -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(stage: str, done: int, total: int) -> None:
        with suppress(BrokenPipeError):  # nobody listens any more: a checkpoint is saved, and this ends
            print(json.dumps({"cell": name, "stage": stage, "done": done, "total": total}), flush=True)

    try:
        with stoppable(second_ends=True):
            run_cell(folder, name, say)
    except KeyboardInterrupt as stop:
        print(f"stopped by {stop}; what it had reached is kept", file=sys.stderr)
        return ResumableError.exit_code
    except (UserError, RunError) as error:
        print(f"{error}", file=sys.stderr)
        return error.exit_code
    return 0


def _is_done(output: Path) -> bool:
    manifest = read_manifest(output)
    return manifest is not None and manifest["status"] == "done"


def _steps_behind(output: Path) -> int:
    state = newest(output).state
    return state.step if state else 0


def _end_with_parent() -> None:
    """Its standard input is a pipe that closes with the parent, however that ends: a checkpoint is saved then."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
