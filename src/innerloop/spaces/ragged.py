"""LoRA updates of tasks that lie one behind the other, each of another number of tokens.

Legend: P = tokens of all tasks, T = tasks, I = inputs, O = outputs, R = rank.

add_updates   y + scale * B A x, each task's tokens with its own A and B

On a CPU a batched product is a loop over tasks: one over slices of tensors costs no more, and needs no fillers.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def add_updates(
    y_PO: Tensor,
    x_PI: Tensor,
    A_TRI: Tensor,
    B_TOR: Tensor,
    *,
    sizes: Sequence[int],
    scale: float,
    twice: bool = False,
) -> Tensor:
    """(P, O). sizes: tokens of each task; twice: where a second derivative is needed."""
    tokens, matrices = list(sizes), (A_TRI.to(x_PI.dtype), B_TOR.to(x_PI.dtype))
    if not twice:
        return cast(Tensor, cast(Any, _AddUpdates).apply(y_PO, x_PI, *matrices, tokens, scale))
    tasks = zip(_each(y_PO, tokens), _each(x_PI, tokens), *matrices, strict=True)
    return torch.cat([torch.addmm(y, x @ A.mT, B.mT, alpha=scale) for y, x, A, B in tasks])


class _AddUpdates(torch.autograd.Function):
    """Every product is written to its place: autograd would make each slice's gradient as large as the whole."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, y_PO: Tensor, x_PI: Tensor, A_TRI: Tensor, B_TOR: Tensor, tokens: list[int], scale: float
    ) -> Tensor:
        low_PR, out_PO = x_PI.new_empty(len(x_PI), A_TRI.shape[1]), y_PO.new_empty(y_PO.shape)
        parts = (_each(part, tokens) for part in (y_PO, x_PI, low_PR, out_PO))
        for A, B, y, x, low, out in zip(A_TRI, B_TOR, *parts, strict=True):
            torch.mm(x, A.mT, out=low)
            torch.addmm(y, low, B.mT, alpha=scale, out=out)
        ctx.save_for_backward(x_PI, A_TRI, B_TOR, low_PR)
        ctx.tokens, ctx.scale = tokens, scale
        return out_PO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout_PO: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x_PI, A_TRI, B_TOR, low_PR = ctx.saved_tensors
        dA_TRI, dB_TOR, dlow_PR = (torch.empty_like(each) for each in (A_TRI, B_TOR, low_PR))
        dx_PI = x_PI.new_empty(x_PI.shape) if ctx.needs_input_grad[1] else None
        parts = (_each(part, ctx.tokens) for part in (x_PI, low_PR, dout_PO, dlow_PR))
        dxs = [None] * len(ctx.tokens) if dx_PI is None else _each(dx_PI, ctx.tokens)
        for A, B, dA, dB, x, low, dout, dlow, dx in zip(A_TRI, B_TOR, dA_TRI, dB_TOR, *parts, dxs, strict=True):
            torch.addmm(dlow, dout, B, beta=0, alpha=ctx.scale, out=dlow)
            torch.addmm(dB, dout.mT, low, beta=0, alpha=ctx.scale, out=dB)
            torch.mm(dlow.mT, x, out=dA)
            if dx is not None:
                torch.mm(dlow, A, out=dx)
        return dout_PO, dx_PI, dA_TRI, dB_TOR, None, None


def _each(part: Tensor, tokens: list[int]) -> Sequence[Tensor]:
    """Each task's slice."""
    return cast(Sequence[Tensor], cast(Any, part).split(tokens))
