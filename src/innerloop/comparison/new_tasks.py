"""New tasks to adapt to: a file of examples, or a folder with a file per task, with test examples or without.

NewTasks          tasks whose pool is adapted to, and whose test examples are scored
read_new_tasks    files -> NewTasks: all faults of all files at once
encoded_tasks     the same as a run's model reads them
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from innerloop.config.loading import RunConfig
from innerloop.data.encoding import EncodedTask
from innerloop.data.examples import ReadResult, read_tasks
from innerloop.data.formats import find_sources
from innerloop.data.tasks import Task
from innerloop.data.verifiers import verifier_of
from innerloop.engine.inspection import check_prompts, check_tokens, warn_of_more
from innerloop.errors import Faults, UserError, did_you_mean
from innerloop.runs.learned import Learned


class NewTasks(NamedTuple):
    """folder: they came as a folder, or several in a file; notes: what may be meant otherwise than it was read."""

    tasks: list[Task]
    folder: bool
    notes: tuple[str, ...]


def read_new_tasks(
    config: RunConfig, examples: Path, test: Path | None = None, *, columns: Mapping[str, str] | None = None
) -> NewTasks:
    """The tasks of a file or folder, with the test examples of the file or folder `test`.

    columns  in place of the run's own, which are taken where the files have them
    Raises UserError for files that can't be read, for tasks without test examples where others have some, and for test
    examples that the task is going to learn.
    """
    faults, found, asked = Faults(), None, None
    with faults.collecting():
        found = _read(config, examples, columns)
    if test:
        with faults.collecting():
            asked = _read(config, test, columns)
    faults.raise_if_any()
    assert found is not None
    folder = len(found.tasks) > 1 or find_sources(examples)[0] != [examples]
    verifier = verifier_of(config.tasks.verifier or "exact")
    tasks = [replace(task, verifier=verifier) for task in found.tasks]
    if asked is None:
        return NewTasks(tasks, folder, found.warnings)
    tested = {task.name: task for task in asked.tasks}
    if not folder and len(tested) == 1:
        tested = {tasks[0].name: asked.tasks[0]}  # a file of each, whatever they are called
    tasks = [_with_tests(task, tested, test, faults) for task in tasks]
    faults.raise_if_any()
    more = sorted(tested.keys() - {task.name for task in tasks})
    notes = [f"not read: test examples of {', '.join(more)}, which have no examples to adapt to"] if more else []
    return NewTasks(tasks, folder, (*found.warnings, *asked.warnings, *notes))


def encoded_tasks(learned: Learned, tasks: list[Task]) -> list[EncodedTask]:
    """Raises UserError for examples that don't fit, and for a task that none is left of."""
    found, faults = learned.encoder.tasks(tasks), Faults()
    for task, given in zip(found, tasks, strict=True):
        if not task.pool or (given.test and not task.test):
            right = "longer, or tasks.on_too_long: truncate, in the run's config"
            faults.add("every example is too long", f"task {given.name}", learned.encoder.max_length, right)
    faults.raise_if_any()
    check_tokens(found, learned.model)
    for task in found:
        if task.in_context:  # the run was trained on such prompts
            faults += check_prompts([task], len(task.pool), learned.model.model)
    faults.raise_if_any()
    warn_of_more(learned.config, max(len(task.pool) for task in found))
    return found


def _read(config: RunConfig, path: Path, columns: Mapping[str, str] | None) -> ReadResult:
    """Of a task's own splits only what it would learn from."""
    own = config.tasks.columns if columns is None else columns
    found = read_tasks(path, columns=own, test=0, required=columns is not None)
    if any(not task.pool for task in found.tasks):
        names = [task.name for task in found.tasks if not task.pool]
        raise UserError(*(f"{path}: task {name} has no examples" for name in names))
    return found


def _with_tests(task: Task, tested: Mapping[str, Task], test: Path | None, faults: Faults) -> Task:
    if task.name not in tested:
        faults.add("no test examples of this task", str(test), task.name, did_you_mean(task.name, tested))
        return task
    asked = tested[task.name].pool
    known = {example.prompt_key for example in task.pool}
    if both := [example for example in asked if example.prompt_key in known]:
        right = "test examples that ask something else: an answer that was told shows nothing"
        where = f"--test: task {task.name}: {both[0].where}"
        faults.add(f"{len(both)} prompts are among the examples too", where, both[0].prompt, right)
        return task
    return replace(task, test=asked)
