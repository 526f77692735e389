"""Which tasks are trained on, which choose settings, and which are only ever evaluated.

Roles          train, validation and held_out tasks; no task has two roles
assign_roles   from the names in tasks.only, tasks.validation and tasks.held_out; a family's name is all of it
"""

from collections.abc import Sequence
from typing import NamedTuple

from innerloop.data.tasks import Task
from innerloop.errors import Faults, did_you_mean


class Roles(NamedTuple):
    train: list[Task]
    validation: list[Task]
    held_out: list[Task]


def assign_roles(
    tasks: Sequence[Task],
    *,
    only: Sequence[str] = (),
    validation: Sequence[str] = (),
    held_out: Sequence[str] = (),
) -> Roles:
    """Roles of the tasks; with `only`, all others are left out, whatever their role would be.

    Raises UserError for a name that no task or family has, and for a task named in both lists.
    """
    faults = Faults()
    kept = [task for task in tasks if not only or _named(task, only)]
    known = {task.name for task in tasks} | {task.family for task in tasks if task.family}
    for key, names in (("tasks.only", only), ("tasks.validation", validation), ("tasks.held_out", held_out)):
        for name in names:
            if name not in known:
                faults.add("no task or family has this name", key, name, did_you_mean(name, known))
    for task in kept:
        if _named(task, validation) and _named(task, held_out):
            where = "tasks.validation, tasks.held_out"
            faults.add("a task can't be in both", where, task.name, "each task in one of the two")
    faults.raise_if_any()
    return Roles(
        train=[task for task in kept if not _named(task, validation) and not _named(task, held_out)],
        validation=[task for task in kept if _named(task, validation)],
        held_out=[task for task in kept if _named(task, held_out)],
    )


def _named(task: Task, names: Sequence[str]) -> bool:
    return task.name in names or task.family in names
