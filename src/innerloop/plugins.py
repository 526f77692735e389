"""What other installed packages add to a table: the entry points of a group, each checked when it is read.

METHODS, VERIFIERS   the groups
points               name -> the entry points of that name; two packages may claim one
read                 what an entry point stands for, once a check finds it right
where                a package and its entry point, as an error names them

An entry point that can't be used is a UserError of whoever asks for its name, and of nobody else.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from innerloop.errors import Fault, UserError

METHODS, VERIFIERS = "innerloop.methods", "innerloop.verifiers"

Check = Callable[[Any], tuple[str, str] | None]  # what is wrong, and what would be right; None = nothing


@cache
def points(group: str) -> Mapping[str, Sequence[EntryPoint]]:
    """By name, in the order of their names."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=group), key=lambda each: (each.name, each.value)):
        found.setdefault(point.name, []).append(point)
    return found


def read(group: str, name: str, *, taken: Collection[str], check: Check) -> Any:
    """taken: names that innerloop has itself. Raises UserError that names package and entry point."""
    first, *others = points(group)[name]
    if name in taken or others:
        whose = where(others[0]) if others else "innerloop itself"
        right = "another name in the package's entry points; or uninstall one of the packages"
        raise UserError(Fault(f"this name is taken: {whose} has one too", where(first), name, right))
    try:
        found = first.load()
    except (Exception, SystemExit) as error:
        said = f"does not load: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        right = f"a module that can be imported, and an object in it; try: python -c 'import {first.module}'"
        raise UserError(Fault(said, where(first), expected=right)) from error
    if wrong := check(found):
        problem, right = wrong
        raise UserError(Fault(problem, where(first), found, right))
    return found


def where(point: EntryPoint) -> str:
    """The package with its version, and the line of its metadata."""
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "a package without a name"
    return f"package {package}: entry point {point.group}: {point.name} = {point.value}"
