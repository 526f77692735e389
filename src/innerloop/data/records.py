"""One record becomes one example: the forms of a record, what its fields may hold, and what needs a picture.

FORMS         the sets of fields that make a record
RecordReader  reads the records of one file in one form
reader_of     the reader that a file's columns call for
checked_text  the text of a field, or a fault
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from innerloop.data.formats import SHOWN, Row, Table
from innerloop.data.tasks import Example, Message
from innerloop.errors import Faults, did_you_mean

FORMS = (("messages",), ("prompt", "completion"), ("question", "answer"))
ROLES = ("system", "developer", "user", "assistant", "tool")
PICTURE_COLUMNS = {"picture", "pictures", "image", "images"}
NESTING = 8  # levels of lists in an answer
LONGEST_TEXT = 10_000_000  # characters of a field: a tokenizer takes a hundred times the memory
_NOT_UNICODE = re.compile("[\0\ud800-\udfff]")
MISSING: Any = object()


def reader_of(table: Table, columns: Mapping[str, str], faults: Faults) -> "RecordReader | None":
    """The one form that the file's columns complete; forms that `columns` speaks of go first."""
    present = table.columns
    named = [form for form in FORMS if any(field in columns for field in form)] or FORMS
    fitting = [form for form in named if all(columns.get(field, field) in present for field in form)]
    if len(fitting) == 1:
        names = {field: columns.get(field, field) for field in fitting[0]}
        if len(set(names.values())) == len(names):
            return RecordReader(names, faults)
        faults.add("two fields read one column", str(table.path), names, "a column for each (tasks.columns)")
    elif fitting:
        both = " or ".join("/".join(form) for form in fitting)
        faults.add(f"reads as {both}", str(table.path), present, "one of them, named in tasks.columns")
    elif present:
        forms = "messages, or prompt and completion, or question and answer; tasks.columns maps other names"
        faults.add("the columns fit no form of a record", str(table.path), present, forms)
    return None


class RecordReader:
    """Reads one form of record: `names` maps its fields to the file's columns."""

    def __init__(self, names: Mapping[str, str], faults: Faults) -> None:
        self._names = names
        self._faults = faults

    def needs_picture(self, row: Row) -> bool:
        """Whether a column that is not read, or a message, holds a picture."""
        read = set(self._names.values())
        if any(_is_picture(name, value) for name, value in row.fields.items() if name not in read):
            return True
        messages = row.fields.get(self._names.get("messages", ""))
        turns = messages if isinstance(messages, list) else []
        contents = [turn.get("content") for turn in turns if isinstance(turn, dict)]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        return any(isinstance(part, dict) and "image" in str(part.get("type")) for part in parts)

    def example(self, row: Row) -> Example | None:
        """The record's example; None where it added faults."""
        if "messages" in self._names:
            return self._conversation(row)
        first, second = (self._field(row, field) for field in self._names)
        if first is None or second is None:
            return None
        if "question" in self._names:
            return Example(f"Question: {first}\nAnswer:", f" {second}", row.where)
        return Example(first, second, row.where)

    def _field(self, row: Row, field: str) -> str | None:
        column = self._names[field]
        value = row.fields.get(column, MISSING)
        return checked_text(value, f"{row.where}: {column}", self._faults, scalars=field == "answer")

    def _conversation(self, row: Row) -> Example | None:
        column = self._names["messages"]
        where = f"{row.where}: {column}"
        value = row.fields.get(column)
        if not isinstance(value, list) or len(value) < 2:
            self._faults.add("not a conversation", where, value, "a list of two messages or more")
            return None
        turns = [self._message(item, f"{where}[{index}]") for index, item in enumerate(value)]
        messages = tuple(turn for turn in turns if turn is not None)
        if len(messages) < len(turns):
            return None
        if messages[-1].role != "assistant":
            problem = "the last message is not the assistant's"
            self._faults.add(problem, f"{where}[{len(turns) - 1}].role", messages[-1].role, "assistant")
            return None
        return Example(messages[:-1], messages[-1].content, row.where)

    def _message(self, item: Any, where: str) -> Message | None:
        if not isinstance(item, dict):
            self._faults.add("not a message", where, item, '{"role": ..., "content": ...}')
            return None
        more = [key for key, value in item.items() if key not in ("role", "content") and value is not None]
        if more:
            self._faults.add("only role and content of a message are read", where, more, "no other field")
        role = checked_text(item.get("role", MISSING), f"{where}.role", self._faults)
        if role is not None and role not in ROLES:
            self._faults.add("no such role", f"{where}.role", role, did_you_mean(role, ROLES))
            role = None
        content = item.get("content", MISSING)
        if isinstance(content, list) and all(_is_text_part(part) for part in content):
            content = "".join(part["text"] for part in content)
        text = checked_text(content, f"{where}.content", self._faults)
        return None if role is None or text is None else Message(role, text)


def checked_text(value: Any, where: str, faults: Faults, *, scalars: bool = False) -> str | None:
    """The text of a field, or None and a fault; with `scalars` also what `_is_scalar` lets through."""
    if isinstance(value, str):
        if not value or value.isspace():
            faults.add("is empty", where, value[:SHOWN], "text")
        elif len(value) > LONGEST_TEXT:
            faults.add(f"has {len(value):,} characters", where, value[:SHOWN], f"at most {LONGEST_TEXT:,}")
        elif _NOT_UNICODE.search(value):
            faults.add("holds a NUL character or half a surrogate pair", where, value[:SHOWN], "Unicode text")
        else:
            return value
    elif value is MISSING:
        faults.add("is missing", where)
    elif scalars and _is_scalar(value):
        return repr(value)
    else:
        kinds = "text, a finite number, true, false, or a list of these" if scalars else "text"
        faults.add("is null" if value is None else f"is of type {type(value).__name__}", where, value, kinds)
    return None


def _is_scalar(value: Any, depth: int = 0) -> bool:
    """A number, a boolean, or a list of these and of text: what Python prints as an answer should read."""
    if isinstance(value, list):
        return depth < NESTING and all(_is_scalar(item, depth + 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int) or (depth > 0 and isinstance(value, str))


def _is_picture(name: str, value: Any) -> bool:
    # Arrow holds a picture of any column as these two.
    stored = isinstance(value, dict) and set(value) == {"bytes", "path"}
    if not stored and str(name).lower() not in PICTURE_COLUMNS:
        return False
    # An array has no truth value; whatever is no plain value is a picture.
    return bool(value) if isinstance(value, str | bytes | int | float | list | dict) else value is not None


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
