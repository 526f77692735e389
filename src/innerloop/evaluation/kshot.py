"""k-shot adaptation: k examples of an unseen task, a few inner steps, then its test examples.

Legend: T = tasks, k = support examples, E = test examples per task.

TaskScore          nats and correctness of each test example of one task
Chunk              tasks that go through a forward together, and their support
adapted            inner steps on the support of a chunk
fitting            the inner loop, as far as k examples admit steps
adapt              the same for any number of tasks, and a look at the values after each step
chunks             tasks that go through a forward together
adapt_and_score    scores after each of some numbers of inner steps
training_loss      what inner steps minimize, which weighs tokens where scores weigh examples
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
import torch
from torch import Tensor

from innerloop.data.batches import collate, inner_batches
from innerloop.data.encoding import EncodedTask
from innerloop.data.in_context import LEFT_OUT, InContext
from innerloop.data.tasks import Batch
from innerloop.data.token_ids import Encoded
from innerloop.learning.inner_loop import InnerLoop, Reached
from innerloop.loading.architecture import packs
from innerloop.machine import AUTO_TOKENS_PER_FORWARD
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.bounded import InParts
from innerloop.spaces.kinds import Grid
from innerloop.spaces.loss import AnswerLoss, Score
from innerloop.spaces.space import ParameterSpace

NO_GRADIENT = 8  # a token whose activations needn't be kept takes about this much less room

OnPass = Callable[[int], None]  # tokens that went through the model


def _ignore(tokens: int) -> None: ...


class TaskScore(NamedTuple):
    """One of each per test example. Every example weighs alike, unlike in training, where every token of a task does.

    nats, stop_nats  mean nats per token of the answer, and of what ends it
    correct          from 0 to 1
    """

    task: str
    ids: tuple[str, ...]
    nats: tuple[float, ...]
    stop_nats: tuple[float, ...]
    correct: tuple[float, ...]

    @property
    def mean_nats(self) -> float:
        return sum(self.nats) / len(self.nats)

    @property
    def mean_correct(self) -> float:
        return sum(self.correct) / len(self.correct)


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


def fitting(inner: InnerLoop, in_context: InContext | None, k: int) -> InnerLoop:
    """The inner loop, without a step where it asks one example behind the others, and there are none."""
    return replace(inner, steps=0) if in_context and k < 2 else inner


def adapted(
    space: ParameterSpace,
    inner: InnerLoop,
    chunk: Chunk,
    *,
    tokens: int | None = None,
    before_step: Callable[[TensorSet, Batch], None] | None = None,
) -> Reached:
    """K steps from the shared values on T tasks' support: what `Learned.adapt`, eval and compare all do.

    tokens  of a forward with its gradient at most; None: the device's `tokens_per_forward`
    The step's examples are `inner_batches`', or of tasks in context prompts that leave one out; they go through the
    model in parts that these tokens bound.
    """
    tasks, support = chunk
    options = {"steps": max(inner.steps, 1), "batch_size": inner.batch_size}
    prompts = [task.in_context.left_out(own, **options) for task, own in zip(*chunk, strict=True) if task.in_context]
    if prompts:
        inner = fitting(inner, tasks[0].in_context, len(support[0]))
        batches = [collate(step, packed=packs(space.model)) for step in zip(*prompts, strict=True)]
    else:
        batches = inner_batches(support, **options, packed=packs(space.model))
    bounded = InParts(space, tokens=tokens or tokens_per_forward(space.device))
    return inner.adapt(bounded, per_task(space.shared, len(support)), batches, before_step=before_step)


def adapt(
    space: ParameterSpace,
    inner: InnerLoop,
    supports: Sequence[Sequence[Encoded]],
    tasks: Sequence[EncodedTask],
    *,
    look: Look,
    tokens: int | None = None,
    on_pass: OnPass = _ignore,
) -> None:
    """Every task on its own from the shared values; `look` sees the values before each step and after the last.

    It sees tasks in context with their support in the prompts of their test examples. Where one example leaves nothing
    to step on, the values are the same after every step.

    tokens   as of `adapted`
    """
    shown = [task.behind(support) for task, support in zip(tasks, supports, strict=True)]
    for chunk in chunks(space, supports, shown, tokens=tokens):
        taken = 0
        if not chunk.support[0]:  # k = 0
            look(0, per_task(space.shared, len(chunk.tasks)), chunk)
            continue
        if not fitting(inner, chunk.tasks[0].in_context, len(chunk.support[0])).steps:
            for steps in range(inner.steps + 1):
                look(steps, per_task(space.shared, len(chunk.tasks)), chunk)
            continue

        def before_step(values: TensorSet, batch: Batch, *, chunk: Chunk = chunk) -> None:
            nonlocal taken
            look(taken, values, chunk)
            taken += 1
            on_pass(batch.token_count)

        reached = adapted(space, inner, chunk, tokens=tokens, before_step=before_step)
        look(taken, reached.values, chunk)
        del reached  # before the next chunk's values are made: of all parameters each is as large as the model


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
    tokens: int | None = None,
    on_pass: OnPass = _ignore,
) -> list[TaskScore]:
    """Every task's test examples under its own values (T, ...); correct = greedy decoding gives the answer.

    tokens   as of `adapted`: of a forward without a gradient several times as many
    """
    found = score_examples(space, values, [task.test for task in tasks], tokens=tokens)
    on_pass(_tokens([example for task in tasks for example in task.test]))
    rows = zip(tasks, found.nats.tolist(), found.stop_nats.tolist(), found.exact.float().tolist(), strict=True)
    return [
        TaskScore(task.task.name, tuple(example.id for example in task.test), *map(tuple, numbers))
        for task, *numbers in rows
    ]


def score_examples(
    space: ParameterSpace,
    values: Mapping[str, Tensor],
    examples: Sequence[Sequence[Encoded]],
    *,
    tokens: int | None = None,
) -> Score:
    """(T, B) scores of T lists of B examples, each under its own values (T, ...), in parts of bounded size."""
    assert isinstance(space.loss, AnswerLoss)
    batch = collate(examples, packed=packs(space.model))
    most = NO_GRADIENT * (tokens or tokens_per_forward(space.device))
    with space.installed(values):
        parts = [space.loss.score(part.to(space.device)) for part in batch.parts(most)]
    return Score(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))


def training_loss(space: ParameterSpace, values: Mapping[str, Tensor], examples: Sequence[Sequence[Encoded]]) -> Tensor:
    """(T,) what training and inner steps minimize: one mean over all of a task's scored tokens."""
    batch = collate(examples, packed=packs(space.model))
    with space.installed(values):
        parts = batch.parts(NO_GRADIENT * tokens_per_forward(space.device))
        return torch.stack([space.loss(part.to(space.device)) for part in parts]).sum(0)


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


def chunks(
    space: ParameterSpace,
    supports: Sequence[Sequence[Encoded]],
    tasks: Sequence[EncodedTask],
    *,
    tokens: int | None = None,
) -> Iterator[Chunk]:
    """Neighbours with equally many support and test examples, as many as the space and so many tokens admit."""
    pairs = list(zip(tasks, supports, strict=True))
    for _, group in groupby(pairs, key=lambda pair: (len(pair[0].test), len(pair[1]))):
        members = list(group)
        most = max(_tokens(support) * _prompts(task) + _tokens(task.test) // NO_GRADIENT for task, support in members)
        size = max(1, (tokens or tokens_per_forward(space.device)) // max(1, most))
        size = min(size, space.limit or size)
        for first in range(0, len(members), size):
            part = members[first : first + size]
            yield Chunk([task for task, _ in part], [support for _, support in part])


def tokens_per_forward(device: torch.device) -> int:
    """Tokens of a forward with its gradient at most, wherever a user says how many examples there are."""
    return AUTO_TOKENS_PER_FORWARD[device.type]


def _prompts(task: EncodedTask) -> int:
    """How often an inner step reads the support, about."""
    return LEFT_OUT if task.in_context else 1


def _tokens(examples: Sequence[Encoded]) -> int:
    return sum(len(example.tokens) for example in examples)
