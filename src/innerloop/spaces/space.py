"""ParameterSpace: the tensors being meta-learned, and how the model runs with others in their place.

Legend: T = tasks, B = examples per task, R = scored rows.

TaskLoss         what is minimized: (T,) loss per scored token (nats) of each task, from a model and a batch
ParameterSpace   loss and gradient *together*: the backward pass runs while a task's values are installed

Because the primitive is loss and gradient together, three silent bugs can't be written: a backward pass after
the values were swapped back, a recomputation (activation checkpointing) that reads other values than the forward
read, and a shared adapter overwritten by the last task's.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from innerloop.data.tasks import Batch
from innerloop.numerics.optimizers import Optimizer, OptimizerState
from innerloop.numerics.tensors import TensorSet, accumulate
from innerloop.spaces.phases import phase


class TaskLoss(Protocol):
    """(T,) loss of each task on its part of the batch; `twice` asks for operators with a second derivative."""

    def __call__(self, batch: Batch, *, twice: bool = False) -> Tensor: ...


class Trained(NamedTuple):
    """What a space trains, for the header of a run and its manifest."""

    tensors: int
    parameters: int
    model_parameters: int
    dtype: str
    modules: tuple[str, ...]

    @property
    def percent(self) -> float:
        return 100.0 * self.parameters / self.model_parameters


class ParameterSpace(ABC):
    """The values being meta-learned.

    shared   name -> tensor (...); only the outer optimizer writes them
    limit    most tasks that fit one forward; None = any number
    device, dtype   where forwards run, and in what; by default the model's
    """

    shared: TensorSet
    limit: int | None

    def __init__(
        self, model: nn.Module, loss: TaskLoss, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        first = next(model.parameters())
        self.model, self.loss = model, loss
        self.device, self.dtype = device or first.device, dtype or first.dtype

    @abstractmethod
    def installed(self, values: Mapping[str, Tensor]) -> AbstractContextManager[nn.Module]:
        """The model with `values` (T, ...) in place, without gradients: rows of its input are grouped by task."""

    @abstractmethod
    def loss_and_gradient(
        self, values: Mapping[str, Tensor], batch: Batch, *, into: TensorSet | None = None
    ) -> tuple[Tensor, TensorSet | None]:
        """(T,) losses and the gradient (T, ...), or None when it was added to `into` (...), summed over tasks."""

    @abstractmethod
    def hessian_vector_product(
        self, values: Mapping[str, Tensor], batch: Batch, vector: Mapping[str, Tensor]
    ) -> TensorSet:
        """H v at `values`, task by task: (T, ...). Runs on attention's math path, the one with a second derivative."""

    @abstractmethod
    def trained(self) -> Trained:
        """Counts, dtype and modules of what is trained."""

    def at(self, values: TensorSet) -> "ParameterSpace":
        """A space of the same tensors whose shared values are these (...); this one stays at its own."""
        if values is self.shared:
            return self
        other = copy.copy(self)
        other.shared = values
        return other

    def fork(self, start: Mapping[str, Tensor]) -> TensorSet:
        """The only writable copy of `start` (T, ...), in float32."""
        return {name: value.to(torch.float32, copy=True).contiguous() for name, value in start.items()}

    def descend(
        self,
        values: TensorSet,
        state: OptimizerState,
        batch: Batch,
        optimizer: Optimizer,
        *,
        only: Collection[str] | None = None,
    ) -> Tensor:
        """One inner step on a fork, in place; gives the (T,) losses before it. only: what it moves, None = all."""
        loss, gradient = self.loss_and_gradient(values, batch)
        assert gradient is not None
        if only is not None:
            values, gradient = ({name: each[name] for name in only} for each in (values, gradient))
        optimizer.step(values, gradient, state)
        return loss

    def keeps_full_gradient(self, optimizer: Optimizer) -> bool:
        """Whether an inner step keeps a gradient as large as the model, instead of running in the backward pass."""
        return False

    def _hand_over(self, gradient: TensorSet, into: TensorSet | None) -> TensorSet | None:
        if into is None:
            return gradient
        accumulate(into, gradient)
        return None


def math_attention() -> AbstractContextManager[Any]:
    """Scaled-dot-product attention in plain operators: fused kernels have no second derivative."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return cast(AbstractContextManager[Any], sdpa_kernel(SDPBackend.MATH))


def gradients(outputs: Tensor, inputs: list[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """d sum(outputs) / d inputs; zero where an input isn't used."""
    with phase("backward"):
        return torch.autograd.grad(outputs.sum(), inputs, create_graph=create_graph, materialize_grads=True)
