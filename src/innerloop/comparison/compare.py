"""All cells of a matrix, one process each, and their results.

compare    a matrix file -> DIR with matrix.json, cells/ and results.json; continues where it was stopped
begin      checks everything and writes DIR/matrix.json -> Begun
read_results  the results of the cells finished so far
Begun      the cells to run, and the effect that they can detect
Progress   of the cell that is running
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch

from innerloop.comparison.arms import Derived
from innerloop.comparison.cells import RESULT, identity
from innerloop.comparison.matrix import (
    IN_CONTEXT,
    MATRIX,
    PLAN,
    Cell,
    Matrix,
    cells,
    common_config,
    day_of,
    merged,
    run_config,
    trains_one_task,
)
from innerloop.comparison.planned import planned
from innerloop.comparison.reading import sound_matrix
from innerloop.comparison.steps import budget_steps
from innerloop.config.loading import RunConfig
from innerloop.config.schema import ABSENT, get
from innerloop.data.in_context import separator_of
from innerloop.data.leaks import Overlap, overlap_lines
from innerloop.data.tasks import Task
from innerloop.engine.dtypes import with_dtype
from innerloop.engine.groundwork import Say, groundwork
from innerloop.engine.session import Session, prepare
from innerloop.errors import Fault, Faults, UserError
from innerloop.evaluation.generation import cap_fault
from innerloop.evaluation.in_context import in_context_task, prompt_faults, too_long
from innerloop.evaluation.kshot import draw_support
from innerloop.files import write_json, write_text
from innerloop.loading.architecture import positions_of
from innerloop.loading.models import LoadedModel, load
from innerloop.machine import chosen_device
from innerloop.report.page import counted
from innerloop.results.names import COST, UNTRAINED
from innerloop.results.schema import RESULTS, Results
from innerloop.results.summary import summarize


class Progress(NamedTuple):
    """number of cells: this one's; stage: what it does; done of total: how far the stage is."""

    cell: str
    number: int
    cells: int
    stage: str
    done: int
    total: int

    def words(self) -> str:
        return f"{self.number}/{self.cells} {self.cell}: {self.stage}"


class Begun(NamedTuple):
    """missing: cells without a result yet, in their order."""

    matrix: Matrix
    plan: dict[str, Any]
    missing: list[Cell]

    def lines(self) -> list[str]:
        """For people, one fact per line."""
        said = self.plan["protocol"]
        ks, every = ", ".join(str(k) for k in said["k"]), len(self.plan["cells"])
        draws, seeds = counted(said["draws"], "draw"), counted(len(said["seeds"]), "seed")
        return [
            f"matrix   {self.plan['name']}: {every} cells, {len(self.missing)} to run",
            f"arms     {', '.join(self.matrix.arms)}",
            f"tasks    {len(said['train'])} seen, {len(said['validation'])} validation, {len(said['held_out'])} unseen",
            f"scored   at k = {ks}; {draws}, {seeds}, {counted(said['test_examples'], 'test example')} of each task",
            *self._detects(),
            *(f"overlap  {line}" for line in overlap_lines([Overlap(**each) for each in self.plan["overlaps"]])),
            *(f"note     {note}" for note in self.plan["notes"]),
        ]

    def _detects(self) -> list[str]:
        effect, named = self.plan["detectable"], self.plan["primary"]
        asked = "primary  {arm} against {against}: {metric}, k = {k}, {adaptation}, equal {budget}"
        primary = asked.format(**named) if named else "primary  none is named: every difference will be exploratory"
        if "nats" not in effect:
            return [primary, f"detects  {effect['assumptions']}"]
        accuracy = f"{effect['accuracy']:.0%}" if "accuracy" in effect else "no"
        sizes = f"{effect['nats']:.2f} nats, {accuracy} accuracy"
        return [primary, f"detects  {sizes}, 4 times in 5,", f"         {effect['assumptions']}"]


def begin(path: Path, folder: Path, say: Say | None = None, *, derived: Derived | None = None) -> Begun:
    """Raises UserError with all faults of the matrix, its data, its budgets and its folder, and then for its model.

    derived: the matrix that `path`, a run's config, was made into; it is written beside matrix.json.
    """
    faults = Faults()
    matrix = sound_matrix(derived.document if derived else path, faults)
    if matrix:
        with faults.collecting():
            matrix = _begun_before(folder, matrix, sound=not faults)
    session = _session(matrix, faults, say) if matrix else None
    if matrix and session:
        matrix = _dated(matrix, session.config.tasks.date)
        _check_tasks(matrix, session, faults)
        _check_budgets(matrix, session, faults)
    faults.raise_if_any()
    assert matrix is not None
    assert session is not None
    _check_model(session.config, say)
    plan = planned(matrix, session, path=path, folder=folder, derived=derived)
    if not (folder / PLAN).exists():
        write_json(folder / PLAN, plan)
        if derived:
            write_text(folder / MATRIX, derived.text)
    missing = [cell for cell in cells(matrix) if not _has_result(folder, cell)]
    return Begun(matrix, plan, missing)


def compare(begun: Begun, folder: Path, on_progress: Callable[[Progress], None]) -> Results:
    """Runs the missing cells in turn, then sums up. A cell that fails is written down as failed; the others go on."""
    with _locked(folder):
        for number, cell in enumerate(begun.missing, 1):
            for said in _run(folder, cell):
                on_progress(Progress(number=number, cells=len(begun.missing), **said))
        results = summarize(folder)
        results.write(folder / RESULTS)
    return results


def read_results(folder: Path) -> Results:
    """The results of the cells finished so far. Raises UserError where there is none."""
    if not (folder / PLAN).is_file():
        right = "the --output of innerloop compare, or the output_dir of a run"
        raise UserError(Fault("no comparison here, and no run", str(folder), expected=right))
    return summarize(folder)


def _run(folder: Path, cell: Cell) -> Generator[dict[str, Any]]:
    """What the cell's process says. A result that it could not write is written here."""
    log = folder / "cells" / cell.name / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "innerloop.comparison.cells", str(folder), cell.name]
    with log.open("w") as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            for line in child.stdout:
                if line.startswith('{"cell"'):
                    yield json.loads(line)
            child.wait()
        finally:  # closing the pipe ends a child that still runs
            child.stdin.close()
            child.wait()
    if child.returncode:
        reason = _reason(child.returncode, log)
        write_json(log.with_name(RESULT), {**identity(cell), "status": "failed", "reason": reason})


def _reason(code: int, log: Path) -> str:
    if code < 0:
        hint = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{hint}"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if "Traceback (most recent call last):" in lines else " ".join(lines)[-500:]


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        right = "wait for it, or another folder"
        raise UserError(Fault("another comparison is at work in this folder", str(folder), expected=right)) from None


def _session(matrix: Matrix, faults: Faults, say: Say | None) -> Session | None:
    """What every arm is scored on, its model without weights: cells read those, each in its own process."""
    with faults.collecting():
        config = common_config(matrix, matrix.seeds[0])
        ground = groundwork(config, say=say)
        assert ground.tokenizer is not None
        name = config.model.name
        return prepare(config, model=LoadedModel(ground.model, ground.tokenizer, name, name, ""), ground=ground)
    return None


def _check_model(config: RunConfig, say: Say | None) -> None:
    """Raises UserError for weights that no cell could use. They are let go of: here they would take memory for days."""
    if say:
        say("loading the model", 0, 0)
    device = chosen_device(config.model.device)
    dtype = with_dtype(config, torch.device(device).type).model.dtype
    load(config.model.name, dtype=dtype, device=device, revision=config.model.revision)


def _check_tasks(matrix: Matrix, session: Session, faults: Faults) -> None:
    most, tests, cap = max(matrix.evaluation.k), session.config.tasks.test, matrix.evaluation.max_new_tokens
    where = "evaluation.max_new_tokens"
    scored = [task for task in (*session.held_out, *session.train) if task.test]
    if short := cap_fault(scored, cap, where):
        faults += short
        cap = None  # said once
    for role, tasks in (("held_out", session.held_out), ("validation", session.validation)):
        if not tasks:
            faults.add(f"no {role.replace('_', '-')} task", f"runs.every: tasks.{role}", expected="at least one")
        for task in tasks:
            if len(task.pool) < most or not task.test:
                right = f"at least {most} (the largest k) beside {tests} test examples (tasks.test)"
                faults.add("too few examples", f"{role} task {task.task.name}", len(task.pool), right)
    if IN_CONTEXT in matrix.arms and most:
        encoder, seed = session.encoder, matrix.seeds[0]
        fitting = [task for task in session.held_out if len(task.pool) >= most and task.test]
        fitting = [task for task in fitting if _has_separator(task.task, faults)]
        for draw in range(matrix.evaluation.draws):
            supports = [draw_support(task, most, seed=seed, draw=draw) for task in fitting]
            pairs = zip(fitting, supports, strict=True)
            long = [in_context_task(task, support, encoder) for task, support in pairs]
            found = too_long(long, most, positions=positions_of(session.model.model), max_new_tokens=cap)
            found += cap_fault(long, cap, f"{where} (in-context)")
            said = {fault.where for fault in faults}
            faults += [fault for fault in found if fault.where not in said]


def _has_separator(task: Task, faults: Faults) -> bool:
    try:
        separator_of(task)
    except UserError as error:
        faults += error.faults
        return False
    return True


def _check_budgets(matrix: Matrix, session: Session, faults: Faults) -> None:
    """Every arm can take at least a step of every budget, and its tasks fill its batches; each fault once."""
    seen: set[str] = set()
    trained = [cell for cell in cells(matrix) if cell.arm not in UNTRAINED and cell.seed == matrix.seeds[0]]
    for (arm, costly), group in groupby(trained, key=lambda cell: (cell.arm, cell.budget == COST)):
        asked = list(group)
        names = [task.task.name for task in session.train] if trains_one_task(arm) else None
        config = run_config(matrix, asked[0], output_dir=Path("unused"), seen=names)
        try:
            prepared = prepare(config, model=session.model)
        except UserError as error:
            new = {str(fault): fault for fault in error.faults if str(fault) not in seen}
            seen.update(new)
            faults += [replace(fault, where=f"arm {arm}: {fault.where}") for fault in new.values()]
            continue
        if not costly:
            protocol, positions = matrix.protocol(arm, matrix.seeds[0]), positions_of(session.model.model)
            long = prompt_faults([task for task in prepared.held_out if task.test], protocol, positions=positions)
            faults += [replace(fault, where=f"arm {arm}: {fault.where}") for fault in long]
        budgets = [] if costly else [cell.budget for cell in asked if cell.budget != "seconds"]
        for budget in budgets:
            amount = matrix.given_budgets[budget]
            if not budget_steps(prepared, budget, amount):
                where = f"budgets.{budget}"
                faults.add(f"not one step of {arm} fits", where, amount, "a larger budget, or a smaller step")


def _dated(matrix: Matrix, date: str | None) -> Matrix:
    """With the day that every cell tells the chat template; None: it asks for none."""
    if date is None:
        return matrix
    every = merged(matrix.runs.every, {"tasks": {"date": date}})
    return matrix.model_copy(update={"runs": matrix.runs.model_copy(update={"every": every})})


def _begun_before(folder: Path, matrix: Matrix, *, sound: bool) -> Matrix:
    """The matrix, with the day that a comparison in the folder was begun on.

    Raises UserError unless the folder is new, empty, or what the same matrix began; sound: it has no fault so far.
    """
    known = folder / PLAN
    if not known.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            right = "a folder that doesn't exist yet, or one that a comparison began"
            raise UserError(Fault("this folder holds something else", "--output", str(folder), right))
        return matrix
    try:
        before: dict[str, Any] = json.loads(known.read_text(encoding="utf-8"))["matrix"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(Fault("not what a comparison wrote", str(known), expected="another folder")) from None
    if (began := day_of(folder)) and get(matrix.runs.every, "tasks.date") is ABSENT:
        matrix = _dated(matrix, began)
    now = matrix.model_dump(mode="json")
    different = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if sound and different:
        right = "the matrix it was begun with, or another folder"
        raise UserError(Fault("this folder holds another matrix", f"{known}: {', '.join(different)}", expected=right))
    return matrix


def _has_result(folder: Path, cell: Cell) -> bool:
    """A failed cell has none: it is tried again."""
    path = folder / "cells" / cell.name / RESULT
    return path.exists() and json.loads(path.read_text())["status"] == "done"
