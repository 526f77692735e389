"""The stream of task batches: a pure function of (seed, step), so a run resumes anywhere at no cost.

Legend: n = tasks a step, P = examples in a task's pool.

Draw         the tasks and the example positions of one outer step
TaskStream   draw(step): every task equally often, every example of a pool in turn, support and query apart
"""

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """tasks: n indices, all different; support, query: n lists of positions in each task's pool, disjoint."""

    tasks: list[int]
    support: list[list[int]]
    query: list[list[int]]


class TaskStream:
    """Which tasks and examples each outer step reads.

    names, pools    each task's name and pool size; equal names and seed give equal draws
    Raises ValueError where a pool is smaller than support + query, or there are fewer tasks than a step takes.
    """

    def __init__(
        self,
        names: Sequence[str],
        pools: Sequence[int],
        *,
        seed: int,
        tasks_per_step: int,
        support: int,
        query: int,
    ) -> None:
        if not 0 < tasks_per_step <= len(names):
            raise ValueError(f"{tasks_per_step} tasks a step of {len(names)} tasks")
        if min(pools) < support + query:
            raise ValueError(f"a pool of {min(pools)} examples can't give {support} + {query}")
        self.pools, self.seed = list(pools), seed
        self.keys = [zlib.crc32(name.encode("utf-8", "surrogatepass")) for name in names]
        self.tasks_per_step, self.support, self.query = tasks_per_step, support, query

    def draw(self, step: int) -> Draw:
        chosen = self._tasks(step)
        drawn = [self._examples(task, occurrence) for task, occurrence in chosen]
        return Draw(
            [task for task, _ in chosen],
            [positions[: self.support] for positions in drawn],
            [positions[self.support :] for positions in drawn],
        )

    def _tasks(self, step: int) -> list[tuple[int, int]]:
        """(task, how often it was drawn before) of one step.

        A block of steps goes round one random order of the tasks until it comes out even: no task twice in a step,
        each equally often in a block. The next block has another order.
        """
        count, n = len(self.keys), self.tasks_per_step
        rounds = math.lcm(count, n) // count
        block, place = divmod(step, math.lcm(count, n) // n)
        order = np.random.default_rng([self.seed, 0, block]).permutation(count)
        positions = [place * n + slot for slot in range(n)]
        return [(int(order[p % count]), block * rounds + p // count) for p in positions]

    def _examples(self, task: int, occurrence: int) -> list[int]:
        """support + query positions. One random order of the pool serves as many draws as it fills whole."""
        need, pool = self.support + self.query, self.pools[task]
        turn, place = divmod(occurrence, pool // need)
        order = np.random.default_rng([self.seed, 1, self.keys[task], turn]).permutation(pool)
        return [int(position) for position in order[place * need : (place + 1) * need]]
