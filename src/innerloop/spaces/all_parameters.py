"""Every parameter of a model, one task per forward pass.

Legend: T = 1 here: all weights of a second task would not fit beside the first's.

AllParameters   at rest each Parameter's storage is the shared value; in a call it is the task's, or that cast to the
                dtype of the forward: no other copy of the weights exists

| model    | lean | shared values, adapted values, gradient      | a forward runs on    |
|----------|------|----------------------------------------------|----------------------|
| float32  |      | float32                                      | the values           |
| 16 bits  |      | float32 masters                              | a cast for each call |
| bfloat16 | yes  | bfloat16, every write rounded stochastically | the values           |

Plain SGD runs inside the backward pass: each gradient is applied and freed as soon as it is complete (LOMO,
arXiv:2306.09782, section 3.1), so no full gradient ever exists. Clipping needs the norm of all of them first
and takes the path that keeps them.
"""

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from innerloop.data.tasks import Batch
from innerloop.numerics.optimizers import Optimizer, OptimizerState, Sgd
from innerloop.numerics.rounding import add_
from innerloop.numerics.tensors import TensorSet
from innerloop.spaces.phases import phase
from innerloop.spaces.space import ParameterSpace, TaskLoss, Trained, gradients, math_attention


class AllParameters(ParameterSpace):
    """Every parameter of the model; tied tensors count once. The model is the space's from here on.

    dtype, device  of the forward; by default the model's
    lean           the values stay in that dtype, rounded stochastically, in place of float32 masters
    offload        the shared values lie in host memory; only the task's are on the device
    """

    limit = 1

    def __init__(
        self,
        model: nn.Module,
        loss: TaskLoss,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        lean: bool = False,
        offload: bool = False,
    ) -> None:
        super().__init__(model, loss, device, dtype)
        self.parameters = dict(model.named_parameters())
        self.values_dtype = self.dtype if lean else torch.float32
        self.offload = offload
        for parameter in self.parameters.values():
            value = parameter.detach().to("cpu" if offload else self.device, self.values_dtype)
            parameter.data = value.pin_memory() if offload and self.device.type == "cuda" else value
        self.shared = {name: parameter.detach() for name, parameter in self.parameters.items()}

    @contextmanager
    def installed(self, values: Mapping[str, Tensor]) -> Generator[nn.Module]:
        with torch.no_grad(), self._swapped(values):
            yield self.model

    def fork(self, start: Mapping[str, Tensor]) -> TensorSet:
        """The only writable copy of `start` (1, ...), beside the model."""
        return {name: self._beside(value, self.values_dtype, copy=True) for name, value in start.items()}

    def loss_and_gradient(
        self, values: Mapping[str, Tensor], batch: Batch, *, into: TensorSet | None = None
    ) -> tuple[Tensor, TensorSet | None]:
        gradient: TensorSet = {}

        def keep(name: str, grad: Tensor) -> None:
            gradient[name] = grad.to(self.values_dtype).unsqueeze(0)

        def add(name: str, grad: Tensor) -> None:
            assert into is not None
            add_(into[name], grad.to(into[name].device))

        loss = self._backward(values, batch, keep if into is None else add)
        return loss, self._filled(gradient, values) if into is None else None

    def descend(
        self,
        values: TensorSet,
        state: OptimizerState,
        batch: Batch,
        optimizer: Optimizer,
        *,
        only: Collection[str] | None = None,
    ) -> Tensor:
        if self.keeps_full_gradient(optimizer):
            return super().descend(values, state, batch, optimizer, only=only)

        def move(name: str, grad: Tensor) -> None:
            if only is not None and name not in only:
                return
            add_(values[name][0], grad, alpha=-optimizer.rate(name))

        return self._backward(values, batch, move)

    def keeps_full_gradient(self, optimizer: Optimizer) -> bool:
        return not isinstance(optimizer, Sgd) or optimizer.clip is not None

    def hessian_vector_product(
        self, values: Mapping[str, Tensor], batch: Batch, vector: Mapping[str, Tensor]
    ) -> TensorSet:
        with torch.enable_grad(), math_attention(), self._swapped(values, trained=True):
            inputs: list[Tensor] = list(self.parameters.values())
            gradient = gradients(self.loss(batch, twice=True), inputs, create_graph=True)
            inner = torch.stack([(g * vector[n][0]).sum() for n, g in zip(self.parameters, gradient, strict=True)])
            product = gradients(inner, inputs)
        return {n: p.float().unsqueeze(0) for n, p in zip(self.parameters, product, strict=True)}

    def trained(self) -> Trained:
        count = sum(parameter.numel() for parameter in self.parameters.values())
        modules = dict.fromkeys(name.rpartition(".")[0] for name in self.parameters)
        kind = str(self.values_dtype).removeprefix("torch.")
        return Trained(len(self.parameters), count, count, kind, tuple(modules))

    def _backward(self, values: Mapping[str, Tensor], batch: Batch, consume: Callable[[str, Tensor], None]) -> Tensor:
        """(T,) losses; `consume` gets each parameter's gradient once, when complete, inside the backward pass."""

        def hook(name: str) -> Callable[[Tensor], None]:
            def take(parameter: Tensor) -> None:
                assert parameter.grad is not None
                consume(name, parameter.grad)
                parameter.grad = None

            return take

        with torch.enable_grad(), self._swapped(values, trained=True):
            handles: list[RemovableHandle] = [
                parameter.register_post_accumulate_grad_hook(hook(name))  # pyright: ignore[reportUnknownMemberType]
                for name, parameter in self.parameters.items()
            ]
            try:
                loss = self.loss(batch)
                with phase("backward"):
                    torch.autograd.backward(loss.sum())
            finally:
                for handle in handles:
                    handle.remove()
        return loss.detach()

    @contextmanager
    def _swapped(self, values: Mapping[str, Tensor], *, trained: bool = False) -> Generator[None]:
        if (tasks := len(next(iter(values.values())))) != 1:
            raise ValueError(f"values of {tasks} tasks: all parameters take one task per forward pass")
        own = {name: (parameter.data, parameter.requires_grad) for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                resting = self.offload and _shares_memory(values[name], self.shared[name])
                parameter.data = self._beside(values[name][0], self.dtype, copy=resting)
                parameter.requires_grad_(trained)
                parameter.grad = None  # one that was left on the model would be added to ours
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data, requires_grad = own[name]
                parameter.requires_grad_(requires_grad)
                parameter.grad = None

    def _beside(self, value: Tensor, dtype: torch.dtype, *, copy: bool = False) -> Tensor:
        """On the device of the forward; the tensor itself where that takes no copy."""
        return value.to(self.device, dtype, non_blocking=True, copy=copy).contiguous()

    @staticmethod
    def _filled(gradient: TensorSet, values: Mapping[str, Tensor]) -> TensorSet:
        """The gradient in the values' order, with zeros for a parameter the loss did not reach."""
        return {name: gradient[name] if name in gradient else torch.zeros_like(v) for name, v in values.items()}


def _shares_memory(view: Tensor, value: Tensor) -> bool:
    return view.untyped_storage()._cdata == value.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
