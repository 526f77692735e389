"""Errors for people: what is wrong, where it was set, the value, and what would be right.

UserError        one or more faults in what the user gave (config, data, model): exit code 2
RunError         the run itself failed (a loss that is not a number, say): exit code 1
ResumableError   it was stopped, or found the disk full, and can be gone on with: exit code 75
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_UNSET: Any = object()


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
        return text


class UserError(Exception):
    """Everything wrong with what the user gave, in one message."""

    exit_code = 2

    def __init__(self, *faults: Fault | str) -> None:
        self.faults = tuple(fault if isinstance(fault, Fault) else Fault(fault) for fault in faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class RunError(Exception):
    """The run could not go on; nothing that was saved before is lost."""

    exit_code = 1


class ResumableError(RunError):
    """What was reached is kept: the same command goes on from there."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class Faults(list[Fault]):
    """Collects faults so that a reader reports all of them at once."""

    def add(self, problem: str, where: str = "", value: Any = _UNSET, expected: str = "") -> None:
        self.append(Fault(problem, where, value, expected))

    def raise_if_any(self) -> None:
        if self:
            raise UserError(*self)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'did you mean "steps"?', or the list of known words where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else "one of: " + ", ".join(names)


def _shown(value: Any, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
