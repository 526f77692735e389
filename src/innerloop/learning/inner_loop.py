"""Adaptation: a few optimizer steps on a task's support examples, the same object at training and at test time.

Legend: T = tasks, K = inner steps; phi_k = the values after k of them, Q = the query set.

InnerLoop   K steps of an optimizer whose state is fresh for each task
Reached     the adapted values (T, ...) and the support loss before each step (K, T)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.data.tasks import Batch, TaskBatch
from innerloop.learning.inner_rates import InnerRates
from innerloop.numerics.optimizers import Optimizer
from innerloop.numerics.tensors import TensorSet, clone
from innerloop.spaces.adapting import adapting
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

    steps       K, the largest where training draws it
    optimizer   its learning rate, clipping and moments are each task's own
    batch_size  examples of the support per step, for whoever makes the batches (`data.batches.inner_batches`);
                None: all of them
    rates       what was learned of the steps' lengths
    train       what a step moves: "all", "lora-b" or "last-8"; the rest is the same for every task (ANIL: Raghu et al.
                2020, arXiv:1909.09157, section 4)

    In training alone, and of an outer step the number of which is known to `at`:
    warmup      outer steps in which the learning rate rises from a tenth
    anchor      weight of the loss at theta, on the batch of the first inner step, in the outer gradient
    multi_step  outer steps in which the query loss after each inner step counts, with weights that end on the last
    spread      how much of that is left: 1 = every step counts alike, 0 = the last alone
    """

    steps: int
    optimizer: Optimizer
    batch_size: int | None = None
    rates: InnerRates | None = field(default=None, compare=False)
    train: str = "all"
    warmup: int = 0
    anchor: float = 0.0
    multi_step: int = 0
    spread: float = 0.0

    def at(self, tasks: TaskBatch) -> "InnerLoop":
        """As one outer step of training has it: with as many steps as that drew, a support batch for each."""
        steps, optimizer, spread = min(self.steps, len(tasks.support)), self.optimizer, self.spread
        if tasks.step < self.warmup:
            optimizer = replace(optimizer, lr=optimizer.lr * (0.1 + 0.9 * tasks.step / self.warmup))
        if self.multi_step:
            spread = max(0.0, 1 - tasks.step / self.multi_step)
        return replace(self, steps=steps, optimizer=optimizer, spread=spread, warmup=0, multi_step=0)

    def moves(self, space: ParameterSpace) -> list[str] | None:
        """The names of what a step moves; None = everything."""
        return None if self.train == "all" else adapting(self.train, space.shared, space.model)

    @property
    def weights(self) -> list[float]:
        """Of the query losses at phi_1 .. phi_K, together 1: MAML++'s (Antoniou et al. 2019, arXiv:1810.09502, 4)."""
        earlier = [self.spread / max(self.steps, 1)] * (self.steps - 1)
        return [*earlier, 1 - sum(earlier)]

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
        only = self.moves(space)
        with phase("inner"):
            moving = space.fork({name: start[name] for name in only or start})
        values = {name: moving.get(name, value) for name, value in start.items()}
        state = self.optimizer.init(moving)
        losses: list[Tensor] = []
        for step in range(self.steps):
            batch = support[step % len(support)]
            if before_step is not None:
                before_step(values, batch)
            with phase("inner"):
                before = clone(moving) if self.rates else moving
                losses.append(space.descend(values, state, batch, self.optimizer, only=only))
                if self.rates:
                    self.rates.scale_(moving, before, step)
        first = next(iter(values.values()))
        return Reached(values, torch.stack(losses) if losses else first.new_empty(0, len(first)))
