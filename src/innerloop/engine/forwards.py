"""How many tasks go through a forward, and how they are packed.

tasks_that_fit   within a token budget of the device
evenly           whether the tasks of a packed forward are filled up to equally many tokens
"""

import torch

from innerloop.config.loading import RunConfig
from innerloop.data.tasks import TaskBatch
from innerloop.machine import AUTO_TOKENS_PER_FORWARD


def tasks_that_fit(config: RunConfig, first: TaskBatch, device: torch.device) -> int:
    """Tasks per forward pass that keep the first step's within the token budget of a device."""
    fits = config.method.row.space.limit or len(first.names)
    largest = max(max(batch.packing.sizes) if batch.packing else batch.tokens[0].numel() for batch in first.batches)
    return max(1, min(fits, AUTO_TOKENS_PER_FORWARD[device.type] // largest))


def evenly(kind: str) -> bool:
    """Whether the tasks of a packed forward are filled up to equally many tokens, on a device of this kind.

    One launch on a GPU is for all of them; a CPU goes through them one by one.
    """
    return kind != "cpu"
