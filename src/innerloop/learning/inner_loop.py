"""Adaptation: a few optimizer steps on a task's support examples, the same object at training and at test time.

Legend: T = tasks, K = inner steps.

InnerLoop   K steps of an optimizer whose state is fresh for each task
Reached     the adapted values (T, ...) and the support loss before each step (K, T)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.data.tasks import Batch
from innerloop.numerics.optimizers import Optimizer
from innerloop.numerics.tensors import TensorSet
from innerloop.spaces.phases import phase
from innerloop.spaces.space import ParameterSpace


class Reached(NamedTuple):
    values: TensorSet
    losses: Tensor


@dataclass(frozen=True, kw_only=True)
class InnerLoop:
    """K steps of an optimizer on each task's support.

    >>> inner = InnerLoop(steps=3, optimizer=AdamW(lr=3e-3))
    >>> reached = inner.adapt(space, start, support)
    >>> tuple(reached.losses.shape)  # (K, T)
    (3, 2)

    steps       K
    optimizer   its learning rate, clipping and moments are each task's own
    batch_size  examples of the support per step, for whoever makes the batches (`data.batches.inner_batches`);
                None: all of them
    """

    steps: int
    optimizer: Optimizer
    batch_size: int | None = None

    def adapt(
        self,
        space: ParameterSpace,
        start: Mapping[str, Tensor],
        support: Sequence[Batch],
        *,
        before_step: Callable[[TensorSet, Batch], None] | None = None,
    ) -> Reached:
        """K steps from `start` (T, ...), which is left as it is; step k reads support[k], cyclically.

        before_step sees the values (in place: copy what you keep) and the batch of each step before it is taken.
        """
        with phase("inner"):
            values = space.fork(start)
        state = self.optimizer.init(values)
        losses: list[Tensor] = []
        for step in range(self.steps):
            batch = support[step % len(support)]
            if before_step is not None:
                before_step(values, batch)
            with phase("inner"):
                losses.append(space.descend(values, state, batch, self.optimizer))
        tasks = len(next(iter(values.values())))
        return Reached(values, torch.stack(losses) if losses else torch.empty(0, tasks))
