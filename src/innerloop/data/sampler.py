"""The stream of task batches: a pure function of (seed, step), so a run resumes anywhere at no cost.

Legend: n = tasks per step, P = examples in a task's pool.

Draw         the tasks and the example positions of one outer step
TaskStream   draw(step): every task equally often, every prompt of a pool in turn, support and query apart
prompts_of   a pool's positions by prompt: what a draw takes one example of
drawn_steps  how many inner steps an outer step takes
fitting_sizes   support, query and test sizes that a task with so many prompts allows
"""

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from innerloop.data.tasks import Example


class Draw(NamedTuple):
    """tasks: n indices, all different; support, query: n lists of positions in each task's pool, disjoint."""

    tasks: list[int]
    support: list[list[int]]
    query: list[list[int]]

    @property
    def pooled(self) -> "Draw":
        """The same examples, all of them query: what joint training draws."""
        both = [[*support, *query] for support, query in zip(self.support, self.query, strict=True)]
        return Draw(self.tasks, [[] for _ in self.tasks], both)


def prompts_of(pool: Sequence[Example]) -> list[list[int]]:
    """The positions of the examples that share a prompt, in order of first appearance."""
    found: dict[str, list[int]] = {}
    for position, example in enumerate(pool):
        found.setdefault(example.prompt_key, []).append(position)
    return list(found.values())


def drawn_steps(choices: Sequence[int], *, seed: int, step: int) -> int:
    """One of the numbers of inner steps, each as likely as the others."""
    return int(np.random.default_rng([seed, 2, step]).choice(choices)) if len(choices) > 1 else choices[0]


class Sizes(NamedTuple):
    support: int
    query: int
    test: int


def fitting_sizes(prompts: int) -> Sizes:
    """A third to test, up to 24; of the rest half to adapt with and half to judge that, up to 8 each."""
    test = min(24, max(2, prompts // 3))
    support = max(1, min(8, (prompts - test) // 2))
    return Sizes(support, max(1, min(8, prompts - test - support)), test)


class TaskStream:
    """Which tasks and examples each outer step reads.

    names   each task's name; equal names, pools and seed give equal draws
    pools   each task's number of examples, or `prompts_of` them: no two examples of a draw share a prompt, so that a
            query never asks what the support has told, and a prompt's examples take turns
    Raises ValueError where a pool has fewer prompts than support + query, or there are fewer tasks than a step takes.
    """

    def __init__(
        self,
        names: Sequence[str],
        pools: Sequence[int | Sequence[Sequence[int]]],
        *,
        seed: int,
        tasks_per_step: int,
        support: int,
        query: int,
    ) -> None:
        if not 0 < tasks_per_step <= len(names):
            raise ValueError(f"{tasks_per_step} tasks per step of {len(names)} tasks")
        self.prompts = [[[p] for p in range(pool)] if isinstance(pool, int) else pool for pool in pools]
        fewest = min(map(len, self.prompts))
        if fewest < support + query:
            raise ValueError(f"a pool of {fewest} examples can't give {support} + {query}")
        self.pools, self.seed = [sum(map(len, prompts)) for prompts in self.prompts], seed
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
        """support + query positions of different prompts. One random order of them serves as many draws as it fills."""
        need, prompts = self.support + self.query, self.prompts[task]
        turn, place = divmod(occurrence, len(prompts) // need)
        order = np.random.default_rng([self.seed, 1, self.keys[task], turn]).permutation(len(prompts))
        drawn = [prompts[int(prompt)] for prompt in order[place * need : (place + 1) * need]]
        return [examples[turn % len(examples)] for examples in drawn]
