"""One record becomes one example: what its fields may hold, and what needs a picture.

RecordReader  reads the records of one file in one form (forms.py)
reader_of     the reader that a file's columns call for
"""

from collections.abc import Mapping
from typing import Any

from innerloop.data.fields import Fields, is_empty
from innerloop.data.formats import RawRow, RawTable
from innerloop.data.forms import FORMS, RecordForm
from innerloop.data.tasks import Example
from innerloop.errors import Faults

PICTURE_COLUMNS = {"picture", "pictures", "image", "images"}
CONVERSATIONS = ("messages", "conversations", "prompt", "completion")
# What a prompt is made with where a form reads it: in a form that doesn't, leaving it out would train on other prompts
# than are served.
SHAPING = ("tools", "documents", "system", "input", "history", "chat_template_kwargs")


def reader_of(table: RawTable, columns: Mapping[str, str], faults: Faults) -> "RecordReader | None":
    """The one form that the file's columns complete; forms that `columns` speaks of go first."""
    present, known = table.columns, len(faults)
    named = [form for form in FORMS if any(field in columns for field in form.fields)] or FORMS
    fitting = [form for form in named if all(columns.get(field, field) in present for field in form.fields)]
    if len(fitting) == 1:
        (form,) = fitting
        taken = {columns[field] for field in columns if field in form.all}
        names = {field: columns.get(field, field) for field in form.fields}
        names |= {field: columns.get(field, field) for field in form.optional if field in columns or field not in taken}
        _check_names(table, form, names, columns, faults)
        return RecordReader(form, names, faults) if len(faults) == known else None
    if fitting:
        both = " or ".join("/".join(form.fields) for form in fitting)
        faults.add(f"reads as {both}", str(table.path), present, "one of them, named in tasks.columns")
    elif present:
        forms = ", or ".join(" and ".join(form.fields) for form in FORMS)
        faults.add("the columns fit no form of a record", str(table.path), present, f"{forms}; tasks.columns maps")
    return None


def _check_names(
    table: RawTable, form: RecordForm, names: Mapping[str, str], columns: Mapping[str, str], faults: Faults
) -> None:
    read = [column for field, column in names.items() if field in form.fields or column in table.columns]
    if len(set(read)) < len(read):
        faults.add("two fields read one column", str(table.path), dict(names), "a column for each (tasks.columns)")
    for field in columns:
        if field not in form.all and field != "task":
            right = f"one of {', '.join(form.all)}"
            faults.add(f"not read with {' and '.join(form.fields)}", f"tasks.columns.{field}", columns[field], right)
    for column in SHAPING:
        if column in read or column == columns.get("task"):
            continue
        row = next((row for row in table.rows if not is_empty(row.fields.get(column))), None)
        if row is not None:
            problem = f"shapes the prompt, and isn't read with {' and '.join(form.fields)}"
            right = f"no {column} in these records, its text in the prompt, or another form (docs/data-format.md)"
            faults.add(problem, f"{row.where}: {column}", row.fields[column], right)


class RecordReader:
    """Reads one form of record: `names` maps its fields to the file's columns."""

    def __init__(self, form: RecordForm, names: Mapping[str, str], faults: Faults) -> None:
        self._form, self._names, self._faults = form, names, faults
        self.read = set(names.values())

    def needs_picture(self, row: RawRow) -> bool:
        """Whether a column that is not read, or a message, holds a picture."""
        if any(_is_picture(name, value) for name, value in row.fields.items() if name not in self.read):
            return True
        turns = [turn for field in CONVERSATIONS for turn in _items(row.fields.get(self._names.get(field, "")))]
        parts = [part for turn in turns if isinstance(turn, dict) for part in _items(turn.get("content"))]
        return any(isinstance(part, dict) and "image" in str(part.get("type")) for part in parts)

    def example(self, row: RawRow) -> Example | None:
        """The record's example; None where it added faults."""
        known = len(self._faults)
        example = self._form.convert(Fields(row, self._names, self._faults))
        return example if len(self._faults) == known else None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_picture(name: str, value: Any) -> bool:
    # Arrow holds a picture of any column as these two.
    stored = isinstance(value, dict) and set(value) == {"bytes", "path"}
    if not stored and str(name).lower() not in PICTURE_COLUMNS:
        return False
    # An array has no truth value; whatever is no plain value is a picture.
    return bool(value) if isinstance(value, str | bytes | int | float | list | dict) else value is not None
