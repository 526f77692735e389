"""inner.anchor and inner.multi_step against the naive methods, and the passes that they take."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import Tasks, all_space, close, frozen_copy, lora_space, own_names, reference_model, same
from innerloop.data.tasks import Batch, TaskBatch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS, Method
from innerloop.learning.passes import Way, added_at, query_gradient, query_of
from innerloop.numerics.optimizers import Sgd
from innerloop.numerics.tensors import TensorSet, clone, per_task, zeros_like
from innerloop.spaces.lora import LoraSettings, LoraSpace
from innerloop.spaces.loss import AnswerLoss
from innerloop.spaces.space import ParameterSpace
from reference import naive
from tiny import tiny_model

TASKS, STEPS, LR, CLIP = 2, 3, 0.3, 1.0
TAKING = [name for name, row in METHODS.items() if row.rule.takes]
ADDED: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "anchor": ({"anchor": 0.4}, {"anchor": 0.4}),
    "every step": ({"spread": 1.0}, {"weights": [1 / 3, 1 / 3, 1 / 3]}),
    "the last more": ({"spread": 0.6}, {"weights": [0.2, 0.2, 0.6]}),
    "both": ({"anchor": 0.4, "spread": 0.6}, {"anchor": 0.4, "weights": [0.2, 0.2, 0.6]}),
}


def rule(name: str, **options: float) -> Method:
    loop = InnerLoop(steps=STEPS, optimizer=Sgd(lr=LR, clip=CLIP), **options)  # pyright: ignore[reportArgumentType]
    return METHODS[name].rule(inner=loop)  # pyright: ignore[reportCallIssue]


def space_for(name: str) -> ParameterSpace:
    model = tiny_model("llama", layers=2)
    return all_space(model) if METHODS[name].space.trains_base else lora_space(model)


def gradient(method: Method, space: ParameterSpace, tasks: TaskBatch) -> TensorSet:
    into = zeros_like(space.shared)
    for chunk in tasks.split(space.limit or TASKS):
        method.outer_gradient(space, per_task(space.shared, len(chunk.names)), chunk, into)
    return {name: value / len(tasks.names) for name, value in into.items()}


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("name", TAKING)
def test_what_is_added_on_the_way_is_the_naive_methods(name: str, added: str) -> None:
    ours, theirs = ADDED[added]
    space, tasks = space_for(name), Tasks(tasks=TASKS, steps=STEPS)
    inner = naive.Inner(STEPS, LR, CLIP, **theirs)
    expected = own_names(naive.outer_gradient(name, reference_model(space, space.shared), tasks.each, inner))
    assert close(gradient(rule(name, **ours), space, tasks.batch), expected)
    for wrong in ({}, {**ours, "anchor": 0.5}, {**ours, "spread": 0.4}):
        assert not close(gradient(rule(name, **wrong), space, tasks.batch), expected, 1e-3), wrong


PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fomaml-lora": ("lora-b", ("lora_B",)),
    "meta-lora": ("last-1", ("layers.1.",)),
    "maml-lora": ("lora-b", ("lora_B",)),
    "fomaml": ("last-1", ("layers.1.",)),
    "maml": ("last-1", ("layers.1.",)),
}


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", PARTS)
def test_the_part_that_adapts_is_the_naive_methods(name: str, clip: float | None) -> None:
    """ANIL: gradients of both parts, at values of which one was moved; for maml with all cross terms."""
    train, only = PARTS[name]
    space, tasks = space_for(name), Tasks(tasks=TASKS, steps=STEPS)
    inner = naive.Inner(STEPS, LR, clip, only=only)
    expected = own_names(naive.outer_gradient(name, reference_model(space, space.shared), tasks.each, inner))
    before = frozen_copy(space.shared)

    def found(train: str) -> TensorSet:
        loop = InnerLoop(steps=STEPS, optimizer=Sgd(lr=LR, clip=clip), train=train)
        return gradient(METHODS[name].rule(inner=loop), space, tasks.batch)  # pyright: ignore[reportCallIssue]

    assert close(found(train), expected)
    assert same(space.shared, before)
    assert not close(found("all"), expected, 1e-3), "the control: everything adapts"
    assert all(value.any() for value in expected.values() if value.dim() > 1), "the rest is learned, too"


def test_no_method_but_those_with_a_query_takes_them() -> None:
    assert TAKING == ["fomaml", "maml", "fomaml-lora", "maml-lora", "meta-lora"]


class Counted(LoraSpace):
    """The batches of each pass, in order."""

    def loss_and_gradient(
        self, values: Mapping[str, Tensor], batch: Batch, *, into: TensorSet | None = None
    ) -> tuple[Tensor, TensorSet | None]:
        self.read = [*getattr(self, "read", []), batch]
        return super().loss_and_gradient(values, batch, into=into)


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("name", ["fomaml-lora", "meta-lora"])
def test_every_pass_is_counted(name: str, added: str) -> None:
    model, method = tiny_model("llama", layers=1), rule(name, **ADDED[added][0])
    space, tasks = Counted(model, AnswerLoss(model), LoraSettings(r=1), seed=0), Tasks(tasks=2, steps=STEPS).batch
    method.outer_gradient(space, per_task(space.shared, 2), tasks, zeros_like(space.shared))
    counted, plain = method.forwards(tasks), rule(name).forwards(tasks)
    assert sorted(map(id, counted)) == sorted(map(id, space.read))
    assert len(counted) > len(plain) == STEPS + 1


def test_nothing_is_added_where_nothing_is_asked_for() -> None:
    space, tasks = space_for("fomaml-lora"), Tasks(tasks=TASKS, steps=STEPS).batch
    loop, into = InnerLoop(steps=STEPS, optimizer=Sgd(lr=LR)), zeros_like(space.shared)
    phi = clone(per_task(space.shared, TASKS))
    assert [added_at(loop, space, tasks, k, phi) for k in range(STEPS)] == [None] * STEPS
    assert added_at(replace(loop, anchor=0.1), space, tasks, 1, phi) is None
    assert added_at(replace(loop, anchor=0.1), space, tasks, 0, phi) is not None
    for inner, touched in ((loop, False), (replace(loop, anchor=0.1), True)):
        way = Way(inner, space, phi, tasks, into)
        way.passed(phi, tasks.support[0])
        assert any(value.any() for value in into.values()) == touched


def test_a_weighted_query_gradient_is_so_many_times_the_gradient() -> None:
    space, tasks = space_for("fomaml-lora"), Tasks(tasks=TASKS, steps=STEPS).batch
    values, into, whole = per_task(space.shared, TASKS), zeros_like(space.shared), zeros_like(space.shared)
    loss, weighted = query_gradient(space, values, tasks, weight=0.25)
    plain, gradients = query_gradient(space, values, tasks)
    assert weighted is not None
    assert gradients is not None
    assert torch.equal(loss, plain), "the loss is the query's own"
    assert same(weighted, {name: 0.25 * value for name, value in gradients.items()})
    assert query_gradient(space, values, tasks, into=into, weight=0.25)[1] is None
    query_gradient(space, values, tasks, into=whole)
    assert close(into, {name: 0.25 * value for name, value in whole.items()})
    assert query_of(tasks) is tasks.query
