"""What changes over the steps of a run: the outer learning rate, by transformers' own schedules, and the rule.

RateOf         steps behind -> the factor that the next step's learning rate is multiplied with
rate_of        a schedule's name, its warm-up and the number of steps -> RateOf, None where every factor is 1
first_steps    a number of steps, or a share of a run below 1 -> steps
joint_steps    how many steps of joint training come first
rule_at        the rule of a step
"""

import math
from collections.abc import Callable
from typing import Any, cast

from innerloop.config.schema import OuterSection, RunConfig
from innerloop.learning.methods import Joint, Method

RateOf = Callable[[int], float]


def first_steps(first: float, steps: int) -> int:
    """As transformers reads a warm-up: a share is rounded up."""
    return math.ceil(first * steps) if first < 1 else int(first)


def joint_steps(outer: OuterSection, *, of: int | None = None) -> int:
    """Of so many steps, by default the run's: all of them where more are asked for."""
    steps = outer.steps if of is None else of
    return min(first_steps(outer.joint_steps or 0, steps), steps)


def rule_at(config: RunConfig, step: int) -> Method:
    """Joint training first, where a config asks for that; then the method."""
    return Joint() if step < joint_steps(config.outer) else config.method.build()


def rate_of(schedule: str, *, warmup: float, steps: int) -> RateOf | None:
    """`constant`, `linear` to 0 or `cosine` to 0, after a linear warm-up from 0.

    A pure function of the step, so that a run that goes on needs to keep nothing of it.
    """
    first = first_steps(warmup, steps)
    if schedule == "constant" and not first:
        return None
    import torch
    from transformers import get_scheduler

    name = "constant_with_warmup" if schedule == "constant" else schedule
    unused = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = get_scheduler(name, unused, num_warmup_steps=first, num_training_steps=steps)
    return cast(RateOf, cast(Any, made).lr_lambdas[0])
