"""The outer loop: tasks in, one step of the shared values out.

Legend: T = tasks of a step, K = inner steps.

Trainer    step(tasks): the method's gradient over chunks of tasks, checked, then one step of the outer optimizer
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

import torch

from innerloop.data.tasks import TaskBatch
from innerloop.engine.diagnosis import Sample, StartCheck
from innerloop.engine.last_round import LastRound
from innerloop.engine.metrics import Metrics, Pass, metrics_of, pass_of
from innerloop.engine.non_finite import Divergence, Round, mean_of, refusal, without
from innerloop.engine.rate_learning import RateLearning
from innerloop.engine.schedules import RateOf
from innerloop.engine.stopping import held
from innerloop.errors import RunError
from innerloop.learning.methods import Joint, Method, Outcome
from innerloop.numerics.averages import average_, copy_in_float32
from innerloop.numerics.optimizers import Optimizer
from innerloop.numerics.rounding import seeded
from innerloop.numerics.tensors import TensorSet, clone, per_task, zeros_like
from innerloop.spaces.phases import phase
from innerloop.spaces.space import ParameterSpace

RATE = "inner rate/"  # with which the names of learned rates begin
MOMENTS = ("first", "second", "first_scales", "second_scales")  # of an optimizer's state


class _AgainError(Exception):
    """Memory ran out; fewer tasks go through a forward from here on."""


class Trainer:
    """Owns the outer optimizer's state; nothing else writes the shared values.

    tasks_per_forward   at most; None = all of a step's tasks. Halved where they don't fit in the device's memory
    seed                of the noise with which bfloat16 values are rounded
    skip_non_finite     a step goes on without the tasks whose loss or gradient is not finite
    rate_of             the factor of the outer learning rate after so many steps; None = always 1
    ema                 decay of the moving average of the shared values that is learned; None = the values themselves
    rates               what learns the rates of the inner loop, where these are learned
    joint_steps         of joint training, which come before the method's own
    gradient            (...) where the tasks' gradients are added up
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
        rate_of: RateOf | None = None,
        ema: float | None = None,
        rates: RateLearning | None = None,
        joint_steps: int = 0,
    ) -> None:
        self.space, self.method, self.optimizer, self.seed = space, method, optimizer, seed
        self.skip_non_finite, self.rate_of, self.ema = skip_non_finite, rate_of, ema
        self.rates, self.joint_steps = rates, joint_steps
        limits = [limit for limit in (space.limit, tasks_per_forward) if limit is not None]
        self.tasks_per_forward = min(limits, default=None)
        self.steps = 0
        self.last_round = LastRound()
        self.gradient = zeros_like(space.shared)
        self._passes: list[Pass] = []  # of the step at hand
        # One state for all: the outer optimizer is the inner ones' class, with a task axis of length 1.
        self._shared = {name: value.unsqueeze(0) for name, value in space.shared.items()}  # views with a task axis of 1
        self._state = optimizer.init(self._shared)
        self._average = {} if ema is None else copy_in_float32(space.shared)
        self._divergence, self._start = Divergence(space.shared), StartCheck()

    def step(self, tasks: TaskBatch, *, then: Callable[[Metrics], None] | None = None) -> Metrics:
        """One outer step on tasks in host memory: they are split there, so that the device never has to be asked.

        then: called with what was measured, before a signal that asks the run to stop can come between.
        Raises RunError, with the shared values untouched, when a loss or gradient isn't finite.
        """
        while True:
            # A repeated step draws the same noise: its numbers are those of a run that began with fewer tasks.
            with suppress(_AgainError), seeded(self.seed, self.steps, device=self.space.device):
                found, skipped = self._round(tasks)
                if self.last_round.adapters:
                    self.last_round.gradient = clone(self.gradient)
                sample = Sample(self.space.shared)
                with held():  # values, moments, the count and what is said about them go together (docs/design/0010)
                    with phase("outer"):
                        self._scheduled().step(self._shared, found.gradient, self._state)
                        if self.rates:
                            self.rates.step(tasks=len(found.names), factor=self._factor)
                    self.steps += 1
                    if self.ema is not None:
                        average_(self._average, self.space.shared, decay=self.ema, steps=self.steps)
                    metrics = metrics_of(
                        found, step=self.steps, passes=self._passes, skipped=skipped, changed=sample.changed
                    )
                    if then:
                        then(metrics)
                last, first = metrics.support_loss_last, None if skipped else metrics.support_loss_first
                self._start.see(self.space, tasks, first, step=self.steps, tasks_per_forward=self.tasks_per_forward)
                self._divergence.warn_if_lost(self.space.shared, step=self.steps, loss=metrics.loss, after_inner=last)
                return metrics

    @property
    def rule(self) -> Method:
        """Of the step at hand."""
        return Joint() if self.steps < self.joint_steps else self.method

    @property
    def learned_values(self) -> TensorSet:
        """What is exported and evaluated: the average of the shared values, where there is one."""
        return self._average or self.space.shared

    @property
    def learned_rates(self) -> TensorSet:
        """What was learned of the inner loop's rates, under names that no value has."""
        return {f"{RATE}{name}": value for name, value in self.rates.rates.logs.items()} if self.rates else {}

    @property
    def tensors(self) -> TensorSet:
        """What a later process needs to go on, beside `steps`: every random choice is a function of seed and step."""
        moments = {part: getattr(self._state, part) for part in MOMENTS}
        rates = self.rates.tensors if self.rates else {}
        sets: dict[str, TensorSet] = {"shared": self.space.shared, **moments, "average": self._average, **rates}
        return {f"{part}/{name}": value for part, values in sets.items() for name, value in values.items()}

    def go_on_from(self, steps: int) -> None:
        """After `tensors` were filled with what they held after so many steps."""
        self.steps = self._state.steps = steps
        if self.rates:
            self.rates.go_on_from(steps)

    def _scheduled(self) -> Optimizer:
        """The optimizer at the rate of the step at hand."""
        if self.rate_of is None:
            return self.optimizer
        return replace(self.optimizer, lr=self.optimizer.lr * self._factor)

    @property
    def _factor(self) -> float:
        """Of the learning rate, in the step at hand."""
        return 1.0 if self.rate_of is None else self.rate_of(self.steps)

    def _round(self, tasks: TaskBatch) -> tuple[Round, tuple[str, ...]]:
        """The gradient of the tasks, which is finite, and the tasks that were left out for that."""
        self._passes = []
        parts, skipped = [tasks], list[str]()
        while True:
            chunks = [chunk for part in parts for chunk in part.split(self.tasks_per_forward or len(part.names))]
            found = self._outer_gradient(chunks)
            if found.is_finite:
                return found, tuple(skipped)
            broken = found.broken or self._broken_alone(chunks)
            left = len(found.names) - len(broken)
            if not self.skip_non_finite or left in (0, len(found.names)):
                inner = getattr(self.rule, "inner", None)
                raise RunError(refusal(found, broken, step=self.steps + 1, inner=inner))
            skipped += broken
            parts = list(without(tasks, skipped))

    def _outer_gradient(self, chunks: Sequence[TaskBatch]) -> Round:
        """The mean over tasks, added up chunk by chunk. Nothing but this trainer's accumulator is written."""
        for value in self.gradient.values():
            value.zero_()
        if self.rates:
            self.rates.begin()
        self.last_round = LastRound()
        outcomes: list[Outcome] = []
        for chunk in chunks:
            # Views that can't be written: only the outer optimizer moves the shared values (docs/design/0001).
            start = per_task(self.space.shared, len(chunk.names))
            try:
                method = self.rule.at(chunk)
                outcome = method.outer_gradient(self.space, start, chunk.to(self.space.device), self.gradient)
            except torch.OutOfMemoryError as error:
                self._halve(len(chunk.names), error)
            self._passes += map(pass_of, self.rule.forwards(chunk))
            if outcome.adapted is not None:
                self.last_round.keep(chunk, outcome.adapted)
            outcomes.append(outcome._replace(adapted=None))
        with phase("outer"):
            return mean_of(outcomes, [name for chunk in chunks for name in chunk.names], self.gradient)

    def _halve(self, tasks: int, error: torch.OutOfMemoryError) -> NoReturn:
        """So many were too many: a step is repeated with half as many: docs/design/0019."""
        if tasks == 1:
            raise error
        self.tasks_per_forward = tasks // 2
        said = f"step {self.steps + 1}: memory ran out with {tasks} tasks per forward pass; from here on it is"
        cure = f"{tasks // 2}. memory.tasks_per_forward: {tasks // 2} begins with that"
        warnings.warn(f"{said} {cure}", RuntimeWarning, stacklevel=4)
        raise _AgainError

    def _broken_alone(self, chunks: Sequence[TaskBatch]) -> list[str]:
        """The tasks whose gradient is not finite although every loss is; none where only their sum overflows."""
        alone = [chunk.select(task, task + 1) for chunk in chunks for task in range(len(chunk.names))]
        return [name for each in alone if not self._outer_gradient([each]).is_finite for name in each.names]
