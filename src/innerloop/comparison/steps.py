"""How many outer steps a budget buys.

budget_steps   tokens or examples: tokens are those of every forward that the steps would run, Hessian-vector products
               among them
timed_steps    seconds: from a few steps that are timed and then forgotten
"""

import statistics
import time
from collections.abc import Sequence
from itertools import count

from innerloop.engine.session import Session
from innerloop.engine.sources import examples_a_round
from innerloop.engine.task_batches import TaskBatches
from innerloop.learning.methods import Method

TIMED = 3
LOOKED_AT = 64  # steps whose passes are counted


def budget_steps(session: Session, budget: str, amount: float) -> int:
    """Steps of each of the session's adapters that, together, stay within the amount; 0 = not even one."""
    streams = [batches for _, batches in session.streams()]
    if budget == "examples":
        a_step = session.config.outer.tasks_in_step * sum(examples_a_round(session.config))
        return int(amount // (len(streams) * a_step))
    return _token_steps(session.config.method.build(), streams, amount)


def timed_steps(session: Session, seconds: float) -> int:
    """At least 1. The first step warms up; the run itself starts from a fresh space, so its numbers don't change.

    A pass is timed, since steps may draw different numbers of inner steps; a step has as many as the first ones' mean.
    """
    _, batches = session.streams()[0]
    trainer = session.trainer(session.space(), batches)
    taken: list[float] = []
    for step in range(TIMED + 1):
        started = time.perf_counter()
        passes = trainer.step(batches[step]).passes
        taken.append((time.perf_counter() - started) / passes)
    each = [batch.tasks for step in range(LOOKED_AT) for batch in trainer.method.forwards(batches[step])]
    a_step = statistics.median(taken[1:]) * sum(each) / LOOKED_AT
    return max(1, int(seconds / len(session.streams()) / a_step))


def _token_steps(method: Method, streams: Sequence[TaskBatches], tokens: float) -> int:
    spent = 0
    for step in count():
        spent += sum(method.tokens(batches[step]) for batches in streams)
        if spent > tokens:
            return step
    raise AssertionError("unreachable")
