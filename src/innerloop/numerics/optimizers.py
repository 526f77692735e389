"""Optimizers on tensor sets, in place; every task has its own state and its own clipping.

Legend: T = tasks.

Optimizer   init(values) -> state; step(values, gradient, state) in place
Sgd         plain gradient descent; its Jacobian is what second-order MAML needs
AdamW       Loshchilov & Hutter 2019 (arXiv:1711.05101), algorithm 2, as torch.optim.AdamW computes it
AdamW8bit   the same with moments of 8 bits per entry (Dettmers et al. 2022, arXiv:2110.02861)

Values in bfloat16 are moved with stochastic rounding (`rounding.add_`).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from innerloop.numerics import eight_bit, rounding
from innerloop.numerics.tensors import CLIP_EPS, TensorSet, clip_factor, dot, norm, over, scale_, zeros_like


@dataclass
class OptimizerState:
    """Moments (T, ...) and the number of steps taken; empty for an optimizer without memory.

    With 8 bits the moments are codes, and each block of a tensor has a scale: (blocks,) float32.
    """

    steps: int = 0
    first: TensorSet = field(default_factory=dict[str, Tensor])
    second: TensorSet = field(default_factory=dict[str, Tensor])
    first_scales: TensorSet = field(default_factory=dict[str, Tensor])
    second_scales: TensorSet = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """What both optimizers share.

    lr                 learning rate
    clip               largest gradient norm, each task on its own; None = no clipping
    loraplus_lr_ratio  LoRA's B learns this many times faster than A (LoRA+, arXiv:2402.12354, section 4)
    """

    lr: float
    clip: float | None = None
    loraplus_lr_ratio: float = 1.0

    @property
    def said(self) -> str:
        """In words, with every setting."""
        ratio = f", LoRA's B {self.loraplus_lr_ratio:g} times faster" if self.loraplus_lr_ratio != 1 else ""
        clip = "unclipped" if self.clip is None else f"gradients clipped to {self.clip:g}"
        return ", ".join([f"{self._name} at lr {self.lr:g}{ratio}", *self._options, clip])

    _name: ClassVar[str]

    @property
    def _options(self) -> list[str]:
        return []

    @abstractmethod
    def init(self, values: TensorSet) -> OptimizerState: ...

    @abstractmethod
    def update(self, values: TensorSet, gradient: TensorSet, state: OptimizerState) -> None:
        """Take one step in place with a gradient that is already clipped."""

    def step(self, values: TensorSet, gradient: TensorSet, state: OptimizerState) -> None:
        """Clip the gradient (in place), then move the values (in place)."""
        if self.clip is not None:
            scale_(gradient, clip_factor(norm(gradient), self.clip))
        state.steps += 1
        self.update(values, gradient, state)

    def rate(self, name: str) -> float:
        """The learning rate of one tensor."""
        return self.lr * self.loraplus_lr_ratio if name.endswith("lora_B") else self.lr


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """values <- values - lr * clip(gradient).

    >>> Sgd(lr=0.3, clip=1.0).said
    'sgd at lr 0.3, gradients clipped to 1'
    """

    _name: ClassVar[str] = "sgd"

    def init(self, values: TensorSet) -> OptimizerState:
        return OptimizerState()

    def update(self, values: TensorSet, gradient: TensorSet, state: OptimizerState) -> None:
        for name, value in values.items():
            rounding.add_(value, gradient[name], alpha=-self.rate(name))

    def vjp(self, vector: TensorSet, gradient: TensorSet | None) -> TensorSet:
        """D^T v, D the Jacobian of the step's length lr * clip(g) with respect to g.

        gradient: g before clipping, (T, ...); read only where clipping is on, and then required.
        With n = |g| and s = c / (n + eps) < 1, clip(g) = s g and its Jacobian is s (I - g g^T / (n (n + eps))).
        """
        scaled = {name: v * self.rate(name) for name, v in vector.items()}
        if self.clip is None:
            return scaled
        assert gradient is not None
        norms = norm(gradient)
        factors = clip_factor(norms, self.clip)
        along = torch.where(factors < 1, dot(gradient, scaled) / (norms * (norms + CLIP_EPS)), 0.0)
        return {name: over(factors, v) * (v - over(along, v) * gradient[name]) for name, v in scaled.items()}


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (none unless asked for) of matrices alone: norms and biases keep their size.

    >>> AdamW(lr=0.003, betas=(0.9, 0.99)).said
    'adamw at lr 0.003, betas 0.9 and 0.99, eps 1e-08, unclipped'
    """

    _name: ClassVar[str] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    @property
    def _options(self) -> list[str]:
        decay = [f"weight decay {self.weight_decay:g} of matrices"] if self.weight_decay else []
        return [f"betas {self.betas[0]:g} and {self.betas[1]:g}", f"eps {self.eps:g}", *decay]

    def init(self, values: TensorSet) -> OptimizerState:
        if any(value.dtype == torch.bfloat16 for value in values.values()):
            raise ValueError("AdamW's moments and steps need float32 values; AdamW8bit takes bfloat16")
        return OptimizerState(first=zeros_like(values), second=zeros_like(values))

    def update(self, values: TensorSet, gradient: TensorSet, state: OptimizerState) -> None:
        beta1, beta2 = self.betas
        first_correction, second_correction = self.corrections(state.steps)
        for name, value in values.items():
            grad, rate = gradient[name], self.rate(name)
            first, second = state.first[name], state.second[name]
            first.lerp_(grad, 1 - beta1)
            second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            if decay := self.decay(value):
                value.mul_(1 - rate * decay)
            value.addcdiv_(first, (second.sqrt() / second_correction).add_(self.eps), value=-rate / first_correction)

    def decay(self, value: Tensor) -> float:
        """The weight decay of one tensor, (T, ...): none for norms and biases, as transformers' Trainer has it."""
        return self.weight_decay if value.dim() > 2 else 0.0

    def corrections(self, steps: int) -> tuple[float, float]:
        """What the first moment, and the root of the second, are divided by: both start at zero."""
        return 1 - self.betas[0] ** steps, math.sqrt(1 - self.betas[1] ** steps)


@dataclass(frozen=True, kw_only=True)
class AdamW8bit(AdamW):
    """AdamW that keeps 2 bytes per number and one scale per block; the levels and their rounding: `eight_bit`.

    Each step is taken with the float32 moments, before they are stored. Values have to be contiguous.
    """

    _name: ClassVar[str] = "adamw of 8 bits"

    def init(self, values: TensorSet) -> OptimizerState:
        return OptimizerState(
            first=zeros_like(values, torch.int8),
            second=zeros_like(values, torch.uint8),
            first_scales={name: eight_bit.no_scales(value) for name, value in values.items()},
            second_scales={name: eight_bit.no_scales(value) for name, value in values.items()},
        )

    def update(self, values: TensorSet, gradient: TensorSet, state: OptimizerState) -> None:
        beta1, beta2 = self.betas
        first_correction, second_correction = self.corrections(state.steps)
        for name, value in values.items():
            rate, decay, flat, flat_grad = (
                self.rate(name),
                self.decay(value),
                value.view(-1),
                gradient[name].reshape(-1),
            )
            kept_first = eight_bit.Stored(eight_bit.Signed(), state.first[name], state.first_scales[name])
            kept_second = eight_bit.Stored(eight_bit.Unsigned(), state.second[name], state.second_scales[name])
            for window in eight_bit.block_ranges(value.numel()):
                part, grad = window.of(flat), window.of(flat_grad).float()
                first = kept_first.read(window).lerp_(grad, 1 - beta1)
                second = kept_second.read(window).mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                change = second.sqrt().div_(second_correction).add_(self.eps)
                change = torch.div(first, change, out=change).mul_(-rate / first_correction)
                if decay:
                    change.add_(part, alpha=-rate * decay)
                rounding.add_(part, change)
                kept_first.write(window, first)
                kept_second.write(window, second)
