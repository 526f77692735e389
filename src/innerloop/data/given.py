"""Data sets and records in memory -> records by the name of their task, and the file that a run reads them from.

GivenTasks     records by the name of their task, and which tasks are of validation or held out
given_tasks    a mapping, Dataset or DatasetDict -> GivenTasks
task_examples  their records -> a Task each, with test examples of its own
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from innerloop.data.arrow_values import dataset_rows, is_dataset
from innerloop.data.encoder import Encoder, without_gaps
from innerloop.data.leaks import divided
from innerloop.data.tasks import Example, Task
from innerloop.errors import Fault, Faults, UserError
from innerloop.files import write_text

TASK = "task"
ROLES = {"train": "train", "validation": "validation", "test": "held_out"}  # split -> role


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
            json.dumps({**without_gaps(record), TASK: name}, ensure_ascii=False)
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
        columns = part.column_names if is_dataset(part) else []
        if not is_dataset(part) and (isinstance(part, str | Mapping) or not isinstance(part, Sequence)):
            faults.add("not records", f"tasks[{name!r}]" if name else "tasks", type(part).__name__, "a list of records")
            continue
        split = task_column in columns
        if not split and not name:
            right = f"task_column=, one of {', '.join(columns)}; or a mapping of names to records"
            faults.add("a data set without a column of tasks", "task_column", task_column, right)
            continue
        rows: Any = dataset_rows(part) if is_dataset(part) else part
        for record in rows:
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


def task_examples(given: GivenTasks, encoder: Encoder, *, most: int, test: int | None = None) -> list[Task]:
    """Each task's examples, divided by prompt into a pool and test examples.

    most   support examples that the pool is to have
    test   test examples of each task; None: half of the smallest task's, or what `most` leaves of them
    Raises UserError with all records that can't be read.
    """
    faults = Faults()
    whole = {name: _read(name, records, encoder, faults) for name, records in sorted(given.records.items())}
    faults.raise_if_any()
    if test is None:
        smallest = min(len({example.prompt_key for example in examples}) for examples in whole.values())
        test = max(1, min(smallest // 2, smallest - most))
    sides = {name: divided(examples, test) for name, examples in whole.items()}
    return [Task(name, pool=each.pool, test=each.test) for name, each in sides.items()]


def _read(name: str, records: Sequence[Mapping[str, Any]], encoder: Encoder, faults: Faults) -> list[Example]:
    try:
        return encoder.examples([without_gaps(record) for record in records])
    except UserError as error:
        faults.extend(replace(fault, where=f"task {name}: {fault.where}") for fault in error.faults)
        return []
