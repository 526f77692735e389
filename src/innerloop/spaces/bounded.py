"""A batch of any size, in forwards that take a bounded number of tokens.

Legend: T = tasks.

InParts   a space whose batches go through the model in parts: the same losses, gradients and steps in less memory

A task's loss is a mean over its scored tokens, so the whole batch's loss and gradient are the sums of its parts' when
each part's mean is weighted by its share of those tokens (`Batch.parts`). What happens between two gradients (clipping,
moments, plain SGD) sees the sum alone.
"""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager

from torch import Tensor, nn

from innerloop.data.tasks import Batch
from innerloop.numerics.optimizers import Optimizer, OptimizerState
from innerloop.numerics.tensors import TensorSet
from innerloop.spaces.space import ParameterSpace, Trained


class InParts(ParameterSpace):
    """`space`, with batches in host memory, of which at most `tokens` are in a forward, or one example of each task."""

    def __init__(self, space: ParameterSpace, *, tokens: int) -> None:
        super().__init__(space.model, space.loss, space.device, space.dtype)
        self.space, self.tokens = space, tokens
        self.shared, self.limit = space.shared, space.limit
        self._last: tuple[Batch, list[Batch]] | None = None

    def installed(self, values: Mapping[str, Tensor]) -> AbstractContextManager[nn.Module]:
        return self.space.installed(values)

    def fork(self, start: Mapping[str, Tensor]) -> TensorSet:
        return self.space.fork(start)

    def trained(self) -> Trained:
        return self.space.trained()

    def descend(
        self,
        values: TensorSet,
        state: OptimizerState,
        batch: Batch,
        optimizer: Optimizer,
        *,
        only: Collection[str] | None = None,
    ) -> Tensor:
        """The space's own step where one forward takes the batch: it may move values inside the backward pass."""
        parts = self._parts(batch)
        if len(parts) == 1:
            return self.space.descend(values, state, parts[0], optimizer, only=only)
        return super().descend(values, state, batch, optimizer, only=only)

    def loss_and_gradient(
        self, values: Mapping[str, Tensor], batch: Batch, *, into: TensorSet | None = None
    ) -> tuple[Tensor, TensorSet | None]:
        first, *rest = self._parts(batch)
        loss, gradient = self.space.loss_and_gradient(values, first, into=into)
        # A single task's gradient is added to where it is complete: no second one beside it.
        alone = {name: value[0] for name, value in gradient.items()} if gradient and batch.tasks == 1 else into
        for part in rest:
            more, found = self.space.loss_and_gradient(values, part, into=alone)
            loss = loss + more
            if found is not None:
                assert gradient is not None
                _add(gradient, found)
        return loss, gradient

    def hessian_vector_product(
        self, values: Mapping[str, Tensor], batch: Batch, vector: Mapping[str, Tensor]
    ) -> TensorSet:
        first, *rest = self._parts(batch)
        total = self.space.hessian_vector_product(values, first, vector)
        for part in rest:
            _add(total, self.space.hessian_vector_product(values, part, vector))
        return total

    def _parts(self, batch: Batch) -> list[Batch]:
        """On the device; kept until the next batch, since inner steps often share one."""
        if self._last is None or self._last[0] is not batch:
            self._last = batch, [part.to(self.device) for part in batch.parts(self.tokens)]
        return self._last[1]


def _add(total: TensorSet, more: Mapping[str, Tensor]) -> None:
    """Adds (T, ...) to (T, ...), in place."""
    for name, value in more.items():
        total[name] += value
