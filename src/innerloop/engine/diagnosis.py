"""What tells, at little cost, whether meta-training goes well. No number of a run depends on it.

a_to_b        how LoRA's outer gradients compare
Sample        some entries of bfloat16 values: how many of them a step changes
StartCheck    warns once where the shared values became worse, without an inner step, than where training began
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from innerloop.data.tasks import Batch, TaskBatch
from innerloop.numerics.tensors import norm, per_task
from innerloop.spaces.space import ParameterSpace

ENTRIES = 4096  # of a tensor, at most
FIRST, WORSE = 16, 1.1  # outer steps until the first check; times the loss at the start


def a_to_b(gradient: Mapping[str, Tensor]) -> float | None:
    """The norm of the A's gradient (1, ...) over that of the B's; None without LoRA, and where B's is zero."""
    parts = [{name: value for name, value in gradient.items() if name.endswith(side)} for side in ("lora_A", "lora_B")]
    if not all(parts):
        return None
    upper, lower = (float(norm(part)) for part in parts)
    return upper / lower if lower else None


class Sample:
    """Evenly spread entries of the values in bfloat16, as they are now."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._views = [_spread(value) for value in values.values() if value.dtype == torch.bfloat16]
        self._before = [view.clone() for view in self._views]

    @property
    def changed(self) -> float | None:
        """The share of them that is another number by now; None where nothing is in bfloat16."""
        pairs = zip(self._views, self._before, strict=True)
        # Counted tensor by tensor: of a small model the sample is all there is, and a copy of that shows in a step
        counts = [torch.count_nonzero(view != before) for view, before in pairs]
        return float(torch.stack(counts).sum() / sum(view.numel() for view in self._views)) if counts else None


class StartCheck:
    """Keeps the batch of a run's first inner step, and the loss on them where training began.

    Looked at again after 16, 32, 64, ... outer steps: a forward pass, which counts nowhere.
    """

    def __init__(self) -> None:
        self._first: Batch | None = None  # in host memory
        self._loss, self._is_said = 0.0, False

    def see(
        self, space: ParameterSpace, tasks: TaskBatch, loss: float | None, *, step: int, tasks_per_forward: int | None
    ) -> None:
        """After a step on these tasks, whose support loss before any inner step was this."""
        if step == 1 and loss is not None:
            # even: values that are installed are for tasks with equally many tokens
            self._first, self._loss = replace(tasks.support[0], even=True), loss
        elif self._first and not self._is_said and step >= FIRST and step & (step - 1) == 0:
            self._warn_if_worse(space, self._first, step, tasks_per_forward or self._first.tasks)

    def _warn_if_worse(self, space: ParameterSpace, first: Batch, step: int, tasks_per_forward: int) -> None:
        losses: list[Tensor] = []
        for start in range(0, first.tasks, tasks_per_forward):
            batch = first.select(start, min(start + tasks_per_forward, first.tasks))  # packed anew, where it is packed
            with space.installed(per_task(space.shared, batch.tasks)):
                losses.append(space.loss(batch.to(space.device)))
        loss = float(torch.cat(losses).mean())
        if loss <= WORSE * self._loss:
            return
        said = f"step {step}: without an inner step the start is worse than it was before training: {loss:.3g} nats"
        because = f"on the first step's support, then {self._loss:.3g}. It works with exactly this inner loop only"
        cure = "method.inner.steps: [0, 1, 3, 5] draws their number, and the start stays good"
        warnings.warn(f"{said} {because}; {cure}", RuntimeWarning, stacklevel=4)
        self._is_said = True


def _spread(value: Tensor) -> Tensor:
    """A view of at most ENTRIES entries of a contiguous tensor."""
    flat = value.view(-1)
    return flat[:: max(1, -(-flat.numel() // ENTRIES))]
