"""The fields of one record, checked: text, answers, conversations, and what a chat template is handed.

Fields        of one row, by our names for its columns; what is wrong with one is added to the faults
checked_text  the text of a value, or a fault
is_empty      whether a value is as good as none
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from innerloop.data.formats import RawRow
from innerloop.data.strict_json import SHOWN
from innerloop.data.tasks import Message
from innerloop.errors import Faults, did_you_mean

ROLES = ("system", "developer", "user", "assistant", "tool")
NESTING = 8  # levels of lists in an answer
LONGEST_TEXT = 10_000_000  # characters of a field: a tokenizer takes a hundred times the memory
_NOT_UNICODE = re.compile("[\0\ud800-\udfff]")
MISSING: Any = object()
# Of apply_chat_template, beside what a template reads.
NOT_GIVEN = {
    *("conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize"),
    *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
    *("tokenizer_kwargs", "tools", "documents"),
}


class Fields(NamedTuple):
    row: RawRow
    names: Mapping[str, str]
    faults: Faults

    def value(self, field: str) -> Any:
        return self.row.fields.get(self.names[field], MISSING) if field in self.names else MISSING

    def where(self, field: str) -> str:
        return f"{self.row.where}: {self.names.get(field, field)}"

    def text(self, field: str) -> str | None:
        return checked_text(self.value(field), self.where(field), self.faults)

    def optional_text(self, field: str) -> str:
        """Empty where the record has none."""
        return "" if is_empty(self.value(field)) else self.text(field) or ""

    def answers(self, field: str, *, scalars: bool = False) -> list[str]:
        """The right answers: a list of texts is one each, anything else a single one. Empty where it is a fault."""
        value, where = self.value(field), self.where(field)
        if isinstance(value, list) and not value:
            self.faults.add("is an empty list", where, value, "an answer")
            return []
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            read = [checked_text(item, f"{where}[{index}]", self.faults) for index, item in enumerate(value)]
        else:
            read = [checked_text(value, where, self.faults, scalars=scalars)]
        return list(dict.fromkeys(text for text in read if text is not None))

    def messages(self, field: str, *, fewest: int, keys: tuple[str, str] = ("role", "content")) -> tuple[Message, ...]:
        """The messages of a conversation; empty where there is a fault.

        keys  what its files call role and content
        """
        where, value = self.where(field), self.value(field)
        if not isinstance(value, list) or len(value) < fewest:
            right = "a list of two messages or more" if fewest > 1 else "a list of messages"
            self.faults.add("not a conversation", where, None if value is MISSING else value, right)
            return ()
        turns = [self._message(item, f"{where}[{index}]", keys) for index, item in enumerate(value)]
        read = tuple(turn for turn in turns if turn is not None)
        return read if len(read) == len(turns) else ()

    def _message(self, item: Any, where: str, keys: tuple[str, str]) -> Message | None:
        in_role, in_content = keys
        if not isinstance(item, dict):
            self.faults.add("not a message", where, item, f'{{"{in_role}": ..., "{in_content}": ...}}')
            return None
        if more := [key for key, value in item.items() if key not in keys and value is not None]:
            self.faults.add(f"only {in_role} and {in_content} of a message are read", where, more, "no other field")
        role = checked_text(item.get(in_role, MISSING), f"{where}.{in_role}", self.faults)
        role = SHAREGPT_ROLES.get(role, role) if in_role == "from" and role is not None else role
        if role is not None and role not in ROLES:
            known = ROLES if in_role == "role" else SHAREGPT_ROLES
            self.faults.add("no such role", f"{where}.{in_role}", role, did_you_mean(role, known))
            role = None
        content = item.get(in_content, MISSING)
        if isinstance(content, list) and all(_is_text_part(part) for part in content):
            content = "".join(part["text"] for part in content)
        text = checked_text(content, f"{where}.{in_content}", self.faults)
        return None if role is None or text is None else Message(role, text)

    def template(self, fields: Sequence[str]) -> str:
        """What the chat template is handed, as JSON: lists and objects, or the same as JSON text; "" for nothing."""
        given: dict[str, Any] = {}
        for field in fields:
            value = self.value(field)
            if is_empty(value):
                continue
            value = _parsed(value)
            if not isinstance(value, dict if field == "chat_template_kwargs" else list):
                right = "an object" if field == "chat_template_kwargs" else "a list of objects"
                self.faults.add(f"is of type {type(value).__name__}", self.where(field), value, right)
            elif field == "chat_template_kwargs" and (taken := sorted({*value} & NOT_GIVEN)):
                self.faults.add("set by innerloop", self.where(field), taken, "what the template itself reads")
            elif field == "chat_template_kwargs":
                given |= value
            else:
                given[field] = value
        try:
            text = json.dumps(given, ensure_ascii=False)
            text.encode()
        except (TypeError, ValueError) as error:
            self.faults.add(f"can't be written as JSON: {error}", self.row.where)
            return ""
        return text if given else ""


# Whoever speaks in a file of the ShareGPT form.
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def is_empty(value: Any) -> bool:
    """Missing, null, an empty list or object, or text without a character."""
    if isinstance(value, str):
        return not value.strip()
    return value is MISSING or value is None or (isinstance(value, list | dict) and not value)


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
        kind = "float" if isinstance(value, float) else type(value).__name__
        faults.add("is null" if value is None else f"is of type {kind}", where, value, kinds)
    return None


def _is_scalar(value: Any, depth: int = 0) -> bool:
    """A number, a boolean, or a list of these and of text: what Python prints as an answer should read."""
    if isinstance(value, list):
        return depth < NESTING and all(_is_scalar(item, depth + 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int) or (depth > 0 and isinstance(value, str))


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _parsed(value: Any) -> Any:
    """Some files hold lists and objects as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
