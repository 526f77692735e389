"""Arithmetic on named sets of tensors; inside the engine the first axis is the task.

Legend: T = tasks.

TensorSet               name -> tensor; (T, ...) inside the engine, (...) for the shared values
per_task                read-only views of shared values, one for each task
accumulate              into += alpha * (sum over tasks)
accumulate_difference   into += (sum over tasks of left - right)
dot, norm, distance     one number per task
clip_factor             what clipping multiplies a gradient with
not_finite              which tensors hold NaN or infinity
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from innerloop.numerics import rounding

TensorSet = dict[str, Tensor]

CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_ divides by norm + 1e-6; the same here, so both give the same numbers


def per_task(shared: Mapping[str, Tensor], tasks: int) -> TensorSet:
    """Views (T, ...) of shared values (...); no memory is taken, and writing to them is an error of torch."""
    return {name: value.detach().expand(tasks, *value.shape) for name, value in shared.items()}


def clone(values: Mapping[str, Tensor]) -> TensorSet:
    """A writable, contiguous copy."""
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in values.items()}


def zeros_like(values: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> TensorSet:
    return {name: torch.zeros_like(value, dtype=dtype) for name, value in values.items()}


def accumulate(into: TensorSet, values: Mapping[str, Tensor], alpha: float = 1.0) -> None:
    """into (...) += alpha * values (T, ...) summed over tasks; into may be on another device."""
    for name in matching(into, values):
        rounding.add_(into[name], _over_tasks(values[name]), alpha=alpha)


def accumulate_difference(into: TensorSet, left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    """into (...) += left - right, both (T, ...), summed over tasks; each of the three may be on another device.

    No more than a slice of the difference exists at a time. It is taken in float32 at least.
    """
    for name in matching(into, matching(left, right)):
        by_entry = (values[name].movedim(0, -1) for values in (left, right))  # (..., T): sliced alike
        for part, minuend, subtrahend in rounding.slices(into[name], *by_entry):
            wide = torch.promote_types(minuend.dtype, torch.float32)
            change = minuend.movedim(-1, 0).to(subtrahend.device, wide) - subtrahend.movedim(-1, 0)
            rounding.add_(part, _over_tasks(change))


def dot(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """Inner product of each task's slice: (T,)."""
    products = [_rows(left[name] * right[name]).sum(1) for name in matching(left, right)]
    return torch.stack(products).sum(0)


def norm(values: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm of each task's slice: (T,)."""
    # vector_norm takes no memory, for bfloat16 neither; squaring would, a copy of the largest tensor
    norms: list[Tensor] = [
        torch.linalg.vector_norm(_rows(value), dim=1, dtype=torch.promote_types(value.dtype, torch.float32))  # pyright: ignore[reportUnknownMemberType]
        for value in values.values()
    ]
    return torch.stack(norms).square().sum(0).sqrt()


def distance(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm of each task's difference: (T,). No more than a slice of the difference exists at a time."""
    squares: list[Tensor] = []
    for name in matching(left, right):
        for one, other in rounding.slices(*(values[name].movedim(0, -1) for values in (left, right))):  # (..., T)
            difference = one.float() - other.float()
            squares.append(difference.square_().reshape(-1, difference.shape[-1]).sum(0))
    return torch.stack(squares).sum(0).sqrt()


def clip_factor(norms: Tensor, max_norm: float) -> Tensor:
    """(T,) factors in (0, 1] that bring each norm to at most max_norm."""
    return (max_norm / (norms + CLIP_EPS)).clamp(max=1.0)


def scale_(values: TensorSet, factors: Tensor) -> None:
    """Multiply each task's slice, in place, with its factor (T,), which may be on another device."""
    for value in values.values():
        # In slices: torch makes a float32 copy of what it multiplies where the dtypes differ
        for part, factor in rounding.slices(value, over(factors.to(value.device), value).expand_as(value)):
            part.mul_(factor)


def not_finite(values: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors with an entry that is no finite number."""
    # NaN and infinity both show in the extremes, and finding those takes no memory; isfinite takes 7 bytes per entry
    extremes = {name: torch.stack(torch.aminmax(value.detach())) for name, value in values.items() if value.numel()}
    return [name for name, pair in extremes.items() if not pair.isfinite().all()]


def largest(values: Mapping[str, Tensor]) -> Tensor:
    """() the largest size of any entry; 0 where there is none."""
    extremes = [torch.stack(torch.aminmax(value.detach())).abs().amax() for value in values.values() if value.numel()]
    return torch.stack(extremes).amax() if extremes else torch.zeros(())


def over(per_task_numbers: Tensor, like: Tensor) -> Tensor:
    """(T,) reshaped to (T, 1, ...) so that it broadcasts over `like` (T, ...)."""
    return per_task_numbers.view(-1, *[1] * (like.dim() - 1))


def matching(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`left`, after checking that both sets hold the same names (a zip that truncates hides bugs)."""
    if left.keys() != right.keys():
        raise ValueError(f"tensor sets differ in {sorted(left.keys() ^ right.keys())}")
    return left


def _rows(value: Tensor) -> Tensor:
    """(T, entries of a task's slice); a parameter that is one number has a slice without axes."""
    return value.reshape(len(value), value.shape[1:].numel())


def _over_tasks(value: Tensor) -> Tensor:
    """(...): the sum of (T, ...), in float32 at least; of one task its own slice, without a copy."""
    return value[0] if len(value) == 1 else value.sum(0, dtype=torch.promote_types(value.dtype, torch.float32))
