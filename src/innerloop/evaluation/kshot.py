"""k-shot adaptation: k examples of an unseen task, a few inner steps, then its test examples.

Legend: T = tasks, k = support examples, E = test examples a task.

TaskScore          nats an answer token and correctness of each test example of one task
Grid               learning rates and step counts to choose an adaptation from
adapt              inner steps on the support of many tasks, and a look at the values after each step
adapt_and_score    scores after each of some numbers of inner steps
score              scores of values as they stand
choose             the adaptation with the lowest mean nats on validation tasks
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
from torch import Tensor

from innerloop.architecture import packs
from innerloop.data.batches import collate
from innerloop.data.encoding import Encoded, EncodedTask
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.runs.preparation import AUTO_TOKENS_PER_FORWARD
from innerloop.spaces.answers import AnswerLoss
from innerloop.spaces.space import ParameterSpace

NO_GRADIENT = 8  # a token whose activations needn't be kept takes about this much less room

OnPass = Callable[[int], None]  # tokens that went through the model


def _ignore(tokens: int) -> None: ...


class TaskScore(NamedTuple):
    """ids, nats, correct: one of each a test example; nats: mean nats an answer token; correct: from 0 to 1."""

    task: str
    ids: tuple[str, ...]
    nats: tuple[float, ...]
    correct: tuple[float, ...]

    @property
    def mean_nats(self) -> float:
        return sum(self.nats) / len(self.nats)

    @property
    def mean_correct(self) -> float:
        return sum(self.correct) / len(self.correct)


class Grid(NamedTuple):
    lrs: tuple[float, ...]
    steps: tuple[int, ...]


class Chunk(NamedTuple):
    """Tasks that go through one forward, and their support examples: equally many each."""

    tasks: list[EncodedTask]
    support: list[Sequence[Encoded]]


Look = Callable[[int, TensorSet, Chunk], None]  # after so many steps; the values (T, ...) are only read


def draw_support(task: EncodedTask, k: int, *, seed: int, draw: int = 0) -> list[Encoded]:
    """k examples of the task's pool, drawn from seed, draw and the task's name; fewer are the first of more."""
    key = zlib.crc32(task.task.name.encode("utf-8", "surrogatepass"))
    order = np.random.default_rng([seed, key, draw]).permutation(len(task.pool))
    return [task.pool[int(position)] for position in order[:k]]


def adapt(
    space: ParameterSpace,
    inner: InnerLoop,
    supports: Sequence[Sequence[Encoded]],
    tasks: Sequence[EncodedTask],
    *,
    look: Look,
    on_pass: OnPass = _ignore,
) -> None:
    """Every task on its own from the shared values; `look` sees the values before each step and after the last."""
    for chunk in _chunks(space, supports, tasks):
        start, taken = per_task(space.shared, len(chunk.tasks)), 0
        if not chunk.support[0]:  # k = 0
            look(0, start, chunk)
            continue
        batch = collate(chunk.support, packed=packs(space.model)).to(space.device)

        def before_step(values: TensorSet, _: object, *, chunk: Chunk = chunk) -> None:
            nonlocal taken
            look(taken, values, chunk)
            taken += 1

        adapted = inner.adapt(space, start, [batch], before_step=before_step)
        look(taken, adapted.values, chunk)
        on_pass(inner.steps * batch.token_count)


def adapt_and_score(
    space: ParameterSpace,
    inner: InnerLoop,
    supports: Sequence[Sequence[Encoded]],
    tasks: Sequence[EncodedTask],
    *,
    after: Sequence[int],
    on_pass: OnPass = _ignore,
) -> dict[int, list[TaskScore]]:
    """Scores after each number of inner steps in `after`, all from one adaptation."""
    scores: dict[int, list[TaskScore]] = {steps: [] for steps in after}

    def look(taken: int, values: TensorSet, chunk: Chunk) -> None:
        if taken in scores:
            scores[taken] += score(space, values, chunk.tasks, on_pass=on_pass)

    adapt(space, replace(inner, steps=max(after)), supports, tasks, look=look, on_pass=on_pass)
    return scores


def score(
    space: ParameterSpace,
    values: Mapping[str, Tensor],
    tasks: Sequence[EncodedTask],
    *,
    on_pass: OnPass = _ignore,
) -> list[TaskScore]:
    """Every task's test examples under its own values (T, ...); correct = greedy decoding gives the answer."""
    assert isinstance(space.loss, AnswerLoss)
    batch = collate([task.test for task in tasks], packed=packs(space.model)).to(space.device)
    with space.installed(values):
        nats, exact = space.loss.score(batch)
    on_pass(batch.token_count)
    rows = zip(tasks, batch.example_ids, nats.tolist(), exact.float().tolist(), strict=True)
    return [TaskScore(task.task.name, ids, tuple(nat), tuple(right)) for task, ids, nat, right in rows]


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
    return min(found, key=lambda pair: pair[0] if math.isfinite(pair[0]) else math.inf)[1]


def mean_nats(scores: Sequence[TaskScore]) -> float:
    """Every task weighs alike."""
    return sum(score.mean_nats for score in scores) / len(scores)


def mean_correct(scores: Sequence[TaskScore]) -> float:
    """Every task weighs alike."""
    return sum(score.mean_correct for score in scores) / len(scores)


def _chunks(
    space: ParameterSpace, supports: Sequence[Sequence[Encoded]], tasks: Sequence[EncodedTask]
) -> Iterator[Chunk]:
    """Neighbours with equally many support and test examples, as many as the space and a token budget admit."""
    pairs = list(zip(tasks, supports, strict=True))
    for _, group in groupby(pairs, key=lambda pair: (len(pair[0].test), len(pair[1]))):
        members = list(group)
        most = max(_tokens(support) + _tokens(task.test) // NO_GRADIENT for task, support in members)
        size = max(1, AUTO_TOKENS_PER_FORWARD[space.device.type] // most)
        size = min(size, space.limit or size)
        for first in range(0, len(members), size):
            part = members[first : first + size]
            yield Chunk([task for task, _ in part], [support for _, support in part])


def _tokens(examples: Sequence[Encoded]) -> int:
    return sum(len(example.tokens) for example in examples)
