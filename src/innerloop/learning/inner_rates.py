"""Learned rates of the inner loop: positive factors on what each of its steps moves.

Legend: T = tasks, K = inner steps; l = a tensor, phi_k = the values after k steps, Q = the query set.

    phi_{k+1,l} = phi_{k,l} + exp(rho_{l,k}) (step_l(phi_k) - phi_{k,l})        step = the optimizer's, at its own rate
    dL(phi_K; Q) / d rho_{l,k}  ~  < grad_l L(phi_K; Q), phi_{k+1,l} - phi_{k,l} >

The derivative is of first order: the directions of later steps are taken as they are. All rho begin at 0, so that the
optimizer's rate, LoRA+'s ratio and a warm-up are where learning starts from.

InnerRates   rho of every tensor: one for all steps, one for each step (LSLR: Antoniou et al. 2019, arXiv:1810.09502,
             section 4), or one for each entry (Meta-SGD: Li et al. 2017, arXiv:1707.09835, equation 3)
fresh_rates  all 0
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from innerloop.numerics.tensors import TensorSet, clone, zeros_like

Kind = Literal["tensor", "tensor-step", "entry"]


@dataclass(frozen=True)
class InnerRates:
    """logs: rho, of each tensor () or (K,) or of its own shape; gradient: of the same shapes, summed over tasks."""

    kind: Kind
    logs: TensorSet
    gradient: TensorSet

    def scale_(self, values: TensorSet, before: Mapping[str, Tensor], step: int) -> None:
        """Makes a step from `before` to `values` (T, ...) as long as was learned, in place."""
        for name, value in values.items():
            value.copy_(before[name] + self._at(self.logs[name], step).exp() * (value - before[name]))

    def learn(self, gradient: Mapping[str, Tensor], path: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds the derivative of a loss with this gradient (T, ...) at path[-1]; path: phi_0 .. phi_k, all (T, ...).

        Only `tensor-step` reads what is between the first and the last.
        """
        for name, grad in gradient.items():
            if self.kind == "tensor-step":
                for step, (here, there) in enumerate(pairwise(path)):
                    self._at(self.gradient[name], step).add_((grad * (there[name] - here[name])).sum())
            else:
                moved = grad * (path[-1][name] - path[0][name])
                self.gradient[name].add_(moved.sum(0) if self.kind == "entry" else moved.sum())

    def _at(self, numbers: Tensor, step: int) -> Tensor:
        """Of one step; the last one's, too, of steps that training never took."""
        return numbers[min(step, len(numbers) - 1)] if self.kind == "tensor-step" else numbers


def fresh_rates(kind: Kind, shared: Mapping[str, Tensor], *, steps: int) -> InnerRates:
    """As the optimizer has them. shared: the values (...) that it moves; steps: K."""
    shapes = {name: {"tensor": (), "tensor-step": (steps,)}.get(kind, value.shape) for name, value in shared.items()}
    logs = {name: torch.zeros(shape, device=shared[name].device) for name, shape in shapes.items()}
    return InnerRates(kind, logs, zeros_like(clone(logs)))
