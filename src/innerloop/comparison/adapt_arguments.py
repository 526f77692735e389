"""What `innerloop adapt` is asked for, checked before a model is read: all faults at once.

AdaptArguments   as they are given
check_arguments  the same checked -> Checked
Checked          new tasks, how they are adapted to, and what for
Wanted           inner steps and rate: the run's own, given, tuned, or steps that a task's examples choose
Uses             what the adapters are for
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from innerloop.artifacts.export import check_place
from innerloop.artifacts.finished import Finished, finished
from innerloop.comparison.eval import tuned_by_eval
from innerloop.comparison.new_tasks import NewTasks, read_new_tasks
from innerloop.errors import Fault, Faults
from innerloop.evaluation.cross_validation import fold_fault
from innerloop.learning.inner_loop import InnerLoop
from innerloop.runs.adapted import changed_inner
from innerloop.runs.learned import Learned
from innerloop.runs.reloading import check_shared


class AdaptArguments(NamedTuple):
    """judge: None = where it can be done; columns: None = the run's own."""

    run: Path
    examples: Path
    test: Path | None = None
    output: Path | None = None
    prompts: tuple[str, ...] = ()
    steps: str | None = None
    lr: float | None = None
    tuned: bool = False
    judge: bool | None = None
    columns: Mapping[str, str] | None = None


class Wanted(NamedTuple):
    """steps, lr: None = the run's own; tuned: k -> an inner loop, of which the nearest k's is taken."""

    steps: int | Literal["auto"] | None = None
    lr: float | None = None
    tuned: Mapping[int, InnerLoop] | None = None

    def inner(self, learned: Learned, k: int) -> InnerLoop:
        """Before any steps are chosen. Raises UserError for a count or rate that is none."""
        if self.tuned:
            return self.tuned[self.nearest(k)]
        return changed_inner(learned.inner, self.steps, self.lr)

    def nearest(self, k: int) -> int:
        """The number of examples, of those that were tuned for, that differs least in proportion."""
        return min(self.tuned or (k,), key=lambda known: (abs(math.log(known / k)), known))

    def said(self, k: int, tried: Sequence[float] | None) -> str:
        """How steps and rate were chosen, to be put behind them; tried: nats after 0, 1, ... steps."""
        if tried:
            return f", which do best of 0 to {len(tried) - 1} on left-out examples"
        return f", which validation tasks chose for {self.nearest(k)} examples" if self.tuned else ""


class Uses(NamedTuple):
    """What adapters are for: prompts to answer, and an export in `output`, or in output/NAME of a folder's tasks."""

    prompts: tuple[str, ...] = ()
    output: Path | None = None
    folder: bool = False

    def place(self, task: str) -> Path | None:
        """Where the task's export goes."""
        return self.output / task if self.output and self.folder else self.output


class Checked(NamedTuple):
    """judging: whether any of the tasks is judged."""

    new: NewTasks
    wanted: Wanted
    uses: Uses
    judging: bool


def check_arguments(asked: AdaptArguments) -> Checked:
    """Raises UserError with every fault of the arguments, the run's folder and the tasks' files."""
    faults, run, new = Faults(), None, None
    steps = _steps(asked.steps, faults)
    _check_settings(asked, faults)
    with faults.collecting():
        run = finished(asked.run)
        check_shared(run)
    if run:
        with faults.collecting():
            new = read_new_tasks(run.config, asked.examples, asked.test, columns=asked.columns)
    wanted = Wanted(steps, asked.lr, _tuned(asked, run, faults))
    uses = Uses(asked.prompts, asked.output, new.folder if new else False)
    lonely = dict[str, Fault]()
    if run and new:
        in_context = run.config.tasks.prompt == "in-context"
        for task in new.tasks:
            if place := uses.place(task.name):
                with faults.collecting():
                    check_place(place)
            if (fault := fold_fault(task, in_context=in_context)) is not None:
                lonely[task.name] = fault
        if steps == "auto" or (asked.judge and not asked.test):
            faults += lonely.values()
    faults.raise_if_any()
    assert new is not None
    possible = bool(asked.test) or len(lonely) < len(new.tasks)
    return Checked(new, wanted, uses, asked.judge is not False and possible)


def _steps(given: str | None, faults: Faults) -> int | Literal["auto"] | None:
    if given is None or given == "auto":
        return given
    if given.isdecimal() and int(given):
        return int(given)
    faults.add("not a number of steps", "--steps", given, "a whole number above 0, or auto")
    return None


def _check_settings(asked: AdaptArguments, faults: Faults) -> None:
    """Values that are none, and pairs that say two things."""
    if asked.lr is not None and not 0 < asked.lr < math.inf:
        faults.add("not a learning rate", "--lr", asked.lr, "a number above 0")
    for name, value in (("--steps", asked.steps), ("--lr", asked.lr)):
        if asked.tuned and value is not None:
            faults.add("--tuned says it already", name, value, f"{name} or --tuned, not both")
    if asked.test and asked.judge is False:
        faults.add("judges, and --no-judge doesn't", "--test", str(asked.test), "one of them")


def _tuned(asked: AdaptArguments, run: Finished | None, faults: Faults) -> Mapping[int, InnerLoop] | None:
    if asked.tuned and run:
        with faults.collecting():
            return tuned_by_eval(run)
    return None
