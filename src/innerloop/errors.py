"""Errors for people: what is wrong, where it was set, the value, and what would be right.

UserError        one or more faults in what the user gave (config, data, model): exit code 2
RunError         the run itself failed (a loss that is not a number, say): exit code 1
ResumableError   it was stopped, or found the disk full, and can be gone on with: exit code 75
redacted         text without the hub tokens and URL passwords in it; all messages go through it
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

WORDS_SHOWN = 24  # of the known ones, where none is near
FAULTS_SHOWN = 20  # that differ
FEW = 4  # faults that are alike: below, each is said whole
PLACES_SHOWN = 4  # of those where a fault is, beside the first

_NUMBER = re.compile(r"[0-9]+")

_UNSET: Any = object()

_SECRET = re.compile(r"(?<=://)([^\s/:@\"']*):[^\s/@\"']+@|(?<![A-Za-z0-9])(hf_[A-Za-z0-9])[A-Za-z0-9]{19,}", re.ASCII)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `where` names the file, line and key or field."""

    problem: str
    where: str = ""
    value: Any = _UNSET
    expected: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        if self.value is not _UNSET:
            text += f"\n    value:    {_shown(self.value)}"
        if self.expected:
            text += f"\n    expected: {self.expected}"
        return redacted(text)


class UserError(Exception):
    """Everything wrong with what the user gave, in one message."""

    exit_code = 2

    def __init__(self, *faults: Fault | str) -> None:
        every = (fault if isinstance(fault, Fault) else Fault(fault) for fault in faults)
        self.faults = tuple({str(fault): fault for fault in every}.values())
        super().__init__(told(self.faults))


def told(faults: Sequence[Fault]) -> str:
    """What differs once, with how often and where else there is one like it; the first 20 of them.

    Faults are alike where only numbers of the problem tell them apart, beside their place and value: one per task, say.
    A few of them are said whole.
    """
    alike: dict[tuple[str, ...], list[Fault]] = {}
    for fault in faults:
        key = (_NUMBER.sub("0", fault.problem), fault.expected)  # what would be right is never left out
        # Without a place there is nothing to add: such faults say in their problem or value which one they are.
        alike.setdefault(key if fault.where else (*key, str(fault)), []).append(fault)
    groups = [part for group in alike.values() for part in ([group] if len(group) >= FEW else [[one] for one in group])]
    left = sum(len(group) for group in groups[FAULTS_SHOWN:])
    more = [f"... and {left} more"] if left else []
    return "\n".join([*map(_with_others, groups[:FAULTS_SHOWN]), *more])


def _with_others(group: list[Fault]) -> str:
    first, *others = group
    if not others:
        return str(first)
    places = [redacted(fault.where) for fault in others[:PLACES_SHOWN]]
    more = [f"{len(others) - PLACES_SHOWN} more"] if len(others) > PLACES_SHOWN else []
    return f"{first}\n    also at:  {'; '.join([*places, *more])} ({len(group)} in all)"


class RunError(Exception):
    """The run could not go on; nothing that was saved before is lost."""

    exit_code = 1

    def __str__(self) -> str:
        return redacted(super().__str__())


class ResumableError(RunError):
    """What was reached is kept: the same command goes on from there."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class Faults(list[Fault]):
    """Collects faults so that a reader reports all of them at once."""

    def add(self, problem: str, where: str = "", value: Any = _UNSET, expected: str = "") -> None:
        self.append(Fault(problem, where, value, expected))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """A block whose UserError ends it and is added, so that what else is wrong is looked for too."""
        try:
            yield
        except UserError as error:
            self.extend(error.faults)

    def raise_if_any(self) -> None:
        if self:
            raise UserError(*self)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'did you mean "steps"?', or the list of known words where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    more = f" and {len(names) - WORDS_SHOWN} more" if len(names) > WORDS_SHOWN else ""
    return "one of: " + ", ".join(names[:WORDS_SHOWN]) + more


def redacted(text: str) -> str:
    """`text` without the hub's access tokens (`hf_q***`) and the passwords of URLs (`https://me:***@host`)."""
    return _SECRET.sub(lambda found: f"{found[2]}***" if found[2] else f"{found[1]}:***@", text)


def _shown(value: Any, limit: int = 120) -> str:
    text = redacted(repr(_plain(value)))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _plain(value: Any) -> Any:
    """As a user wrote it: a tuple with names as a map, any other as a list, a path as text."""
    if isinstance(value, tuple):
        named: Any = value
        return _plain(named._asdict()) if hasattr(named, "_asdict") else [_plain(part) for part in value]
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return str(value) if isinstance(value, PurePath) else value
