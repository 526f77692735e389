"""Data sets and records in memory -> tasks with roles, and the file that a run reads them from.

TaskData       what tasks may be given as
GivenTasks     their records by name, and which are validation tasks or held out
given_tasks    TaskData -> GivenTasks
sample_tasks   a data set with a column of tasks -> a DatasetDict of train, validation and test tasks
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from innerloop.errors import Fault, Faults, UserError
from innerloop.files import write_text

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

TASK = "task"
ROLES = {"train": "train", "validation": "validation", "test": "held_out"}  # split -> role

TaskData = "Mapping[str, Sequence[Mapping[str, Any]] | Dataset] | Dataset | DatasetDict"


@dataclass(frozen=True)
class GivenTasks:
    """records: by the task's name; validation, held_out: names."""

    records: Mapping[str, Sequence[Mapping[str, Any]]]
    validation: tuple[str, ...] = ()
    held_out: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        counts = [len(records) for records in self.records.values()]
        return f"GivenTasks({len(counts)} tasks of {min(counts)} to {max(counts)} records)"

    def write(self, path: Path) -> bool:
        """One JSONL file with a column `task`: what a run with `tasks.folder` reads, now and when it goes on.

        False where it is there already. Raises UserError where another run's tasks are.
        """
        lines = (
            json.dumps({**_without_gaps(record), TASK: name}, ensure_ascii=False)
            for name, records in self.records.items()
            for record in records
        )
        text = "".join(f"{line}\n" for line in lines)
        if path.exists():
            if path.read_text("utf-8") != text:
                raise UserError(Fault("the tasks of another run are here", str(path), expected="another output_dir"))
            return False
        write_text(path, text)
        return True


def given_tasks(
    data: Any, *, task_column: str = TASK, validation: Sequence[str] = (), held_out: Sequence[str] = ()
) -> GivenTasks:
    """`data`: a mapping of names to records, a Dataset with a column of tasks, or a DatasetDict.

    The splits `train`, `validation` and `test` of a DatasetDict with a column of tasks are roles; without that column
    each split is a task. Raises UserError for anything else.
    """
    faults, found = Faults(), dict[str, list[Mapping[str, Any]]]()
    roles: dict[str, list[str]] = {"train": [], "validation": list(validation), "held_out": list(held_out)}
    for name, part in data.items() if isinstance(data, Mapping) else [("", data)]:
        columns = getattr(part, "column_names", None)
        if columns is None and (isinstance(part, str | Mapping) or not isinstance(part, Sequence)):
            faults.add("not records", f"tasks[{name!r}]" if name else "tasks", type(part).__name__, "a list of records")
            continue
        split = columns is not None and task_column in columns
        if not split and not name:
            right = f"task_column=, one of {', '.join(columns or [])}; or a mapping of names to records"
            faults.add("a data set without a column of tasks", "task_column", task_column, right)
            continue
        for record in part:
            task = str(record[task_column]) if split else name
            if task not in found:
                found[task] = []
                if split and name in ROLES:
                    roles[ROLES[name]].append(task)
            found[task].append({key: value for key, value in record.items() if not (split and key == task_column)})
    if not found and not faults:
        faults.add("no task is given", "tasks", expected="a mapping of names to records, or a Dataset")
    faults.raise_if_any()
    return GivenTasks(found, tuple(dict.fromkeys(roles["validation"])), tuple(dict.fromkeys(roles["held_out"])))


def sample_tasks(
    data: "Dataset",
    *,
    task_column: str = TASK,
    held_out: int = 0,
    validation: int = 0,
    examples_per_task: int | None = None,
    seed: int = 0,
) -> "DatasetDict":
    """A DatasetDict with the splits train, validation and test, whole tasks in each, with a column `task`.

    >>> from datasets import Dataset
    >>> rows = [{"task": f"+{n}", "prompt": f"{i} ->", "completion": f" {i + n}"} for n in range(6) for i in range(9)]
    >>> splits = sample_tasks(Dataset.from_list(rows), held_out=2, examples_per_task=8)
    >>> {split: len(part) for split, part in splits.items()}
    {'train': 32, 'test': 16}

    held_out, validation   numbers of tasks, drawn by the seed
    examples_per_task      at most, of each task: the first ones of an order that the seed gives
    Raises UserError for a column that isn't there, and for more tasks than there are.
    """
    from datasets import DatasetDict

    if task_column not in data.column_names:
        raise UserError(Fault("no such column", "task_column", task_column, ", ".join(data.column_names)))
    places: dict[str, list[int]] = {}
    for place, task in enumerate(data[task_column]):
        places.setdefault(str(task), []).append(place)
    if held_out + validation >= len(places):
        right = f"fewer than {len(places)} together, the number of tasks"
        raise UserError(Fault("no task is left to train on", "held_out, validation", held_out + validation, right))
    names = sorted(places)
    Random(f"{seed}: roles").shuffle(names)
    groups = {
        "train": names[held_out + validation :],
        "validation": names[held_out : held_out + validation],
        "test": names[:held_out],
    }
    renamed = data if task_column == TASK else data.rename_column(task_column, TASK)
    kept: dict[str, Dataset] = {}
    for split, group in groups.items():
        chosen: list[int] = []
        for name in sorted(group):
            order = sorted(places[name])
            Random(f"{seed}: {name}").shuffle(order)
            chosen += sorted(order[:examples_per_task])
        if chosen:
            kept[split] = renamed.select(chosen)
    return DatasetDict(cast(Any, kept))


def _without_gaps(record: Mapping[str, Any]) -> dict[str, Any]:
    """Arrow fills the fields that a record doesn't have with None."""
    return {key: value for key, value in record.items() if value is not None}
