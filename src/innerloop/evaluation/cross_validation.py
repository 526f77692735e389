"""Cross-validation on a task's own examples: what is learned from most of them is asked of the rest.

Legend: k = examples, n = folds.

folds          a task -> n tasks, each tested on its own part of the pool: leave-one-out up to 10 prompts
fold_fault     why a task can't be divided
most_steps     inner steps that are tried, by the number that an inner loop has
StepChoice     nats of the left-out examples after 0, 1, 2, ... inner steps
choose_steps   for each task the number of inner steps with the lowest nats, all folds side by side
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import Task
from innerloop.errors import Fault
from innerloop.evaluation.kshot import OnPass, adapt_and_score
from innerloop.learning.inner_loop import InnerLoop
from innerloop.spaces.space import ParameterSpace

MOST_FOLDS = 10
TRIED, TIMES = 10, 3  # steps that are tried at least, and times an inner loop's own number


def folds(task: EncodedTask) -> list[EncodedTask]:
    """All examples of a prompt are in one part, since one would tell the answer of another.

    The prompts go round the parts in order of their keys, whatever the order of the rows. A task that `fold_fault`
    names has no folds.
    """
    keys = [example.prompt_key for example in task.task.pool]
    count = min(len(set(keys)), MOST_FOLDS)
    part_of = {key: place % count for place, key in enumerate(sorted(set(keys)))}
    return [_fold(task, [part_of[key] == part for key in keys]) for part in range(count)] if count > 1 else []


def fold_fault(task: Task, *, in_context: bool = False) -> Fault | None:
    """Two prompts are the least: one to learn from, one to ask; three where what is learned from is asked in turn."""
    prompts, least = len({example.prompt_key for example in task.pool}), 3 if in_context else 2
    if prompts >= least:
        return None
    right = f"at least {least} different prompts"
    return Fault("too few examples to leave one out", f"task {task.name}", prompts, right)


def most_steps(inner: InnerLoop) -> int:
    return max(TRIED, TIMES * inner.steps)


class StepChoice(NamedTuple):
    """nats: the mean over left-out examples after so many steps, from 0 on."""

    nats: tuple[float, ...]

    @property
    def steps(self) -> int:
        """The fewest of those with the lowest nats."""
        return min(range(len(self.nats)), key=lambda steps: _or_infinite(self.nats[steps]))


def choose_steps(
    space: ParameterSpace,
    inner: InnerLoop,
    tasks: Sequence[EncodedTask],
    *,
    most: int | None = None,
    on_pass: OnPass = lambda tokens: None,
) -> list[StepChoice]:
    """Of 0 to `most` steps (None: `most_steps`), which one adaptation of each fold passes through.

    The tasks have folds (`fold_fault`).
    """
    parts = [(place, fold) for place, task in enumerate(tasks) for fold in folds(task)]
    parts.sort(key=lambda part: (len(part[1].test), len(part[1].pool)))  # alike ones share a forward
    held = [fold for _, fold in parts]
    after = range((most_steps(inner) if most is None else most) + 1)
    scores = adapt_and_score(space, inner, [fold.pool for fold in held], held, after=after, on_pass=on_pass)
    nats: list[list[list[float]]] = [[[] for _ in after] for _ in tasks]
    for steps, found in scores.items():
        for (place, _), score in zip(parts, found, strict=True):
            nats[place][steps] += score.nats
    return [StepChoice(tuple(sum(each) / len(each) for each in one)) for one in nats]


def _fold(task: EncodedTask, tested: Sequence[bool]) -> EncodedTask:
    def side(test: bool) -> list[int]:
        return [place for place, found in enumerate(tested) if found is test]

    pool, test = (tuple(task.task.pool[place] for place in side(which)) for which in (False, True))
    encoded = (tuple(task.pool[place] for place in side(which)) for which in (False, True))
    left = replace(task.task, pool=pool, test=test)
    return EncodedTask(left, *encoded, dropped=0, truncated=0, in_context=task.in_context)


def _or_infinite(number: float) -> float:
    return number if math.isfinite(number) else math.inf
