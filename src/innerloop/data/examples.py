"""Files of records become tasks: every record is checked, and each fault names its file, line and field.

read_tasks     a folder or one file -> ReadResult
read_examples  one task's file, or records themselves -> examples
ReadResult     the tasks, what was dropped of each file, and the files that were not read
FileCount      records, pictures and duplicates of one file

docs/data-format.md describes the forms of a record and every rule applied here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from innerloop.data.fields import MISSING, checked_text
from innerloop.data.formats import RawRow, RawTable, find_sources, read_table
from innerloop.data.forms import KNOWN_FIELDS
from innerloop.data.layouts import Place, Side, layout_warnings, place_of
from innerloop.data.leaks import divided
from innerloop.data.records import reader_of
from innerloop.data.strict_json import can_print
from innerloop.data.tasks import Example, Message, Task
from innerloop.errors import Fault, Faults, UserError, did_you_mean

OFTEN_ASKED_WITH = ("context", "passage", "choices", "options", "article", "background", "definition")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
NAME_RULE = "at most 100 letters, digits, '.', '_' and '-', not '.' or '-' first; white space becomes '_'"


class FileCount(NamedTuple):
    """What became of one file's records: kept, needing a picture, or repeated within their task."""

    file: str
    kept: int
    pictures: int
    duplicates: int


@dataclass(frozen=True)
class ReadResult:
    """`ignored` names what lies in the folder and is of no kind that can be read.

    left_out  examples of a prompt that another of the task's examples was reserved for the test with
    warnings  what may be meant otherwise than it was read
    """

    tasks: list[Task]
    files: list[FileCount]
    ignored: list[str]
    left_out: int = 0
    warnings: tuple[str, ...] = ()


def read_tasks(path: Path, *, columns: Mapping[str, str] | None = None, test: int, required: bool = True) -> ReadResult:
    """The tasks of a folder or of one file, in order of their names.

    columns  our field names -> the files' (`{"question": "Question", "task": "subfield"}`)
    test     examples that a task reserves, `divided` by prompt: those with the smallest ids, whatever the order of the
             rows. A task with no more than that has an empty pool: what a pool needs, the caller knows and checks.
    required  False: files that have none of the columns are read without them
    Raises UserError with all that is wrong.
    """
    columns = columns or {}
    faults = Faults()
    sources, ignored = find_sources(path)
    places = {source: place_of(source, path) for source in sources}
    tables = [read_table(source, faults) for source in sources if places[source].side != "unread"]
    if not required:
        columns = _present(columns, {name for table in tables for name in table.columns})
    _check_columns(columns, tables, faults)
    grouped = _Grouped(faults)
    counts = [_add_table(table, places[table.path], columns, grouped, faults) for table in tables]
    if not grouped.examples and not faults:
        faults.add("no record is left: all need a picture", str(path))
    faults.raise_if_any()
    tasks, left_out = grouped.tasks(test)
    has_tasks = any(columns.get("task", "task") in table.columns for table in tables)
    warnings = (*layout_warnings(places, named_by_column=has_tasks), *_unread(tables, columns))
    return ReadResult(tasks, counts, ignored, left_out, warnings)


def read_examples(
    source: Path | Sequence[Example | Mapping[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    required: bool = True,
) -> list[Example]:
    """The examples of one task: a file or folder of records, or the records themselves; repeats are left out.

    columns, required  as of `read_tasks`
    Raises UserError with all that is wrong, and where nothing is left or a file holds several tasks.
    """
    if isinstance(source, Path):
        tasks = read_tasks(source, columns=columns, test=0, required=required).tasks
        if len(tasks) != 1:
            raise UserError(Fault("several tasks", str(source), [task.name for task in tasks], "one task"))
        return list(tasks[0].pool)
    faults = Faults()
    given = [(f"examples[{index}]", _plain(record)) for index, record in enumerate(source)]
    rows = [RawRow(where, record) for where, record in given if isinstance(record, dict) and can_print(record)]
    table, columns = RawTable(Path("examples"), rows), columns or {}
    if rows and not required:
        columns = _present(columns, set(table.columns))
    if rows:
        _check_columns(columns, [table], faults)
    reader = reader_of(table, columns, faults) if rows else None
    read = {row.where: reader.example(row) if reader else None for row in rows}
    for where, record in given:
        if isinstance(record, Example):
            read[where] = _checked(record, where, faults)
        elif not can_print(record):
            faults.add("nested too deep, or a number of too many digits", where)
        elif where not in read:
            faults.add("not a record", where, record, '{"prompt": ..., "completion": ...}')
    if not given:
        faults.add("no example is given", "examples")
    faults.raise_if_any()
    examples = [read[where] for where, _ in given]
    return list({example.id: example for example in examples if example is not None}.values())


def _plain(record: Any) -> Any:
    return dict(record) if isinstance(record, Mapping) else record


def _checked(example: Example, where: str, faults: Faults) -> Example | None:
    """An example that was made elsewhere, with text in all of its places."""
    known = len(faults)
    checked_text(example.answer, f"{where}.answer", faults)
    for index, answer in enumerate(example.accepted):
        checked_text(answer, f"{where}.accepted[{index}]", faults)
    try:
        if not isinstance(example.template_arguments, dict):
            raise TypeError
    except (ValueError, TypeError):
        faults.add("no JSON object", f"{where}.template", example.template, '\'{"tools": [...]}\', or ""')
    if not isinstance(example.prompt, tuple):
        checked_text(example.prompt, f"{where}.prompt", faults)
        return example if len(faults) == known else None
    for index, turn in enumerate(example.prompt):
        place = f"{where}.prompt[{index}]"
        if isinstance(turn, Message):
            checked_text(turn.role, f"{place}.role", faults)
            checked_text(turn.content, f"{place}.content", faults)
        else:
            faults.add("not a message", place, turn, "Message(role, content)")
    return example if len(faults) == known else None


def _present(columns: Mapping[str, str], known: set[str]) -> Mapping[str, str]:
    """The columns without that of the task, which one task's file needn't have; none where no file has any."""
    found = {field: name for field, name in columns.items() if field != "task" or name in known}
    return found if any(name in known for name in found.values()) else {}


def _check_columns(columns: Mapping[str, str], tables: list[RawTable], faults: Faults) -> None:
    """With a wrong name no record fits, so this raises at once what is known so far."""
    known = {name for table in tables for name in table.columns}
    wrong = Faults()
    for field, name in columns.items():
        if field not in KNOWN_FIELDS:
            wrong.add("no such field", f"tasks.columns.{field}", field, did_you_mean(field, KNOWN_FIELDS))
        elif known and name not in known:
            wrong.add("no file has this column", f"tasks.columns.{field}", name, did_you_mean(name, known))
    if wrong:
        Faults([*faults, *wrong]).raise_if_any()


def _unread(tables: list[RawTable], columns: Mapping[str, str]) -> list[str]:
    """Columns that a question often can't be answered without."""
    read = {columns.get(field, field) for field in KNOWN_FIELDS}
    present = {name for table in tables for name in table.columns if name.lower() in OFTEN_ASKED_WITH}
    return [f"the column {name!r} is not read, so no prompt has it" for name in sorted(present - read)]


def _add_table(
    table: RawTable, place: Place, columns: Mapping[str, str], grouped: "_Grouped", faults: Faults
) -> FileCount:
    kept = pictures = duplicates = 0
    reader = reader_of(table, columns, faults)
    if reader is None:
        return FileCount(str(table.path), kept, pictures, duplicates)
    task_column = columns.get("task", "task")
    has_tasks = task_column in table.columns
    for row in table.rows:
        if reader.needs_picture(row):
            pictures += 1
            continue
        if has_tasks:
            where = f"{row.where}: {task_column}"
            task = grouped.named(row.fields.get(task_column, MISSING), f"{task_column!r} column", where)
        else:
            task = grouped.named(place.task, place.origin, str(table.path))
        example = reader.example(row)
        if task is None or example is None:
            continue
        new = grouped.add(task, example, place.side)
        kept, duplicates = kept + new, duplicates + (not new)
    return FileCount(str(table.path), kept, pictures, duplicates)


class _Grouped:
    """Examples under the names of their tasks, each once."""

    def __init__(self, faults: Faults) -> None:
        self.examples: dict[str, dict[str, Example]] = {}
        self.reserved: dict[str, dict[str, Example]] = {}  # of a test split
        self._faults = faults
        self._checked: dict[tuple[str, str], str | None] = {}
        self._owner: dict[str, tuple[str, str]] = {}

    def named(self, raw: Any, source: str, where: str) -> str | None:
        """The task's safe name; None, and a fault, where there is none or another task has it."""
        if isinstance(raw, int) and not isinstance(raw, bool):
            raw = str(raw)
        raw = checked_text(raw, where, self._faults)
        if raw is None:
            return None
        key = (raw, source)
        if key not in self._checked:
            self._checked[key] = self._safe(key, where)
        return self._checked[key]

    def _safe(self, key: tuple[str, str], where: str) -> str | None:
        name = "_".join(key[0].split())
        if not NAME.fullmatch(name):
            self._faults.add("not a safe task name", where, key[0], NAME_RULE)
            return None
        owner = self._owner.setdefault(name, key)
        if owner != key:
            others = f"{owner[0]!r} ({owner[1]}) is also called {name!r}"
            self._faults.add("two tasks would share a name", where, key[0], f"another name: {others}")
            return None
        return name

    def add(self, task: str, example: Example, side: Side) -> bool:
        """Whether the example is new to its side of the task."""
        known = self.examples.setdefault(task, {})
        if side == "test":
            known = self.reserved.setdefault(task, {})
        return known.setdefault(example.id, example) is example

    def tasks(self, test: int) -> tuple[list[Task], int]:
        """The tasks, and how many examples are on neither side."""
        sides = {
            name: divided(examples.values(), test, reserved=self.reserved.get(name, {}).values())
            for name, examples in sorted(self.examples.items())
        }
        tasks = [Task(name, pool=each.pool, test=each.test) for name, each in sides.items()]
        return tasks, sum(each.left_out for each in sides.values())
