"""The outer loop: tasks in, one step of the shared values out.

Legend: T = tasks of a step, K = inner steps.

Trainer    step(tasks): the method's gradient over chunks of tasks, checked, then one step of the outer optimizer
Metrics    what one step measured
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.data.tasks import TaskBatch
from innerloop.engine.last_round import LastRound
from innerloop.engine.stopping import held
from innerloop.errors import RunError
from innerloop.learning.methods import Method, Outcome
from innerloop.numerics.optimizers import Optimizer
from innerloop.numerics.rounding import seeded
from innerloop.numerics.tensors import TensorSet, clone, largest, norm, per_task, zeros_like
from innerloop.spaces.phases import phase
from innerloop.spaces.space import ParameterSpace

GROWN = 1e3  # times the largest value at the start, which is taken to be 1 at least: beyond, training diverges
LOST = 100.0  # nats a token: a guess among all the tokens of a large vocabulary costs 12
MOMENTS = ("first", "second", "first_scales", "second_scales")  # of an optimizer's state


class Metrics(NamedTuple):
    """loss, and the support loss before the first and the last inner step: nats an answer token, mean over tasks.

    tokens: of the examples, in every forward that was run, those for Hessian-vector products, for clipping, and of
    tasks that were left out again among them; computed_tokens: with the padding that went through the model;
    skipped: the tasks left out because a loss or gradient of theirs was not finite.
    """

    step: int
    loss: float
    support_loss_first: float | None
    support_loss_last: float | None
    gradient_norm: float
    tokens: int
    computed_tokens: int
    skipped: tuple[str, ...] = ()


class Trainer:
    """Owns the outer optimizer's state; nothing else writes the shared values.

    tasks_per_forward   at most; None = all of a step's tasks
    seed                of the noise with which bfloat16 values are rounded
    skip_non_finite     a step goes on without the tasks whose loss or gradient is not finite
    """

    def __init__(
        self,
        space: ParameterSpace,
        method: Method,
        optimizer: Optimizer,
        *,
        tasks_per_forward: int | None = None,
        seed: int = 0,
        skip_non_finite: bool = False,
    ) -> None:
        self.space, self.method, self.optimizer, self.seed = space, method, optimizer, seed
        self.skip_non_finite = skip_non_finite
        limits = [limit for limit in (space.limit, tasks_per_forward) if limit is not None]
        self.tasks_per_forward = min(limits, default=None)
        self.steps = 0
        self.last_round = LastRound()
        self._tokens = self._computed_tokens = 0  # that went through the model in the step at hand
        self._shared = {name: value.unsqueeze(0) for name, value in space.shared.items()}  # views with a task axis of 1
        self._sane = GROWN * max(1.0, float(largest(space.shared)))
        self.gradient = zeros_like(space.shared)
        self._state = optimizer.init(self._shared)

    def step(self, tasks: TaskBatch, *, then: Callable[[Metrics], None] | None = None) -> Metrics:
        """One outer step on tasks in host memory: they are split there, so that the device never has to be asked.

        then: called with what was measured, before a signal that asks the run to stop can come between.
        Raises RunError, with the shared values untouched, when a loss or gradient isn't finite.
        """
        self._tokens = self._computed_tokens = 0
        with seeded(self.seed, self.steps, device=self.space.device):
            found, skipped = self._round(tasks)
            if self.last_round.adapters:
                self.last_round.gradient = clone(self.gradient)
            with held():  # values, moments, the count and what is said about them go together
                with phase("outer"):
                    self.optimizer.step(self._shared, found.gradient, self._state)
                self.steps += 1
                metrics = self._metrics(found, skipped)
                if then:
                    then(metrics)
            self._warn_of_divergence(metrics)
            return metrics

    @property
    def tensors(self) -> TensorSet:
        """What a later process needs to go on, beside `steps`: every random choice is a function of seed and step."""
        moments = {part: getattr(self._state, part) for part in MOMENTS}
        sets: dict[str, TensorSet] = {"shared": self.space.shared, **moments}
        return {f"{part}/{name}": value for part, values in sets.items() for name, value in values.items()}

    def go_on_from(self, steps: int) -> None:
        """After `tensors` were filled with what they held after so many steps."""
        self.steps = self._state.steps = steps

    def _round(self, tasks: TaskBatch) -> "tuple[_Round, tuple[str, ...]]":
        """The gradient of the tasks, which is finite, and the tasks that were left out for that."""
        parts, skipped = [tasks], list[str]()
        while True:
            chunks = [chunk for part in parts for chunk in part.split(self.tasks_per_forward or len(part.names))]
            found = self._measured(chunks)
            if found.is_finite:
                return found, tuple(skipped)
            broken = found.broken or self._broken_alone(chunks)
            left = len(found.names) - len(broken)
            if not self.skip_non_finite or left in (0, len(found.names)):
                raise RunError(self._blow_up(found, broken))
            skipped += broken
            parts = list(_without(tasks, skipped))

    def _metrics(self, found: "_Round", skipped: tuple[str, ...]) -> Metrics:
        support = found.support
        return Metrics(
            step=self.steps,
            loss=float(found.losses.mean()),
            support_loss_first=None if support is None else float(support[0].mean()),
            support_loss_last=None if support is None else float(support[-1].mean()),
            gradient_norm=float(found.gradient_norm),
            tokens=self._tokens,
            computed_tokens=self._computed_tokens,
            skipped=skipped,
        )

    def _warn_of_divergence(self, metrics: Metrics) -> None:
        """Once: numbers may be finite and yet far from any that a model can use."""
        if not self._sane:
            return
        size, losses = float(largest(self.space.shared)), (metrics.loss, metrics.support_loss_last or 0.0)
        if size <= self._sane and max(losses) <= LOST:
            return
        said = (
            f"step {metrics.step}: training diverges. The largest shared value is {size:.3g}, the loss {losses[0]:.3g}"
        )
        said += f" nats, after the inner steps {losses[1]:.3g}" if metrics.support_loss_last is not None else " nats"
        cure = "a smaller outer.optimizer.lr or method.inner.optimizer.lr, or a clip, is the usual cure"
        warnings.warn(f"{said}; {cure}", RuntimeWarning, stacklevel=2)
        self._sane = 0.0

    def _measured(self, chunks: Sequence[TaskBatch]) -> "_Round":
        outcomes = self._outer_gradient(chunks)
        with phase("outer"):
            return self._checked(outcomes, [name for chunk in chunks for name in chunk.names])

    def _checked(self, outcomes: Sequence[Outcome], names: list[str]) -> "_Round":
        """The mean over tasks, and whether it and all losses are finite."""
        gradient = {name: value.div_(len(names)).unsqueeze(0) for name, value in self.gradient.items()}
        losses = torch.cat([outcome.loss for outcome in outcomes])
        supports = [outcome.support_loss for outcome in outcomes if outcome.support_loss is not None]
        support = torch.cat(supports, dim=1) if supports and len(supports[0]) else None
        gradient_norm = norm(gradient)
        finite = torch.isfinite(losses)
        if support is not None:
            finite = finite & torch.isfinite(support).all(0)
        flags: list[bool] = torch.cat(
            [finite, torch.isfinite(gradient_norm).to(finite.device)]
        ).tolist()  # the one host sync of the check
        broken = [name for name, good in zip(names, flags, strict=False) if not good]
        return _Round(gradient, gradient_norm, losses, support, names, broken, is_finite=all(flags))

    def _outer_gradient(self, chunks: Sequence[TaskBatch]) -> list[Outcome]:
        """The sum over tasks in self.gradient, chunk by chunk."""
        for value in self.gradient.values():
            value.zero_()
        self.last_round = LastRound()
        outcomes: list[Outcome] = []
        for chunk in chunks:
            start = per_task(self.space.shared, len(chunk.names))
            outcome = self.method.outer_gradient(self.space, start, chunk.to(self.space.device), self.gradient)
            self._tokens += self.method.tokens(chunk)
            self._computed_tokens += sum(batch.computed_tokens for batch in self.method.forwards(chunk))
            if outcome.adapted is not None:
                self._keep(chunk, outcome.adapted)
            outcomes.append(outcome._replace(adapted=None))
        return outcomes

    def _keep(self, chunk: TaskBatch, adapted: TensorSet) -> None:
        assert chunk.query is not None
        for task, name in enumerate(chunk.names):
            self.last_round.adapters[name] = {key: value[task].cpu() for key, value in adapted.items()}
            self.last_round.query_ids[name] = chunk.query.example_ids[task]

    def _broken_alone(self, chunks: Sequence[TaskBatch]) -> list[str]:
        """The tasks whose gradient is not finite although every loss is; none where only their sum overflows."""
        alone = [chunk.select(task, task + 1) for chunk in chunks for task in range(len(chunk.names))]
        return [name for each in alone if not self._measured([each]).is_finite for name in each.names]

    def _blow_up(self, found: "_Round", broken: Sequence[str]) -> str:
        what = f"the loss of {', '.join(found.broken)}" if found.broken else "the outer gradient"
        if broken and not found.broken:
            what += f" of {', '.join(broken)}"
        said = (
            f"step {self.steps + 1}: {what} is not a finite number; the shared values were left as after step "
            f"{self.steps}."
        )
        inner = getattr(self.method, "inner", None)
        if inner is not None and found.support is not None and found.broken:
            rate, column = inner.optimizer.lr, found.support[:, found.names.index(found.broken[0])].tolist()
            course = ", ".join(f"{loss:.3g}" for loss in column)
            said += (
                f" The support loss of {found.broken[0]} before each inner step was {course}: "
                f"method.inner.optimizer.lr = {rate:g} is too large for it; try {rate / 10:g}, or method.inner.clip."
            )
        else:
            said += " A smaller outer.optimizer.lr or outer.clip is the usual cure."
        return f"{said} outer.on_non_finite: skip goes on without such tasks."


class _Round(NamedTuple):
    """gradient: the mean over tasks (1, ...); losses (T,); support (K, T); broken: tasks with a loss not finite."""

    gradient: TensorSet
    gradient_norm: Tensor
    losses: Tensor
    support: Tensor | None
    names: list[str]
    broken: list[str]
    is_finite: bool


def _without(tasks: TaskBatch, names: Sequence[str]) -> Iterator[TaskBatch]:
    """The other tasks, neighbours together."""
    for left_out, group in groupby(range(len(tasks.names)), key=lambda task: tasks.names[task] in names):
        if not left_out:
            places = list(group)
            yield tasks.select(places[0], places[-1] + 1)
