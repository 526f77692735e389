"""LoRA updates of tasks that lie one behind the other, each of another number of tokens.

Legend: P = tokens of all tasks, M = tokens of one, T = tasks, I = inputs, O = outputs, R = rank;
"..." = leading axes, P in all.

add_updates   y + scale * B A x, each task's tokens with its own A and B

On a CPU a batched product is a loop over tasks: one over slices of tensors costs no more, and needs no fillers.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def add_updates(
    y: Tensor, x: Tensor, A_TRI: Tensor, B_TOR: Tensor, *, sizes: Sequence[int], scale: float, twice: bool = False
) -> Tensor:
    """(..., O): y itself, with the updates of x (..., I) added; with `twice` a new tensor.

    sizes: tokens of each task; twice: where a second derivative is needed.
    """
    tokens, matrices = list(sizes), (A_TRI.to(x.dtype), B_TOR.to(x.dtype))
    if not twice:
        return cast(Tensor, cast(Any, _AddUpdates).apply(y, x, *matrices, tokens, scale))
    tasks = zip(_each(y, tokens), _each(x, tokens), *matrices, strict=True)
    return torch.cat([torch.addmm(y, x @ A.mT, B.mT, alpha=scale) for y, x, A, B in tasks]).view_as(y)


class _AddUpdates(torch.autograd.Function):
    """Every product is written to its place: autograd would make each slice's gradient as large as the whole."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, y: Tensor, x: Tensor, A_TRI: Tensor, B_TOR: Tensor, tokens: list[int], scale: float
    ) -> Tensor:
        low_PR = x.new_empty(sum(tokens), A_TRI.shape[1])
        tasks = zip(
            *(_each(part, tokens) for part in (y, x, low_PR)), A_TRI.mT.unbind(), B_TOR.mT.unbind(), strict=True
        )
        for y_MO, x_MI, low_MR, A_IR, B_RO in tasks:
            torch.mm(x_MI, A_IR, out=low_MR)
            y_MO.addmm_(low_MR, B_RO, alpha=scale)
        ctx.save_for_backward(x, A_TRI, B_TOR, low_PR)
        ctx.tokens, ctx.scale = tokens, scale
        ctx.mark_dirty(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, A_TRI, B_TOR, low_PR = ctx.saved_tensors
        tokens, scale = ctx.tokens, ctx.scale
        dA_TRI, dB_TOR, dlow_PR = (torch.empty_like(each) for each in (A_TRI, B_TOR, low_PR))
        dx = x.new_empty(x.shape) if ctx.needs_input_grad[1] else None
        dxs = [None] * len(tokens) if dx is None else _each(dx, tokens)
        rows = (_each(part, tokens) for part in (x, low_PR, dout, dlow_PR))
        matrices = (each.unbind() for each in (A_TRI, B_TOR, dA_TRI, dB_TOR))
        for x_MI, low_MR, dout_MO, dlow_MR, A, B, dA, dB, dx_MI in zip(*rows, *matrices, dxs, strict=True):
            torch.addmm(dlow_MR, dout_MO, B, beta=0, alpha=scale, out=dlow_MR)
            torch.addmm(dB, dout_MO.mT, low_MR, beta=0, alpha=scale, out=dB)
            torch.mm(dlow_MR.mT, x_MI, out=dA)
            if dx_MI is not None:
                torch.mm(dlow_MR, A, out=dx_MI)
        return dout, dx, dA_TRI, dB_TOR, None, None


def _each(part: Tensor, tokens: list[int]) -> Sequence[Tensor]:
    """Each task's slice, (M, width). Not by `split`, whose Python would be half of a small product's time."""
    return part.reshape(-1, part.shape[-1]).split_with_sizes(tokens)
