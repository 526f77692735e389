"""Additions into bfloat16 that lose nothing in the mean.

bfloat16 keeps 8 bits: an update below 1/512 of a value is lost when the sum is rounded to the nearest. Rounded
up or down at random, with the odds of the distances, the mean of the result is the float32 sum.

add_        into += alpha * value; stochastic rounding where `into` is bfloat16
seeded      the noise is a function of the parts it is seeded with
slices      views of tensors of one shape, a few entries each: temporaries stay small
slice_size  how few: SLICE, or a part of a tensor that is very large
"""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

SLICE = 2**22  # entries: 16 MiB a float32 temporary
PARTS = 16  # more of one tensor would cost more in calls than they save in memory


def add_(into: Tensor, value: Tensor, *, alpha: float = 1.0) -> None:
    """into += alpha * value, in place; `value` broadcasts, and may have another dtype and device.

    A bfloat16 `into` gets one of the two neighbours of the float32 sum, whose mean over the noise is the sum
    (past the largest number the upper neighbour is infinity); infinities and NaN stay what they are. The noise is
    that of torch's default generator of the device. Any other dtype: Tensor.add_.
    Source: Gupta et al. 2015, arXiv:1502.02551, section 3.1.
    """
    if into.dtype != torch.bfloat16:
        into.add_(value.to(into.device), alpha=alpha)
        return
    for into_part, part in slices(into, value.expand_as(into)):
        total = into_part.float().add_(part.to(into.device, torch.float32), alpha=alpha)
        into_part.copy_(_rounded_(total))


@contextmanager
def seeded(*parts: int | str, device: torch.device) -> Generator[None]:
    """Noise drawn inside, on the CPU and on a CUDA `device`, depends on the parts alone.

    torch's random state outside is restored at the end.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=7).digest()
    seed = int.from_bytes(digest, "big")
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # pyright: ignore[reportUnknownMemberType]
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs whose state isn't restored
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


def slices(first: Tensor, *others: Tensor) -> Generator[tuple[Tensor, ...]]:
    """The tensors cut alike along the leading axes; the others' first axes have the first one's lengths."""
    if first.numel() <= SLICE:
        yield first, *others
        return
    rows = slice_size(first.numel()) * len(first) // first.numel()
    for start in range(0, len(first), max(rows, 1)):
        if rows:
            yield tuple(tensor[start : start + rows] for tensor in (first, *others))
        else:
            yield from slices(*(tensor[start] for tensor in (first, *others)))


def slice_size(entries: int) -> int:
    """Entries of a slice of a tensor with so many."""
    return max(SLICE, entries // PARTS)


def _rounded_(total: Tensor) -> Tensor:
    """float32 whose low 16 bits are zero: a number of bfloat16. Overwrites `total`."""
    # Noise would carry out of a NaN whose low bits are set: into zero, with the sign lost.
    total.nan_to_num_(nan=torch.nan, posinf=torch.inf, neginf=-torch.inf)
    total.view(torch.int32).add_(_noise(total)).add_(2**15).bitwise_and_(-(2**16))
    return total


def _noise(like: Tensor) -> Tensor:
    """int16, every value equally likely."""
    # Four numbers per draw: on a CPU, three times as fast as drawing each
    draws = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return draws.view(torch.int16)[: like.numel()].view(like.shape)
