"""Examples of unequal length side by side, in place of one per row with padding behind it.

Legend: T = tasks, B = examples per task, S = tokens of the longest example, P = packed tokens of all tasks,
G = examples and fillers of all tasks, L = tokens of the longest of them.

Packing   where every token of T tasks goes
pack      lengths -> Packing; None where padding costs little
moved_to  a tensor on another device

A packing is even or ragged. Even: a task with fewer tokens than the longest one is filled up with padding, so that one
launch on a GPU is for all tasks. Fillers are treated like further examples. Ragged: no fillers, tasks one behind the
other. Either way every packed token belongs to one of G rows: attention alone works on rows, everything else on tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

WORTH = 0.9  # of the padded tokens; attention has to move its inputs and outputs between the layouts

Lengths = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Packing:
    """Indices between three layouts: padded (T*B*S), packed (P) and the rows of attention (G*L).

    source     the padded position a packed token comes from; a filler's is 0. Even: (T, P/T); ragged: (1, P)
    positions  its position in its own example; the same shape
    place      (P,) where it is in the rows
    grid       (G, L) the packed token of a place in the rows; 0 where there is none
    holes      (H,) the places in the rows where there is none
    scored     (R,) the scored rows of the batch, as packed positions
    sizes      packed tokens of each task, which lie one behind the other
    """

    source: Tensor
    positions: Tensor
    place: Tensor
    grid: Tensor
    holes: Tensor
    scored: Tensor
    sizes: tuple[int, ...]

    @property
    def longest(self) -> int:
        return self.grid.shape[1]

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> "Packing":
        moved: dict[str, Any] = {name: moved_to(tensor, device) for name, tensor in self.tensors.items()}
        return replace(self, **moved)


def moved_to(tensor: Tensor, device: torch.device | str) -> Tensor:
    """On the way to a GPU a tensor waits in pinned memory, so that the host needn't wait for the GPU."""
    leaves_host = torch.device(device).type == "cuda" and tensor.device.type == "cpu"
    return (tensor.pin_memory() if leaves_host else tensor).to(device, non_blocking=leaves_host)


def pack(lengths: Lengths, *, width: int, scored: Tensor, even: bool = True) -> Packing | None:
    """The packing of T tasks whose examples were padded to `width`; None where it saves less than a tenth.

    scored: (R,) positions in the padded layout; even: with fillers.
    """
    tokens = [sum(task) for task in lengths]
    sizes = [max(tokens)] * len(tokens) if even else tokens
    if sum(sizes) / len(sizes) > WORTH * width * len(lengths[0]):
        return None
    longest = max(length for task in lengths for length in task)
    source, positions, rows = (torch.zeros(sum(sizes), dtype=torch.int64) for _ in range(3))
    real = torch.zeros(sum(sizes), dtype=torch.bool)
    row = start = 0
    for t, (task, size) in enumerate(zip(lengths, sizes, strict=True)):
        real[start : start + tokens[t]] = True
        for b, length in enumerate([*task, *_fillers(size - tokens[t], longest)]):
            here = slice(start, start + length)
            positions[here] = torch.arange(length)
            rows[here] = row
            source[here] = (t * len(task) + b) * width
            row, start = row + 1, start + length
    source = torch.where(real, source + positions, 0)
    place = rows * longest + positions
    grid = torch.zeros(row * longest, dtype=torch.int64)
    grid[place] = torch.arange(len(place))
    empty = torch.ones(row * longest, dtype=torch.bool)
    empty[place] = False
    packed_of = torch.zeros(len(lengths) * len(lengths[0]) * width, dtype=torch.int64)
    packed_of[source[real]] = real.nonzero().flatten()
    packed_rows = len(sizes) if even else 1
    return Packing(
        source=source.view(packed_rows, -1),
        positions=positions.view(packed_rows, -1),
        place=place,
        grid=grid.view(row, longest),
        holes=empty.nonzero().flatten(),
        scored=packed_of[scored],
        sizes=tuple(sizes),
    )


def _fillers(tokens: int, longest: int) -> list[int]:
    """The lengths of rows that hold so many tokens, none longer than an example."""
    whole, rest = divmod(tokens, longest)
    return [longest] * whole + [rest] * (rest > 0)
