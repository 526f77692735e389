"""Which part of a run is at work, told to whoever holds the other end of a line: a byte where it changes.

PHASES     in the order of their bytes
observe    wraps the functions that phases consist of; they do what they did, and one of them waits at its begin
Interval   one stretch of a phase; timeline: those of a run that was observed

A phase lasts from a function's call to its return, less the phases of what it calls. `starting` is what comes before
the first step, `outer` what a step does beside its gradient, with its record and the making of batches, `query` the
gradient without the adaptation; `finishing` is the manifest's last word and what comes after it.
"""

import functools
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

PHASES = ("starting", "loading", "tokenising", "inner", "query", "outer", "saving", "exporting", "finishing")
STEP = 64  # the byte of an outer step that begins
Gate = tuple[str, int]  # a phase, and how often it had begun before

# Where a phase's functions are looked up when they are called. `*`: whatever its methods define.
_WHERE = [
    ("loading", "innerloop.engine.session", "load"),
    ("tokenising", "innerloop.data.encoder", "Encoder.tasks"),
    ("inner", "innerloop.learning.inner_loop", "InnerLoop.adapt"),
    ("query", "innerloop.learning.methods", "Fomaml.outer_gradient"),
    ("query", "innerloop.learning.methods", "Maml.outer_gradient"),
    ("query", "innerloop.learning.methods", "MetaLora.outer_gradient"),
    ("query", "innerloop.learning.methods", "Reptile.outer_gradient"),
    ("query", "innerloop.learning.methods", "Joint.outer_gradient"),
    ("outer", "innerloop.engine.trainer", "Trainer.step"),
    ("saving", "innerloop.runs.checkpoint", "Checkpoints.save"),
    ("exporting", "innerloop.runs.learned", "Learned.save_pretrained"),
    ("exporting", "innerloop.runs.adapters", "_keep_last_round"),
    ("finishing", "innerloop.runs.journal", "Journal.finish"),
    ("finishing", "innerloop.runs.checkpoint", "Checkpoints.remove"),
]
_LASTING = ("finishing",)  # what comes after it is part of it


class Interval(NamedTuple):
    """occurrence: how often the phase had begun before; begins, seconds: of the run."""

    phase: str
    occurrence: int
    begins: float
    seconds: float


class _Teller:
    def __init__(self, line: int, gate: Gate | None) -> None:
        self.line, self.gate, self.stack = line, gate, ["starting"]
        self.said = dict.fromkeys(PHASES, 0)
        self.say("starting")

    def say(self, phase: str) -> None:
        os.write(self.line, bytes([PHASES.index(phase)]))
        here, self.said[phase] = (phase, self.said[phase]), self.said[phase] + 1
        if here == self.gate:
            os.read(self.line, 1)  # a signal is answered meanwhile

    def during(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def observed(*arguments: Any, **options: Any) -> Any:
            if function.__qualname__ == "Trainer.step":
                os.write(self.line, bytes([STEP]))
                self.stack[0] = "outer"  # what comes between two steps
            self.stack.append(phase)
            try:
                self.say(phase)
                return function(*arguments, **options)
            finally:
                self.stack.pop()
                if phase in _LASTING:
                    self.stack[:] = [phase]
                self.say(self.stack[-1])

        return observed


def observe(line: int, gate: Gate | None = None) -> None:
    """In the process that will run: at the gate it stands until a byte comes, or nobody is left to send one.

    Raises AttributeError where a function is not where it was.
    """
    teller = _Teller(line, gate)
    for phase, module, name in _WHERE:
        *kinds, last = name.split(".")
        holder: Any = importlib.import_module(module)
        for kind in kinds:
            holder = getattr(holder, kind)
        setattr(holder, last, teller.during(phase, getattr(holder, last)))


def timeline(marks: Sequence[tuple[str, float]], end: float) -> list[Interval]:
    """marks: (phase, when it began), in order."""
    found, seen = list[Interval](), dict.fromkeys(PHASES, 0)
    for (phase, begins), (_, ends) in zip(marks, [*marks[1:], ("", end)], strict=True):
        found.append(Interval(phase, seen[phase], begins, ends - begins))
        seen[phase] += 1
    return found
