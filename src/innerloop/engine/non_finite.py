"""Losses and gradients that are no finite numbers: seen, left out or refused, and what to do about them.

Legend: T = tasks of a step, K = inner steps.

Round        what the tasks of a step gave: their mean gradient and their losses
mean_of      the tasks' outcomes and the sum of their gradients -> Round
without      the other tasks of a step
refusal      what is said where a step can't go on
Divergence   warns once of numbers that are finite and yet far from any that a model can use
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.data.tasks import TaskBatch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import Outcome
from innerloop.numerics.tensors import TensorSet, largest, norm

GROWN = 1e3  # times the largest value at the start, which is taken to be 1 at least: beyond, training diverges
LOST = 100.0  # nats per token: a guess among all the tokens of a large vocabulary costs 12


class Round(NamedTuple):
    """gradient: the mean over tasks (1, ...); losses (T,); support (K, T), None without an inner loop;
    broken: tasks with a loss not finite; moved: (T,) how far inner steps went, over the values' norm, where known."""

    gradient: TensorSet
    gradient_norm: Tensor
    losses: Tensor
    support: Tensor | None
    names: list[str]
    broken: list[str]
    is_finite: bool
    moved: Tensor | None = None


def mean_of(outcomes: Sequence[Outcome], names: list[str], total: TensorSet) -> Round:
    """total: the gradients' sum over the named tasks (...), which becomes their mean."""
    gradient = {name: value.div_(len(names)).unsqueeze(0) for name, value in total.items()}
    losses = torch.cat([outcome.loss for outcome in outcomes])
    supports = [outcome.support_loss for outcome in outcomes if outcome.support_loss is not None]
    support = torch.cat(supports, dim=1) if supports else None
    distances = [outcome.moved for outcome in outcomes if outcome.moved is not None]
    moved = torch.cat(distances) if len(distances) == len(outcomes) else None
    gradient_norm = norm(gradient)
    finite = torch.isfinite(losses)
    if support is not None:
        finite = finite & torch.isfinite(support).all(0)
    # All in one tensor: the one time that a step asks the device for an answer before its outer optimizer runs.
    flags: list[bool] = torch.cat([finite, torch.isfinite(gradient_norm).to(finite.device)]).tolist()
    broken = [name for name, good in zip(names, flags, strict=False) if not good]
    return Round(gradient, gradient_norm, losses, support, names, broken, is_finite=all(flags), moved=moved)


def without(tasks: TaskBatch, names: Sequence[str]) -> Iterator[TaskBatch]:
    """The other tasks, neighbours together."""
    for left_out, group in groupby(range(len(tasks.names)), key=lambda task: tasks.names[task] in names):
        if not left_out:
            places = list(group)
            yield tasks.select(places[0], places[-1] + 1)


def refusal(found: Round, broken: Sequence[str], *, step: int, inner: InnerLoop | None) -> str:
    """What is not finite in this step, which follows `step - 1`, and the usual cure. inner: the method's, if any."""
    what = f"the loss of {', '.join(found.broken)}" if found.broken else "the outer gradient"
    if broken and not found.broken:
        what += f" of {', '.join(broken)}"
    said = f"step {step}: {what} is not a finite number; the shared values were left as after step {step - 1}."
    if inner is not None and found.support is not None and len(found.support) and found.broken:
        rate, column = inner.optimizer.lr, found.support[:, found.names.index(found.broken[0])].tolist()
        course = ", ".join(f"{loss:.3g}" for loss in column)
        said += (
            f" The support loss of {found.broken[0]} before each inner step was {course}: "
            f"method.inner.optimizer.lr = {rate:g} is too large for it; try {rate / 10:g}, or method.inner.clip."
        )
    else:
        said += " A smaller outer.optimizer.lr or outer.clip is the usual cure."
    return f"{said} outer.on_non_finite: skip goes on without such tasks."


class Divergence:
    """shared: the values at the start."""

    def __init__(self, shared: TensorSet) -> None:
        self._sane = GROWN * max(1.0, float(largest(shared)))
        self._is_said = False

    def warn_if_lost(self, shared: TensorSet, *, step: int, loss: float, after_inner: float | None) -> None:
        """after_inner: the support loss before the last inner step."""
        if self._is_said:
            return
        size = float(largest(shared))
        if size <= self._sane and max(loss, after_inner or 0.0) <= LOST:
            return
        said = f"step {step}: training diverges. The largest shared value is {size:.3g}, the loss {loss:.3g} nats"
        said += "" if after_inner is None else f", after the inner steps {after_inner:.3g}"
        cure = "a smaller outer.optimizer.lr or method.inner.optimizer.lr, or a clip, is the usual cure"
        warnings.warn(f"{said}; {cure}", RuntimeWarning, stacklevel=3)
        self._is_said = True
