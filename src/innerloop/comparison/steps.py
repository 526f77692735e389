"""How many outer steps a budget buys.

budget_steps   tokens or examples: tokens are those of every forward that the steps would run, Hessian-vector products
               among them
tokens_read    the other way round: the tokens of as many steps as a run is configured for
timed_steps    seconds: from a few steps that are timed and then forgotten
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import cached_property
from itertools import count

from innerloop.config.loading import RunConfig
from innerloop.engine.schedules import joint_steps
from innerloop.engine.session import Session
from innerloop.engine.sources import examples_a_round
from innerloop.learning.methods import Joint

TIMED = 3
LOOKED_AT = 64  # steps whose passes are counted


def budget_steps(session: Session, budget: str, amount: float) -> int:
    """Steps of each of the session's adapters that, together, stay within the amount; 0 = not even one."""
    if budget == "examples":
        a_step = session.config.outer.tasks_in_step * sum(examples_a_round(session.config))
        return int(amount // (len(session.streams()) * a_step))
    return _most(session.config, *_token_sums(session), amount)


def tokens_read(session: Session) -> int:
    """By all steps of each of the session's adapters, together."""
    return int(_first(session.config, *_token_sums(session), session.config.outer.steps))


def _token_sums(session: Session) -> "tuple[_Sums, _Sums]":
    """Of joint training's steps, and of the method's own."""
    streams = [batches for _, batches in session.streams()]
    method = session.config.method.build()
    joint = _Sums(lambda step: sum(Joint().tokens(batches.of(step, joint=True)) for batches in streams))
    own = _Sums(lambda step: sum(method.tokens(batches.of(step, joint=False)) for batches in streams))
    return joint, own


def timed_steps(session: Session, seconds: float) -> int:
    """At least 1. The first step warms up; the run itself starts from a fresh space, so its numbers don't change.

    A pass is timed, since steps may draw different numbers of inner steps; a step has as many as the first ones' mean.
    """
    adapters, joint, own = len(session.streams()), _Timed(session, joint=True), _Timed(session, joint=False)
    sums = _Sums(lambda _: adapters * joint.a_step), _Sums(lambda _: adapters * own.a_step)
    return max(1, _most(session.config, *sums, seconds))


class _Timed:
    """Steps of one rule, timed when they are asked for."""

    def __init__(self, session: Session, *, joint: bool) -> None:
        self.session, self.joint = session, joint

    @cached_property
    def a_step(self) -> float:
        """Seconds."""
        _, batches = self.session.streams()[0]
        trainer = self.session.trainer(self.session.space(), batches)
        trainer.joint_steps = sys.maxsize if self.joint else 0
        taken: list[float] = []
        for step in range(TIMED + 1):
            tasks = batches.of(step, joint=self.joint)
            started = time.perf_counter()
            passes = trainer.step(tasks).passes
            taken.append((time.perf_counter() - started) / passes)
        every = (batches.of(step, joint=self.joint) for step in range(LOOKED_AT))
        each = [batch.tasks for tasks in every for batch in trainer.rule.forwards(tasks)]
        return statistics.median(taken[1:]) * sum(each) / LOOKED_AT


class _Sums:
    """What the first n steps take, by what each one does; no step is asked for twice."""

    def __init__(self, of: Callable[[int], float]) -> None:
        self.of, self.known = of, [0.0]

    def first(self, steps: int) -> float:
        while len(self.known) <= steps:
            self.known.append(self.known[-1] + self.of(len(self.known) - 1))
        return self.known[steps]


def _most(config: RunConfig, joint: _Sums, own: _Sums, amount: float) -> int:
    """The most steps that stay within the amount; how many of them are joint training may depend on their number."""
    return next(steps - 1 for steps in count(1) if _first(config, joint, own, steps) > amount)


def _first(config: RunConfig, joint: _Sums, own: _Sums, steps: int) -> float:
    """What a run of so many steps takes."""
    first = joint_steps(config.outer, of=steps)
    rest = own.first(steps) - own.first(first) if first < steps else 0
    return (joint.first(first) if first else 0) + rest
