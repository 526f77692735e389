"""Learned rates: the naive rule, its signs against finite differences of the true loss, and the lengths of steps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import Tasks, all_space, close, lora_space, own_names, reference_model, same
from innerloop.data.tasks import TaskBatch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.inner_rates import InnerRates, Kind, fresh_rates
from innerloop.learning.methods import METHODS
from innerloop.numerics.optimizers import AdamW, Optimizer, Sgd
from innerloop.numerics.tensors import TensorSet, per_task, zeros_like
from innerloop.spaces.space import ParameterSpace
from reference import naive
from tiny import tiny_model

TASKS, STEPS = 3, 3
KINDS: tuple[Kind, ...] = ("tensor", "tensor-step", "entry")
ADAMW: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-3, "weight_decay": 0.1}
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Sgd(lr=0.2, loraplus_lr_ratio=3.0),
    "clipped sgd": Sgd(lr=0.3, clip=0.5),
    "adamw": AdamW(lr=0.01, **ADAMW),
}
NAMES = [name for name, row in METHODS.items() if "learned_rates" in row.rule.takes]


def some_rates(kind: Kind, shared: TensorSet) -> InnerRates:
    """Of no particular size, between a half and twice the rate."""
    rates, generator = fresh_rates(kind, shared, steps=STEPS), torch.Generator().manual_seed(1)
    for value in rates.logs.values():
        value.copy_(torch.rand(value.shape, generator=generator) * 1.4 - 0.7)
    return rates


def naive_path(space: ParameterSpace, support: Any, optimizer: Optimizer, rates: InnerRates) -> list[TensorSet]:
    """phi_0 .. phi_K of one task: a step of torch.optim from phi_k, then each entry moved by its factor of that."""
    adamw = ADAMW if isinstance(optimizer, AdamW) else None
    inner = naive.Inner(STEPS, optimizer.lr, optimizer.clip, optimizer.loraplus_lr_ratio, adamw)
    model = naive.deepcopy(reference_model(space, space.shared))
    stepper = inner.optimizer(model)
    path = [{name: value.detach().clone() for name, value in own_names(naive.trainable(model)).items()}]
    for k, examples in enumerate(support):
        stepper.zero_grad()
        naive.loss(model, examples).backward()
        if inner.clip is not None:
            naive.clip_grad_norm_(naive.trainable(model).values(), inner.clip)
        stepper.step()
        values = own_names(naive.trainable(model))
        with torch.no_grad():
            for name, value in values.items():
                log = rates.logs[name][k] if rates.kind == "tensor-step" else rates.logs[name]
                value.copy_(path[-1][name] + log.exp() * (value - path[-1][name]))
        path.append({name: value.detach().clone() for name, value in values.items()})
    return path


def naive_gradients(
    space: ParameterSpace, tasks: Tasks, optimizer: Optimizer, rates: InnerRates
) -> tuple[TensorSet, TensorSet]:
    """Summed over tasks: the query gradients, and <query gradient, how far the steps of a rate went>."""
    outer, learned = zeros_like(space.shared), zeros_like(rates.logs)
    for support, query in tasks.each:
        path = naive_path(space, support, optimizer, rates)
        grads = own_names(naive.gradient(reference_model(space, path[-1]), query))
        for name, grad in grads.items():
            outer[name] += grad
            for k in range(STEPS):
                along = grad * (path[k + 1][name] - path[k][name])
                if rates.kind == "entry":
                    learned[name] += along
                elif rates.kind == "tensor":
                    learned[name] += along.sum()
                else:
                    learned[name][k] += along.sum()
    return outer, learned


def gradients(name: str, space: ParameterSpace, tasks: TaskBatch, loop: InnerLoop) -> tuple[TensorSet, TensorSet]:
    assert loop.rates is not None
    for value in loop.rates.gradient.values():
        value.zero_()
    into, rule = zeros_like(space.shared), METHODS[name].rule(inner=loop)  # pyright: ignore[reportCallIssue]
    for chunk in tasks.split(space.limit or TASKS):
        rule.outer_gradient(space, per_task(space.shared, len(chunk.names)), chunk, into)
    return into, loop.rates.gradient


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["fomaml-lora", "fomaml"])
def test_rates_learn_what_the_naive_rule_says(name: str, kind: Kind, optimizer: str) -> None:
    model, settings = tiny_model("llama", layers=1), OPTIMIZERS[optimizer]
    space = all_space(model) if METHODS[name].space.trains_base else lora_space(model)
    tasks, rates = Tasks(tasks=TASKS, steps=STEPS), some_rates(kind, space.shared)
    outer, learned = gradients(name, space, tasks.batch, InnerLoop(steps=STEPS, optimizer=settings, rates=rates))
    right, wanted = naive_gradients(space, tasks, settings, rates)
    assert close(outer, right)
    assert close(learned, wanted, 1e-4)
    fresh = fresh_rates(kind, space.shared, steps=STEPS)
    others, _ = gradients(name, space, tasks.batch, InnerLoop(steps=STEPS, optimizer=settings, rates=fresh))
    assert not close(others, right, 1e-2), "the control: rates that were not learned"
    doubled = {name: 2 * value for name, value in wanted.items()}
    assert not close(learned, doubled, 1e-1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_is_the_derivative_where_a_step_is_the_last(kind: Kind) -> None:
    """With one step nothing is left out: against finite differences of the query loss, rate by rate."""
    space = lora_space(tiny_model("llama", layers=1))
    tasks, rates = Tasks(tasks=1, steps=1), fresh_rates(kind, space.shared, steps=1)
    loop = InnerLoop(steps=1, optimizer=Sgd(lr=0.3), rates=rates)
    _, learned = gradients("fomaml-lora", space, tasks.batch, loop)
    query = tasks.batch.query
    assert query is not None

    def loss() -> float:
        reached = loop.adapt(space, per_task(space.shared, 1), tasks.batch.support)
        return float(space.loss_and_gradient(reached.values, query)[0])

    names = sorted(learned, key=lambda name: -float(learned[name].abs().max()))[:4]
    for name in names:
        spot = int(learned[name].flatten().abs().argmax())
        log, step = rates.logs[name].view(-1), 0.05
        found: list[float] = []
        for sign in (1, -1):
            log[spot] = sign * step
            found.append(loss())
            log[spot] = 0.0
        assert float(learned[name].flatten()[spot]) == pytest.approx((found[0] - found[1]) / (2 * step), rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_rates_are_the_optimizers_own(kind: Kind) -> None:
    space, tasks = lora_space(tiny_model("llama", layers=1)), Tasks(tasks=TASKS, steps=STEPS).batch
    plain = InnerLoop(steps=STEPS, optimizer=Sgd(lr=0.3, loraplus_lr_ratio=4.0))
    rates = fresh_rates(kind, space.shared, steps=STEPS)
    start = per_task(space.shared, TASKS)
    one, other = (loop.adapt(space, start, tasks.support) for loop in (plain, replace(plain, rates=rates)))
    assert close(other.values, one.values)
    longer = {name: torch.full_like(value, 0.7) for name, value in rates.logs.items()}
    more = replace(plain, rates=replace(rates, logs=longer)).adapt(space, start, tasks.support)
    assert not close(more.values, one.values, 1e-2)


def test_a_step_beyond_those_of_training_takes_the_last_ones_rate() -> None:
    shared = {"a": torch.ones(2)}
    rates = replace(fresh_rates("tensor-step", shared, steps=2), logs={"a": torch.tensor([0.0, 1.0])})

    def moved(step: int) -> Tensor:
        values = {"a": torch.full((1, 2), 3.0)}
        rates.scale_(values, {"a": torch.ones(1, 2)}, step)
        return values["a"]

    assert torch.equal(moved(0), torch.full((1, 2), 3.0))
    assert torch.equal(moved(1), moved(5))
    assert moved(1)[0, 0].item() == pytest.approx(1 + 2 * 2.718281828)


def test_several_losses_teach_the_steps_before_each() -> None:
    """With inner.multi_step: the first step learns of both losses, the second of the last alone."""
    space, tasks = lora_space(tiny_model("llama", layers=1)), Tasks(tasks=TASKS, steps=2).batch
    rates = fresh_rates("tensor-step", space.shared, steps=2)
    loop = InnerLoop(steps=2, optimizer=Sgd(lr=0.3), rates=rates)

    def learned(loop: InnerLoop, tasks: TaskBatch) -> TensorSet:
        return {name: value.clone() for name, value in gradients("meta-lora", space, tasks, loop)[1].items()}

    both = learned(replace(loop, spread=0.6), tasks)
    first = learned(replace(loop, steps=1), tasks._replace(support=tasks.support[:1]))
    last = learned(loop, tasks)
    assert close(both, {name: 0.3 * first[name] + 0.7 * last[name] for name in both})
    assert not close(both, last, 1e-2)


def test_without_a_step_nothing_is_learned_of_rates() -> None:
    space, tasks = lora_space(tiny_model("llama", layers=1)), Tasks(tasks=TASKS, steps=1).batch
    for kind in KINDS:
        rates = fresh_rates(kind, space.shared, steps=STEPS)
        loop = InnerLoop(steps=0, optimizer=Sgd(lr=0.3), rates=rates)
        into, learned = gradients("fomaml-lora", space, tasks._replace(support=[]), loop)
        assert not any(value.any() for value in learned.values())
        assert any(value.any() for value in into.values())


def test_those_with_a_first_order_query_gradient_take_them() -> None:
    assert NAMES == ["fomaml", "fomaml-lora", "meta-lora"]
    shared = {"a": torch.ones(2, 3)}
    shapes = {kind: fresh_rates(kind, shared, steps=4).logs["a"].shape for kind in KINDS}
    assert shapes == {"tensor": (), "tensor-step": (4,), "entry": (2, 3)}
    assert same(shared, {"a": torch.ones(2, 3)})
