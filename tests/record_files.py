"""Small JSONL files of records, and what reading them says.

write        records -> a JSONL file
rows         different prompt/completion records
faults_of    what a bad file is told
the_example  the one example of a good file
"""

import json
from pathlib import Path
from typing import Any

import pytest

from innerloop.data.examples import read_tasks
from innerloop.data.tasks import Example
from innerloop.errors import UserError


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"p{index}", "completion": f" c{index}", **more} for index in range(count)]


def faults_of(path: Path, **arguments: Any) -> list[str]:
    """Each fault as "where: problem", without the folder that the path is in."""
    with pytest.raises(UserError) as error:
        read_tasks(path, test=0, **arguments)
    return [f"{fault.where}: {fault.problem}".replace(f"{path.parent}/", "") for fault in error.value.faults]


def the_example(path: Path, **arguments: Any) -> Example:
    (task,) = read_tasks(path, test=0, **arguments).tasks
    (example,) = task.pool
    return example
