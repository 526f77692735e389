"""JSON by the book, of text that anybody may have written.

parse       text -> value; ValueError, its subclass JSONDecodeError where the syntax is broken
can_print   whether a value is shallow enough to be shown, and its numbers short enough
"""

import json
from collections import Counter
from typing import Any

from innerloop.data.arrow_values import Written

_DEEP = "nested too deep"
NESTING = 50  # levels of lists and objects in a record
LONGEST_NUMBER = 14_000  # bits of a whole number: Python prints no more than 4,300 digits
SHOWN = 200  # of a broken line, as much as a message may need


def parse(text: str) -> Any:
    """Raises ValueError for NaN, a key given twice and endless nesting too."""
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=Written)
    except RecursionError:
        raise ValueError(_DEEP) from None
    if not can_print(value):
        raise ValueError(_DEEP)
    return value


def can_print(value: Any, levels: int = NESTING) -> bool:
    """Neither nested deeper than that nor with a number too long: Python would refuse to print it."""
    if isinstance(value, int):
        return levels > 0 and value.bit_length() <= LONGEST_NUMBER
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return levels > 0 and all(can_print(item, levels - 1) for item in items)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name!r:.{SHOWN}} appears twice")
    return record


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
