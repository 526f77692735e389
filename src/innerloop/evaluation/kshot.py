"""k-shot adaptation: k examples of an unseen task, a few inner steps, then its test examples.

Legend: T = tasks, k = support examples, E = test examples a task.

TaskScore          nats an answer token and exact match of one task
Grid               learning rates and step counts to choose an adaptation from
adapt_and_score    scores after each of some numbers of inner steps
choose             the adaptation with the lowest mean nats on validation tasks
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from innerloop.data.batches import collate
from innerloop.data.encoding import Encoded, EncodedTask
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.answers import AnswerLoss
from innerloop.spaces.space import ParameterSpace

OnPass = Callable[[int], None]  # tokens that went through the model


def _ignore(tokens: int) -> None: ...


class TaskScore(NamedTuple):
    """nats: mean over test examples of their mean nats an answer token; exact: share of them answered exactly."""

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
    on_pass: OnPass = _ignore,
) -> dict[int, list[TaskScore]]:
    """Scores after each number of inner steps in `after` (at most inner.steps), all from one adaptation."""
    scores: dict[int, list[TaskScore]] = {}
    size = space.limit or len(tasks)
    longest = replace(inner, steps=max(after))
    for first in range(0, len(tasks), size):
        chunk, support = tasks[first : first + size], collate(supports[first : first + size])
        taken = 0

        def look(values: TensorSet, _: object, *, chunk: Sequence[EncodedTask] = chunk) -> None:
            nonlocal taken
            if taken in after:
                scores.setdefault(taken, []).extend(score(space, values, chunk, on_pass=on_pass))
            taken += 1

        adapted = longest.adapt(space, per_task(space.shared, len(chunk)), [support], before_step=look)
        look(adapted.values, None)
        on_pass(longest.steps * support.token_count)
    return scores


def score(
    space: ParameterSpace,
    values: Mapping[str, Tensor],
    tasks: Sequence[EncodedTask],
    *,
    on_pass: OnPass = _ignore,
) -> list[TaskScore]:
    """Every task's test examples under its own values (T, ...)."""
    assert isinstance(space.loss, AnswerLoss)
    batch = collate([task.test for task in tasks])
    with space.installed(values):
        nats, exact = space.loss.score(batch)
    on_pass(batch.token_count)
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
    on_pass: OnPass = _ignore,
) -> InnerLoop:
    """`inner` with the lr and steps of the grid that give the lowest mean nats on the validation tasks."""
    supports = [draw_support(task, k, seed=seed) for task in validation]
    found: list[tuple[float, InnerLoop]] = []
    for lr in grid.lrs:
        tried = replace(inner, optimizer=replace(inner.optimizer, lr=lr))
        scores = adapt_and_score(space, tried, supports, validation, after=grid.steps, on_pass=on_pass)
        found += [(mean_nats(scores[steps]), replace(tried, steps=steps)) for steps in grid.steps]
    return min(found, key=lambda pair: pair[0])[1]


def mean_nats(scores: Sequence[TaskScore]) -> float:
    return sum(score.nats for score in scores) / len(scores)


def mean_exact(scores: Sequence[TaskScore]) -> float:
    return sum(score.exact for score in scores) / len(scores)
