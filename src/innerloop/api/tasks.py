"""A data set with a column of tasks, shared out among training, validation and test.

sample_tasks   -> a DatasetDict of train, validation and test tasks
"""

from random import Random
from typing import TYPE_CHECKING, Any, cast

from innerloop.data.given import TASK
from innerloop.errors import Fault, UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


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
