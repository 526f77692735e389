"""Will it work for mine? New tasks' adapters side by side, on test examples, or on each example when it is left out.

Legend: T = tasks, K = inner steps.

judge          encoded tasks -> a SideBySide each: every arm adapts and is scored alike
each_adapted   tasks, each with an inner loop of its own -> adapted values, as many tasks per forward as fit
Together       tasks that were adapted in one forward
Measured       what one task's values scored on its test examples
measured_part  the same of every task of a forward
parts_of       what a task is judged on: itself, or its folds
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.comparison.side_by_side import OURS, Arm, SideBySide
from innerloop.data.encoding import EncodedTask
from innerloop.engine.groundwork import Say
from innerloop.engine.parts import make_space
from innerloop.errors import UserError
from innerloop.evaluation.cross_validation import folds
from innerloop.evaluation.generation import allowance, answers
from innerloop.evaluation.in_context import in_context_task, too_long
from innerloop.evaluation.kshot import adapted, chunks, score
from innerloop.evaluation.scoring import verified
from innerloop.learning.inner_loop import InnerLoop, Reached
from innerloop.loading.architecture import positions_of
from innerloop.numerics.rounding import seeded
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.runs.learned import Learned
from innerloop.spaces.space import ParameterSpace

# A space, tasks -> the inner loop of each: the run's own, or with a number of steps that its examples choose.
Loops = Callable[[ParameterSpace, Sequence[EncodedTask]], list[InnerLoop]]


class Together(NamedTuple):
    """places: of the tasks in what was given; values (T, ...); losses (K, T) before each step; seconds: of a task."""

    places: list[int]
    tasks: list[EncodedTask]
    values: TensorSet
    losses: Tensor
    seconds: float


class Measured(NamedTuple):
    """nats, correct, written: of each test example; steps, seconds: of the adaptation."""

    nats: tuple[float, ...]
    correct: tuple[float, ...]
    written: tuple[str, ...]
    steps: int = 0
    seconds: float = 0.0


def each_adapted(
    space: ParameterSpace, loops: Sequence[InnerLoop], tasks: Sequence[EncodedTask], *, seed: int
) -> Iterator[Together]:
    """Every task adapted to its pool from the shared values, in order of steps and sizes: alike ones go together.

    What each reaches is what it would alone, up to the order of float additions.
    """

    def size(place: int) -> tuple[int, float, int, int]:
        return loops[place].steps, loops[place].optimizer.lr, len(tasks[place].pool), len(tasks[place].test)

    order = sorted(range(len(tasks)), key=size)
    for _, group in groupby(order, key=lambda place: size(place)[:2]):
        members, done = list(group), 0
        loop = loops[members[0]]
        asked = [tasks[place] for place in members]
        for chunk in chunks(space, [task.pool if loop.steps else () for task in asked], asked):
            places = members[done : done + len(chunk.tasks)]
            done += len(places)
            started = time.perf_counter()
            with seeded(seed, "adapt", device=space.device):
                reached = adapted(space, loop, chunk) if loop.steps else _untouched(space, len(places))
            seconds = (time.perf_counter() - started) / len(places)
            yield Together(places, chunk.tasks, reached.values, reached.losses, seconds)


def measured_part(learned: Learned, space: ParameterSpace, part: Together) -> list[Measured]:
    """Scores of each task's test examples, and its answers to them."""
    tokenizer, found = learned.model.tokenizer, list[Measured]()
    scores = score(space, part.values, part.tasks)
    every = answers(space, part.values, part.tasks, tokenizer=tokenizer, max_new_tokens=None)
    for task, each, own in zip(part.tasks, scores, every, strict=True):
        texts = tuple(answer.text for answer in own)
        found.append(Measured(each.nats, tuple(verified(task.task, texts)), texts, len(part.losses), part.seconds))
    return found


def _untouched(space: ParameterSpace, tasks: int) -> Reached:
    return Reached(per_task(space.shared, tasks), torch.empty(0, tasks))


def parts_of(task: EncodedTask) -> list[EncodedTask]:
    """A task with test examples is judged on them; one without, on each example when it is left out."""
    return [task] if task.test else folds(task)


def judge(
    learned: Learned,
    tasks: Sequence[EncodedTask],
    loops: Loops,
    *,
    ours: Mapping[int, Measured] | None = None,
    say: Say = lambda stage, done, total: None,
) -> list[SideBySide]:
    """Every arm on the same examples; a fresh LoRA takes the inner loop that this run's start takes, or chooses alike.

    ours  of tasks whose test examples were scored with this run's adapters already, by their places
    """
    owners = [place for place, task in enumerate(tasks) for _ in parts_of(task)]
    parts = [part for task in tasks for part in parts_of(task)]
    contenders, left_out = _contenders(learned, parts, loops)
    found = dict[str, list[Measured]]()
    for each in contenders:
        if each.name == OURS and ours is not None:
            found[OURS] = [ours[place] for place in owners]
            continue
        still = replace(learned.inner, steps=0)
        chosen = each.loops(each.space, tasks) if each.loops else [still] * len(tasks)
        found[each.name] = _scored(learned, each, [chosen[place] for place in owners], say)
    return [_side_by_side(task, place, owners, parts, found, left_out) for place, task in enumerate(tasks)]


class _Contender(NamedTuple):
    """loops: None = it adapts nothing."""

    name: str
    space: ParameterSpace
    parts: Sequence[EncodedTask]
    loops: Loops | None


def _contenders(
    learned: Learned, parts: Sequence[EncodedTask], loops: Loops
) -> tuple[list[_Contender], dict[str, str]]:
    """The arms in their order, and which can't be, and why."""
    behind = [part.behind(part.pool) for part in parts]  # of a run that was trained in context
    ours = _Contender(OURS, learned.space, behind, loops)
    if learned.config.method.row.space.trains_base:
        bare = _Contender("unadapted", learned.space, [part.behind(()) for part in parts], None)
        return [bare, ours], {"base": "the run holds the model that it trained, and no base beside it"}
    fresh, encoder = make_space(learned.config, learned.model.model), learned.encoder
    base = _Contender("base", fresh, [in_context_task(part, [], encoder) for part in parts], None)
    untrained = _Contender("fresh LoRA", fresh, behind, loops)
    prompted, why = _prompted(learned, parts)
    if why:
        return [base, untrained, ours], {"in context": why}
    return [base, _Contender("in context", fresh, prompted, None), untrained, ours], {}


def _prompted(learned: Learned, parts: Sequence[EncodedTask]) -> tuple[list[EncodedTask], str]:
    """The tests with the pool in their prompts; or why there is no such arm."""
    try:
        prompted = [in_context_task(part, part.pool, learned.encoder) for part in parts]
    except UserError as error:
        return [], error.faults[0].problem
    positions = positions_of(learned.model.model)
    for part, asked in zip(parts, prompted, strict=True):
        if faults := too_long([asked], len(part.pool), positions=positions, max_new_tokens=allowance(part)):
            (fault,) = faults
            return [], f"{fault.problem}: {fault.value} tokens in {fault.where}, and it was made for {positions}"
    return prompted, ""


def _scored(learned: Learned, each: _Contender, loops: Sequence[InnerLoop], say: Say) -> list[Measured]:
    """What each part's values score."""
    found, stage = dict[int, Measured](), f"judging {each.name}"
    say(stage, 0, len(each.parts))
    for part in each_adapted(each.space, loops, each.parts, seed=learned.config.seed):
        for place, one in zip(part.places, measured_part(learned, each.space, part), strict=True):
            found[place] = one
        say(stage, len(found), len(each.parts))
    return [found[place] for place in range(len(each.parts))]


def _side_by_side(
    task: EncodedTask,
    place: int,
    owners: Sequence[int],
    parts: Sequence[EncodedTask],
    found: Mapping[str, Sequence[Measured]],
    left_out: Mapping[str, str],
) -> SideBySide:
    """The task's own parts of every arm, one behind the other."""
    own = [part for part, owner in enumerate(owners) if owner == place]
    arms = list[Arm]()
    for name, every in found.items():
        mine = [every[part] for part in own]
        nats, correct = (
            tuple(chain(*numbers)) for numbers in zip(*((each.nats, each.correct) for each in mine), strict=True)
        )
        written = tuple(chain(*(each.written for each in mine)))
        seconds = sum(each.seconds for each in mine) / len(mine)
        arms.append(Arm(name, nats, correct, written, seconds, mine[0].steps))
    tests = [example for part in own for example in parts[part].task.test]
    prompts, references = tuple(example.asks for example in tests), tuple(example.answer.strip() for example in tests)
    return SideBySide(len(task.pool), tuple(arms), prompts, references, left_out, 0 if task.test else len(own))
