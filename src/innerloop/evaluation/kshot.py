"""k-shot adaptation: k examples of an unseen task, a few inner steps, then its test examples.

Legend: T = tasks, k = support examples, E = test examples a task.

TaskScore          nats an answer token and exact match of one task
Grid               learning rates and step counts to choose an adaptation from
adapt_and_score    scores after each of some numbers of steps
choose             the adaptation with the lowest mean nats on validation tasks
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from innerloop.data.batches import collate, inner_batches
from innerloop.data.encoding import Encoded, EncodedTask
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.answers import AnswerLoss
from innerloop.spaces.space import ParameterSpace


class TaskScore(NamedTuple):
    """nats: mean over test examples of the mean nats an answer token; exact: share of answers greedy decoding gives."""

    task: str
    nats: float
    exact: float


class Grid(NamedTuple):
    lrs: tuple[float, ...]
    steps: tuple[int, ...]


def draw_support(task: EncodedTask, k: int, *, seed: int) -> list[Encoded]:
    """k examples of the task's pool, drawn from the seed and the task's name."""
    key = zlib.crc32(task.task.name.encode("utf-8", "surrogatepass"))
    order = np.random.default_rng([seed, key]).permutation(len(task.pool))
    return [task.pool[int(position)] for position in order[:k]]


def adapt_and_score(
    space: ParameterSpace,
    inner: InnerLoop,
    supports: Sequence[Sequence[Encoded]],
    tasks: Sequence[EncodedTask],
    *,
    after: Sequence[int],
) -> dict[int, list[TaskScore]]:
    """Scores after each number of inner steps in `after` (the last one is inner.steps), one adaptation for all of them."""
    scores: dict[int, list[TaskScore]] = {}
    for first in range(0, len(tasks), space.limit or len(tasks)):
        chunk = tasks[first : first + (space.limit or len(tasks))]
        support = inner_batches(
            supports[first : first + len(chunk)], steps=max(inner.steps, 1), batch_size=len(supports[0])
        )
        taken = 0

        def look(values: TensorSet, _: object, *, chunk: Sequence[EncodedTask] = chunk) -> None:
            nonlocal taken
            if taken in after:
                scores.setdefault(taken, []).extend(score(space, values, chunk))
            taken += 1

        adapted = inner.adapt(space, per_task(space.shared, len(chunk)), support, before_step=look)
        look(adapted.values, None)
    return scores


def score(
    space: ParameterSpace, values: Mapping[str, Tensor], tasks: Sequence[EncodedTask]
) -> list[TaskScore]:
    """Every task's test examples under its own values (T, ...)."""
    assert isinstance(space.loss, AnswerLoss)
    with space.installed(values):
        nats, exact = space.loss.score(collate([task.test for task in tasks]))
    means = zip(tasks, nats.mean(1).tolist(), exact.float().mean(1).tolist(), strict=True)
    return [TaskScore(task.task.name, nat, share) for task, nat, share in means]


def choose(
    space: ParameterSpace,
    inner: InnerLoop,
    grid: Grid,
    validation: Sequence[EncodedTask],
    *,
    k: int,
    seed: int,
) -> InnerLoop:
    """`inner` with the learning rate and steps of the grid that give the lowest mean nats on the validation tasks."""
    supports = [draw_support(task, k, seed=seed) for task in validation]
    best: tuple[float, InnerLoop] | None = None
    for lr in grid.lrs:
        longest = InnerLoop(steps=max(grid.steps), optimizer=replace(inner.optimizer, lr=lr))
        for steps, scores in adapt_and_score(space, longest, supports, validation, after=grid.steps).items():
            nats = mean_nats(scores)
            if best is None or nats < best[0]:
                best = nats, replace(longest, steps=steps)
    assert best is not None
    return best[1]


def mean_nats(scores: Sequence[TaskScore]) -> float:
    return sum(score.nats for score in scores) / len(scores)
