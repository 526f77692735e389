"""How the outer learning rate changes over a run: transformers' own schedules.

RateOf         steps behind -> the factor that the next step's learning rate is multiplied with
rate_of        a schedule's name, its warm-up and the number of steps -> RateOf, None where every factor is 1
warmup_steps   a number of steps, or a share of a run below 1 -> steps
"""

import math
from collections.abc import Callable
from typing import Any, cast

RateOf = Callable[[int], float]


def warmup_steps(warmup: float, steps: int) -> int:
    """As transformers reads it: a share is rounded up."""
    return math.ceil(warmup * steps) if warmup < 1 else int(warmup)


def rate_of(schedule: str, *, warmup: float, steps: int) -> RateOf | None:
    """`constant`, `linear` to 0 or `cosine` to 0, after a linear warm-up from 0.

    A pure function of the step, so that a run that goes on needs to keep nothing of it.
    """
    first = warmup_steps(warmup, steps)
    if schedule == "constant" and not first:
        return None
    import torch
    from transformers import get_scheduler

    name = "constant_with_warmup" if schedule == "constant" else schedule
    unused = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = get_scheduler(name, unused, num_warmup_steps=first, num_training_steps=steps)
    return cast(RateOf, cast(Any, made).lr_lambdas[0])
