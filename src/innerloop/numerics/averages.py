"""The exponential moving average of values that are learned step by step.

copy_in_float32   what an average begins as
average_          brings an average (...) up to the values (...) of one more step, in place
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from innerloop.numerics import rounding
from innerloop.numerics.tensors import TensorSet, matching


def copy_in_float32(values: Mapping[str, Tensor]) -> TensorSet:
    """On the device where they are."""
    return {name: value.to(torch.float32, copy=True) for name, value in values.items()}


def average_(average: TensorSet, values: Mapping[str, Tensor], *, decay: float, steps: int) -> None:
    """After `steps` steps, theta_i being the values after step i and theta_t these ones:

        e_t = sum_i d^(t-i) theta_i / sum_i d^(t-i)        i = 1 ... t, d = decay

    The weights sum to 1 from the first step on, so the values before it have no part in it: what dividing by 1 - d^t
    does to Adam's moments. Written as a step towards theta_t, with nothing to divide: e_1 = theta_1.
    """
    weight = (1 - decay) / (1 - decay**steps)
    for name in matching(average, values):
        # In slices: of bfloat16 values a float32 copy is made
        for part, value in rounding.slices(average[name], values[name]):
            part.lerp_(value.to(part.dtype), weight)
