"""Methods of other installed packages, beside innerloop's own: entry points of the group `innerloop.methods`.

install   adds the row of each to METHODS, and a kind of space that it brings to KINDS; gives the faults of those that
          can't be used, by name

Read when a config's schema is made, before anything asks for a method by name. A module with a method may import what
lies below it (`innerloop.learning`, `spaces`, `numerics`, `data`): the rooms above read this table.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING
from functools import cache, partial
from typing import Any, Literal, get_origin

from innerloop import plugins
from innerloop.errors import Fault, UserError
from innerloop.learning.methods import METHODS, Method, Option, Row, own_options
from innerloop.spaces.kinds import KINDS, SpaceKind

KINDS_OF_OPTIONS = (bool, int, float, str)
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_KIND = re.compile(r"(?!every$)[a-z]+(_[a-z]+)*")  # a key beside `every` in a comparison's file
_TAKEN = {"name", "inner", "lora"}  # keys of the method section that are no rule's
_ROW = "innerloop.learning.methods.Row(rule, kind of space, title)"


@cache
def install() -> Mapping[str, Fault]:
    own, broken = set(METHODS), dict[str, Fault]()
    for name in plugins.points(plugins.METHODS):
        try:
            row: Row = plugins.read(plugins.METHODS, name, taken=own, check=partial(wrong, name))
        except UserError as error:
            (broken[name],) = error.faults
        else:
            METHODS[name] = row
            KINDS.setdefault(row.space.name, row.space)
    return broken


def wrong(name: str, row: Any) -> tuple[str, str] | None:
    """What is wrong with a row of this name, and what would be right."""
    if not _NAME.fullmatch(name):
        return "not a name of a method", "small letters, digits and single hyphens"
    if not isinstance(row, Row):
        return "not a row of METHODS", _ROW
    rule: Any = row.rule
    if not (inspect.isclass(rule) and issubclass(rule, Method)):
        return "its rule is no rule", "a class derived from innerloop.learning.methods.Method"
    if inspect.isabstract(rule) or "__dataclass_fields__" not in vars(rule):
        return "its rule can't be made", "@dataclass(frozen=True, kw_only=True), and the method outer_gradient"
    if not isinstance(row.space, SpaceKind):  # pyright: ignore[reportUnnecessaryIsInstance]
        return "it trains no kind of space", "LORA or ALL_PARAMETERS of innerloop.spaces.kinds, or one like them"
    if row.space is not KINDS.get(row.space.name, row.space) or not _KIND.fullmatch(row.space.name):
        return f"its kind of space can't be called {row.space.name}", "a new name of small letters and underscores"
    try:
        return _wrong_options(rule)
    except Exception as error:  # of annotations that name nothing
        return f"its options can't be read: {error}", "fields with types, as in @dataclass"


def _wrong_options(rule: type[Method]) -> tuple[str, str] | None:
    known = {each.name: each for row in METHODS.values() if row.rule is not rule for each in own_options(row.rule)}
    for each in own_options(rule):
        said = f"its option {each.name}"
        if each.name in _TAKEN:
            return f"{said} has the name of another key", f"none of {', '.join(sorted(_TAKEN))}"
        if each.kind not in KINDS_OF_OPTIONS and get_origin(each.kind) is not Literal:
            return f"{said} has a type that a config can't say", "bool, int, float, str or Literal[...]"
        if each.default is MISSING:
            return f"{said} has no default", "one, as in option(0.5, means=...)"
        if each.name in known and not _alike(each, known[each.name]):
            return f"{said} is another method's, of another type or other limits", "the same ones, or another name"
    return None


def _alike(one: Option, other: Option) -> bool:
    return (one.kind, one.limits) == (other.kind, other.limits)
