from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers import (
    Tasks,
    all_space,
    close,
    frozen_copy,
    lora_space,
    of_task,
    own_names,
    reference_model,
    same,
    untouched,
)
from innerloop.data.tasks import Batch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW, Optimizer, Sgd
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.space import ParameterSpace
from reference import naive
from tiny import tiny_model

STEPS = 3
SPACES: dict[str, Callable[..., ParameterSpace]] = {"lora": lora_space, "all": all_space}
# eps: a gradient far below it would turn float32 noise into a whole step (torch's: see test_optimizers)
ADAMW: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-3, "weight_decay": 0.1}
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Sgd(lr=0.2),
    "clipped sgd": Sgd(lr=0.2, clip=0.3, loraplus_lr_ratio=3.0),
    "adamw": AdamW(lr=0.01, loraplus_lr_ratio=3.0, **ADAMW),
    "clipped adamw": AdamW(lr=0.01, clip=0.3, **ADAMW),
}


def naives(optimizer: Optimizer) -> naive.Inner:
    adamw = ADAMW if isinstance(optimizer, AdamW) else None
    return naive.Inner(STEPS, optimizer.lr, optimizer.clip, optimizer.loraplus_lr_ratio, adamw)


def build(kind: str, family: str = "llama") -> tuple[ParameterSpace, Tasks]:
    space = SPACES[kind](tiny_model(family, layers=2))
    return space, Tasks(tasks=space.limit or 3, steps=STEPS)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_adaptation_is_torch_optim_on_a_copy(name: str, kind: str) -> None:
    (space, tasks), optimizer = build(kind), OPTIMIZERS[name]
    start, before = per_task(space.shared, len(tasks.names)), frozen_copy(space.shared)
    with untouched(space.model):
        adapted = InnerLoop(steps=STEPS, optimizer=optimizer).adapt(space, start, tasks.batch.support)
    assert same(space.shared, before)
    model = reference_model(space, space.shared)
    for task in range(len(tasks.names)):
        ours = of_task(adapted.values, task)
        theirs = naive.adapt(model, tasks.of(task)[0], naives(optimizer))
        expected = {n: v[None] for n, v in own_names(naive.trainable(theirs)).items()}
        assert close(ours, expected)
        assert not close(ours, {n: v[None] for n, v in space.shared.items()}, 1e-3)
    fewer = InnerLoop(steps=STEPS - 1, optimizer=optimizer).adapt(space, start, tasks.batch.support)
    assert not close(of_task(fewer.values, task), expected, 1e-3)


@pytest.mark.parametrize("kind", SPACES)
def test_the_losses_are_each_steps_own_before_it_is_taken(kind: str) -> None:
    space, tasks = build(kind)
    start, seen = per_task(space.shared, len(tasks.names)), []

    def look(values: TensorSet, batch: Batch) -> None:
        seen.append((frozen_copy(values), batch))

    loop = InnerLoop(steps=STEPS, optimizer=Sgd(lr=0.3))
    adapted = loop.adapt(space, start, tasks.batch.support, before_step=look)
    assert adapted.losses.shape == (STEPS, len(tasks.names))
    assert close(seen[0][0], start, 0)
    for losses, (values, batch) in zip(adapted.losses, seen, strict=True):
        assert torch.equal(losses, space.loss_and_gradient(values, batch)[0])
    after = space.loss_and_gradient(adapted.values, tasks.batch.support[-1])[0]
    assert (after < adapted.losses[-1]).all(), "a step on a batch lowers that batch's loss"


def test_a_short_support_is_read_in_turn() -> None:
    space, tasks = build("lora")
    first, second = tasks.batch.support[:2]
    start, loop = per_task(space.shared, 3), InnerLoop(steps=3, optimizer=Sgd(lr=0.1))
    cyclic = loop.adapt(space, start, [first, second])
    assert same(cyclic.values, loop.adapt(space, start, [first, second, first]).values)
    assert not same(cyclic.values, loop.adapt(space, start, [first, second, second]).values)


@pytest.mark.parametrize("kind", SPACES)
def test_no_step_gives_the_start(kind: str) -> None:
    space, tasks = build(kind)
    start = per_task(space.shared, len(tasks.names))
    adapted = InnerLoop(steps=0, optimizer=Sgd(lr=0.1)).adapt(space, start, [])
    assert same(adapted.values, start)
    assert adapted.losses.shape == (0, len(tasks.names))
    assert all(v.data_ptr() != space.shared[n].data_ptr() for n, v in adapted.values.items())


def test_the_rate_rises_from_a_tenth_over_the_outer_steps_of_a_warm_up() -> None:
    tasks, loop = Tasks(tasks=2, steps=STEPS).batch, InnerLoop(steps=STEPS, optimizer=Sgd(lr=0.2), warmup=4)
    rates = [loop.at(tasks._replace(step=step)).optimizer.lr for step in range(6)]
    assert rates == pytest.approx([0.02, 0.065, 0.11, 0.155, 0.2, 0.2])
    early = loop.at(tasks._replace(step=1))
    assert early.at(tasks._replace(step=1)) == early, "once is enough"
    assert loop.optimizer.lr == 0.2, "at use the rate is whole"


def test_the_query_loss_of_every_step_counts_less_and_less() -> None:
    tasks, loop = Tasks(tasks=2, steps=STEPS).batch, InnerLoop(steps=STEPS, optimizer=Sgd(lr=0.2), multi_step=4)
    weights = [loop.at(tasks._replace(step=step)).weights for step in (0, 2, 4, 9)]
    each, half = [1 / 3] * 3, [1 / 6, 1 / 6, 2 / 3]
    assert [pytest.approx(row) for row in (each, half, [0, 0, 1], [0, 0, 1])] == weights
    assert loop.at(tasks._replace(step=2)).at(tasks._replace(step=2)).weights == weights[1]
    assert loop.weights == [0, 0, 1], "at use"
    assert loop.at(tasks._replace(support=[])).weights == [1], "no step at all: the query loss at theta"
    assert loop.at(tasks._replace(support=tasks.support[:1])).weights == [1]


def test_an_outer_step_has_as_many_inner_steps_as_batches() -> None:
    tasks, loop = Tasks(tasks=2, steps=STEPS).batch, InnerLoop(steps=STEPS, optimizer=Sgd(lr=0.2))
    assert [loop.at(tasks._replace(support=tasks.support[:count])).steps for count in range(4)] == [0, 1, 2, 3]
    assert loop.at(tasks) == loop


def test_moments_do_not_leak_from_one_adaptation_into_the_next() -> None:
    space, tasks = build("lora")
    loop = InnerLoop(steps=STEPS, optimizer=OPTIMIZERS["adamw"])
    once = loop.adapt(space, per_task(space.shared, 3), tasks.batch.support)
    loop.adapt(space, per_task(space.shared, 3), Tasks(tasks=3, steps=STEPS, seed=4).batch.support)
    assert same(loop.adapt(space, per_task(space.shared, 3), tasks.batch.support).values, once.values)
    longer = InnerLoop(steps=2 * STEPS, optimizer=OPTIMIZERS["adamw"])
    kept = longer.adapt(space, per_task(space.shared, 3), tasks.batch.support)
    restarted = loop.adapt(space, once.values, tasks.batch.support)
    assert not close(kept.values, restarted.values, 1e-4), "moments live for one adaptation"
