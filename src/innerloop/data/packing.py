"""Examples of unequal length side by side, in place of one a row with padding behind it.

Legend: T = tasks, B = examples a task, S = tokens of the longest example, M = tokens a task, packed,
G = examples and fillers of all tasks, L = tokens of the longest of them.

Packing   where every token of T tasks goes
pack      lengths -> Packing; None where padding costs little
moved_to  a tensor on another device

A task with fewer tokens than the longest task is filled up with padding. Fillers are treated like further examples,
so that every packed token belongs to one of G rows: attention alone works on rows, everything else on packed tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import torch
from torch import Tensor

WORTH = 0.9  # of the padded tokens; attention has to move its inputs and outputs between the layouts

Lengths = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Packing:
    """Indices between three layouts: padded (T*B*S), packed (T*M) and the rows of attention (G*L).

    source     (T, M) the padded position a packed token comes from; a filler's is 0
    positions  (T, M) its position in its own example
    place      (T*M,) where it is in the rows
    grid       (G, L) the packed token of a place in the rows; 0 where there is none
    holes      (H,) the places in the rows where there is none
    scored     (R,) the scored rows of the batch, as packed positions
    """

    source: Tensor
    positions: Tensor
    place: Tensor
    grid: Tensor
    holes: Tensor
    scored: Tensor

    @property
    def longest(self) -> int:
        return self.grid.shape[1]

    def to(self, device: torch.device | str) -> "Packing":
        return replace(self, **{field.name: moved_to(getattr(self, field.name), device) for field in fields(self)})


def moved_to(tensor: Tensor, device: torch.device | str) -> Tensor:
    """On the way to a GPU a tensor waits in pinned memory, so that the host needn't wait for the GPU."""
    leaves_host = torch.device(device).type == "cuda" and tensor.device.type == "cpu"
    return (tensor.pin_memory() if leaves_host else tensor).to(device, non_blocking=leaves_host)


def pack(lengths: Lengths, *, width: int, scored: Tensor) -> Packing | None:
    """The packing of T tasks whose examples were padded to `width`; None where it saves less than a tenth.

    scored: (R,) positions in the padded layout.
    """
    per_task = max(sum(task) for task in lengths)
    if per_task > WORTH * width * len(lengths[0]):
        return None
    longest = max(length for task in lengths for length in task)
    source, positions, rows = (torch.zeros(len(lengths), per_task, dtype=torch.int64) for _ in range(3))
    real = torch.zeros(len(lengths), per_task, dtype=torch.bool)
    row = 0
    for t, task in enumerate(lengths):
        pieces = [*task, *_fillers(per_task - sum(task), longest)]
        real[t, : sum(task)] = True
        for b, (start, length) in enumerate(zip(accumulate(pieces, initial=0), pieces, strict=False)):
            here = slice(start, start + length)
            positions[t, here] = torch.arange(length)
            rows[t, here] = row
            source[t, here] = (t * len(task) + b) * width
            row += 1
    source = torch.where(real, source + positions, 0)
    place = (rows * longest + positions).flatten()
    grid = torch.zeros(row * longest, dtype=torch.int64)
    grid[place] = torch.arange(len(place))
    empty = torch.ones(row * longest, dtype=torch.bool)
    empty[place] = False
    packed_of = torch.zeros(len(lengths) * len(lengths[0]) * width, dtype=torch.int64)
    packed_of[source[real]] = real.flatten().nonzero().flatten()
    return Packing(
        source=source,
        positions=positions,
        place=place,
        grid=grid.view(row, longest),
        holes=empty.nonzero().flatten(),
        scored=packed_of[scored],
    )


def _fillers(tokens: int, longest: int) -> list[int]:
    """The lengths of rows that hold so many tokens, none longer than an example."""
    whole, rest = divmod(tokens, longest)
    return [longest] * whole + [rest] * (rest > 0)
