"""The outer loop: tasks in, one step of the shared values out.

Legend: T = tasks of a step, K = inner steps.

Trainer    step(tasks): the method's gradient over chunks of tasks, checked, then one step of the outer optimizer
Metrics    what one step measured
LastRound  META-LORA's stage-1 values of the last step, and the outer gradient they gave
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.data.tasks import TaskBatch
from innerloop.errors import RunError
from innerloop.learning.methods import Method, Outcome
from innerloop.numerics.optimizers import Optimizer
from innerloop.numerics.rounding import seeded
from innerloop.numerics.tensors import TensorSet, clone, norm, per_task, zeros_like
from innerloop.spaces.space import ParameterSpace


class Metrics(NamedTuple):
    """loss, and the support loss before the first and the last inner step: nats an answer token, mean over tasks.

    tokens: of the examples, in every pass; computed_tokens: with the padding that went through the model.
    """

    step: int
    loss: float
    support_loss_first: float | None
    support_loss_last: float | None
    gradient_norm: float
    tokens: int
    computed_tokens: int


@dataclass
class LastRound:
    """adapters: task name -> values (...); query_ids: the examples whose gradients were averaged into `gradient`."""

    adapters: dict[str, TensorSet] = field(default_factory=dict)
    query_ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    gradient: TensorSet = field(default_factory=dict)


class Trainer:
    """Owns the outer optimizer's state; nothing else writes the shared values.

    tasks_per_forward   at most; None = all of a step's tasks
    seed                of the noise with which bfloat16 values are rounded
    """

    def __init__(
        self,
        space: ParameterSpace,
        method: Method,
        optimizer: Optimizer,
        *,
        tasks_per_forward: int | None = None,
        seed: int = 0,
    ) -> None:
        self.space, self.method, self.optimizer, self.seed = space, method, optimizer, seed
        limits = [limit for limit in (space.limit, tasks_per_forward) if limit is not None]
        self.tasks_per_forward = min(limits, default=None)
        self.steps = 0
        self.last_round = LastRound()
        self._shared = {name: value.unsqueeze(0) for name, value in space.shared.items()}  # views with a task axis of 1
        self._gradient = zeros_like(space.shared)
        self._state = optimizer.init(self._shared)

    def step(self, tasks: TaskBatch) -> Metrics:
        """One outer step on tasks in host memory: they are split there, so that the device never has to be asked.

        Raises RunError, with the shared values untouched, when a loss or gradient isn't finite.
        """
        with seeded(self.seed, self.steps, device=self.space.device):
            return self._step(tasks)

    def _step(self, tasks: TaskBatch) -> Metrics:
        count = len(tasks.names)
        chunks = tasks.split(self.tasks_per_forward or count)
        outcomes = self._outer_gradient(chunks)
        gradient = {name: value.div_(count).unsqueeze(0) for name, value in self._gradient.items()}
        gradient_norm = norm(gradient)
        losses = torch.cat([outcome.loss for outcome in outcomes])
        supports = [outcome.support_loss for outcome in outcomes if outcome.support_loss is not None]
        support = torch.cat(supports, dim=1) if supports and len(supports[0]) else None
        self._refuse_non_finite(tasks, losses, support, gradient_norm)
        if self.last_round.adapters:
            self.last_round.gradient = clone(self._gradient)
        self.optimizer.step(self._shared, gradient, self._state)
        self.steps += 1
        return Metrics(
            step=self.steps,
            loss=float(losses.mean()),
            support_loss_first=None if support is None else float(support[0].mean()),
            support_loss_last=None if support is None else float(support[-1].mean()),
            gradient_norm=float(gradient_norm),
            tokens=tasks.token_count,
            computed_tokens=sum(chunk.computed_tokens for chunk in chunks),
        )

    def _outer_gradient(self, chunks: Sequence[TaskBatch]) -> list[Outcome]:
        """The sum over tasks in self._gradient, chunk by chunk."""
        for value in self._gradient.values():
            value.zero_()
        self.last_round = LastRound()
        outcomes: list[Outcome] = []
        for chunk in chunks:
            start = per_task(self.space.shared, len(chunk.names))
            outcome = self.method.outer_gradient(self.space, start, chunk.to(self.space.device), self._gradient)
            if outcome.adapted is not None:
                self._keep(chunk, outcome.adapted)
            outcomes.append(outcome._replace(adapted=None))
        return outcomes

    def _keep(self, chunk: TaskBatch, adapted: TensorSet) -> None:
        assert chunk.query is not None
        for task, name in enumerate(chunk.names):
            self.last_round.adapters[name] = {key: value[task].cpu() for key, value in adapted.items()}
            self.last_round.query_ids[name] = chunk.query.example_ids[task]

    def _refuse_non_finite(
        self, tasks: TaskBatch, losses: Tensor, support: Tensor | None, gradient_norm: Tensor
    ) -> None:
        finite = torch.isfinite(losses)
        if support is not None:
            finite = finite & torch.isfinite(support).all(0)
        everything = torch.cat(
            [finite, torch.isfinite(gradient_norm).to(finite.device)]
        ).tolist()  # the one host sync of the check
        if all(everything):
            return
        broken = [name for name, good in zip(tasks.names, everything, strict=False) if not good]
        what = f"the loss of {', '.join(broken)}" if broken else "the outer gradient"
        raise RunError(
            f"step {self.steps + 1}: {what} is not a finite number; the shared values were left as after step "
            f"{self.steps}. A smaller learning rate (method.inner.optimizer.lr, outer.optimizer.lr) or clipping "
            "(method.inner.clip, outer.clip) is the usual cure."
        )
