"""Laws 1 to 4: chunks of tasks change nothing, the limits of each method, every row = reference/naive.py."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import torch

from helpers import (
    TOLERANCE,
    Tasks,
    all_space,
    close,
    frozen_copy,
    lora_space,
    own_names,
    permuted,
    reference_model,
    relative_error,
    same,
    untouched,
)
from innerloop.data.tasks import TaskBatch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS, Fomaml, Joint, Maml, MetaLora, Method, Reptile, option, own_options
from innerloop.numerics.optimizers import AdamW, Optimizer, Sgd
from innerloop.numerics.tensors import TensorSet, per_task, zeros_like
from innerloop.spaces.space import ParameterSpace
from reference import naive
from tiny import tiny_model

TASKS, STEPS = 4, 2
# eps: a gradient far below it would turn float32 noise into a whole step (torch's: see test_optimizers)
ADAMW: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-3, "weight_decay": 0.1}
SGD = Sgd(lr=0.3, clip=1.0, loraplus_lr_ratio=3.0)  # every gradient here is longer than 1
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Sgd(lr=0.1),
    "clipped sgd": SGD,
    "clipped adamw": AdamW(lr=0.01, clip=0.3, loraplus_lr_ratio=3.0, **ADAMW),
}
SECOND_ORDER = [name for name, row in METHODS.items() if row.rule is Maml]
INNER = [name for name, row in METHODS.items() if "inner" in row.rule.options()]


def method(name: str, optimizer: Optimizer = SGD, *, steps: int = STEPS) -> Method:
    rule = METHODS[name].rule
    return rule(**{"inner": InnerLoop(steps=steps, optimizer=optimizer)} if "inner" in rule.options() else {})


def space_for(name: str, family: str = "llama") -> ParameterSpace:
    model = tiny_model(family, layers=2)
    return all_space(model) if METHODS[name].space.trains_base else lora_space(model)


def reference(name: str, space: ParameterSpace, tasks: Tasks, inner: naive.Inner) -> TensorSet:
    return own_names(naive.outer_gradient(name, reference_model(space, space.shared), tasks.each, inner))


def naives(optimizer: Optimizer) -> naive.Inner:
    adamw = ADAMW if isinstance(optimizer, AdamW) else None
    return naive.Inner(STEPS, optimizer.lr, optimizer.clip, optimizer.loraplus_lr_ratio, adamw)


def gradient(method: Method, space: ParameterSpace, tasks: TaskBatch, *, tasks_per_forward: int = TASKS) -> TensorSet:
    """The mean over tasks, in chunks as the trainer takes them."""
    into = zeros_like(space.shared)
    for chunk in tasks.split(min(tasks_per_forward, space.limit or tasks_per_forward)):
        method.outer_gradient(space, per_task(space.shared, len(chunk.names)), chunk, into)
    return {name: value / len(tasks.names) for name, value in into.items()}


def cases() -> list[Any]:
    rows = [(name, optimizer) for name in INNER for optimizer in OPTIMIZERS]
    rows = [(name, optimizer) for name, optimizer in rows if name not in SECOND_ORDER or "adamw" not in optimizer]
    return rows + [(name, "sgd") for name in METHODS if name not in INNER]


@pytest.mark.parametrize(("name", "optimizer"), cases())
def test_every_row_of_the_table_is_the_naive_method(name: str, optimizer: str) -> None:
    """Law 4. Unequal rates of A and B and, where the name says so, active clipping."""
    space, tasks, settings = space_for(name), Tasks(tasks=TASKS, steps=STEPS), OPTIMIZERS[optimizer]
    before = frozen_copy(space.shared)
    with untouched(space.model):
        found = gradient(method(name, settings), space, tasks.batch)
    assert same(space.shared, before)
    expected = reference(name, space, tasks, naives(settings))
    if METHODS[name].rule is Reptile:  # theta - mean phi: float32 holds the law for phi, and one digit less for g
        moved, wanted = ({name: space.shared[name] - end[name] for name in end} for end in (found, expected))
        assert close(moved, wanted)
    assert close(found, expected, 5e-5 if METHODS[name].rule is Reptile else TOLERANCE)
    for wrong in wrong_settings(settings, METHODS[name].space.name) if name in INNER else ():
        assert not close(gradient(method(name, wrong), space, tasks.batch), expected, 1e-3), wrong
    assert not close(gradient(method(name, settings), space, tasks.batch.split(3)[0]), expected, 1e-2), "a task less"


def wrong_settings(optimizer: Optimizer, trains: str) -> list[Optimizer]:
    """One setting changed at a time: each has to show."""
    wrong = [replace(optimizer, lr=1.2 * optimizer.lr)]
    wrong += [replace(optimizer, clip=1.2 * optimizer.clip), replace(optimizer, clip=None)] if optimizer.clip else []
    return wrong + [replace(optimizer, loraplus_lr_ratio=2.0)] * (trains == "lora")


@pytest.mark.parametrize("family", ["gemma2", "qwen3", "gpt_neox"])
@pytest.mark.parametrize("name", ["maml", "maml-lora", "fomaml", "fomaml-lora"])
def test_other_families_agree_with_the_naive_method_too(name: str, family: str) -> None:
    """Tied heads and soft caps (gemma2), norms of queries and keys (qwen3), fused projections with biases."""
    space, tasks = space_for(name, family), Tasks(tasks=2, steps=STEPS)
    assert close(gradient(method(name), space, tasks.batch), reference(name, space, tasks, naives(SGD)))


@pytest.mark.parametrize("name", SECOND_ORDER)
@pytest.mark.parametrize("optimizer", ["sgd", "clipped sgd"])
def test_second_order_is_not_first_order(name: str, optimizer: str) -> None:
    """The best-known bug of this field: a switch that changes nothing."""
    space, tasks, settings = space_for(name), Tasks(tasks=TASKS, steps=STEPS), OPTIMIZERS[optimizer]
    second, first = (gradient(method(each, settings), space, tasks.batch) for each in (name, f"fo{name}"))
    assert relative_error(second, first) > 0.3


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.space.reads_lora])
def test_the_number_of_tasks_in_a_forward_changes_nothing(name: str) -> None:
    """Law 1: 4 = 3 + 1 = 1 x 4, with ragged lengths and unequal label counts."""
    space, tasks = space_for(name), Tasks(tasks=TASKS, steps=STEPS).batch
    together = gradient(method(name), space, tasks)
    for size in (1, 3):
        assert close(gradient(method(name), space, tasks, tasks_per_forward=size), together)
    assert not close(gradient(method(name), space, tasks.split(3)[0]), together, 1e-2), "the last chunk was dropped"


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_the_tasks_changes_nothing(name: str) -> None:
    """Law 1; and a task's support belongs to its own query."""
    space, tasks, order = space_for(name), Tasks(tasks=TASKS, steps=STEPS).batch, [2, 3, 1, 0]
    straight, mixed = (gradient(method(name), space, each) for each in (tasks, permuted(tasks, order)))
    assert close(mixed, straight)
    if METHODS[name].rule.reads_query and name in INNER:
        crossed = permuted(tasks, order)._replace(query=tasks.query)
        assert not close(gradient(method(name), space, crossed), straight, 1e-3)


@pytest.mark.parametrize("name", ["fomaml", "fomaml-lora", "maml", "maml-lora", "meta-lora"])
def test_without_an_inner_step_it_is_the_gradient_of_the_query_loss(name: str) -> None:
    """Law 2: 0 inner steps, or a learning rate of 0."""
    space, tasks = space_for(name), Tasks(tasks=TASKS, steps=STEPS)
    expected = reference("joint", space, tasks, naives(SGD))
    none, still = method(name, steps=0), method(name, Sgd(lr=0.0))
    assert close(gradient(none, space, tasks.batch), expected)
    assert close(gradient(none, space, tasks.batch._replace(support=[])), expected)
    assert close(gradient(still, space, tasks.batch), expected)
    assert not close(gradient(method(name), space, tasks.batch), expected, 1e-2)


@pytest.mark.parametrize("name", ["reptile", "reptile-lora"])
def test_reptile_of_one_sgd_step_is_the_rate_times_the_support_gradient(name: str) -> None:
    """Law 3."""
    space, tasks = space_for(name), Tasks(tasks=TASKS, steps=STEPS)
    model = reference_model(space, space.shared)
    support = [naive.gradient(model, steps[0]) for steps, _ in tasks.each]
    expected = {n: 0.1 * v for n, v in own_names(naive.mean(support)).items()}
    found = gradient(method(name, Sgd(lr=0.1), steps=1), space, tasks.batch)
    # theta - (theta - lr g): a difference of neighbours, so its error is that of theta
    assert close(found, expected, 1e-4)
    assert not close(found, {n: 1.01 * v for n, v in expected.items()}, 1e-3)
    assert not close(gradient(method(name, Sgd(lr=0.1), steps=2), space, tasks.batch), expected, 1e-2)
    assert close(gradient(method(name, Sgd(lr=0.1), steps=1), space, tasks.batch._replace(query=None)), found, 0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_meta_lora_with_the_settings_of_fomaml_lora_is_fomaml_lora(optimizer: str) -> None:
    """Law 3, bit for bit; with other settings they differ."""
    space, tasks, settings = (
        space_for("meta-lora"),
        Tasks(tasks=TASKS, steps=STEPS).batch,
        OPTIMIZERS[optimizer],
    )
    for size in (TASKS, 3):
        found = gradient(method("meta-lora", settings), space, tasks, tasks_per_forward=size)
        assert same(found, gradient(method("fomaml-lora", settings), space, tasks, tasks_per_forward=size))
    other = gradient(method("fomaml-lora", Sgd(lr=0.31)), space, tasks)
    assert not same(gradient(method("meta-lora", Sgd(lr=0.3)), space, tasks), other)


@pytest.mark.parametrize("name", METHODS)
def test_a_gradient_is_added_to_what_is_there(name: str) -> None:
    space, tasks = space_for(name), Tasks(tasks=1, steps=STEPS).batch
    into = {n: torch.ones_like(value) for n, value in space.shared.items()}
    method(name).outer_gradient(space, per_task(space.shared, 1), tasks, into)
    expected = gradient(method(name), space, tasks)
    assert close(into, {n: 1 + value for n, value in expected.items()})


@pytest.mark.parametrize("name", METHODS)
def test_an_outcome_holds_the_losses_it_is_read_for(name: str) -> None:
    space = space_for(name)
    tasks = Tasks(tasks=space.limit or TASKS, steps=STEPS).batch
    start = per_task(space.shared, len(tasks.names))
    outcome = method(name).outer_gradient(space, start, tasks, zeros_like(space.shared))
    assert outcome.loss.shape == (len(tasks.names),)
    assert outcome.adapted is None
    assert not outcome.loss.requires_grad
    if name not in INNER:
        assert outcome.support_loss is None
        assert close(outcome.loss, space.loss_and_gradient(start, tasks.query)[0])
        return
    assert outcome.support_loss is not None
    assert outcome.support_loss.shape == (STEPS, len(tasks.names))
    assert close(outcome.support_loss[0], space.loss_and_gradient(start, tasks.support[0])[0])
    adapted = InnerLoop(steps=STEPS, optimizer=SGD).adapt(space, start, tasks.support)
    reads = METHODS[name].rule.reads_query
    expected = space.loss_and_gradient(adapted.values, tasks.query)[0] if reads else adapted.losses[-1]
    assert close(outcome.loss, expected)


def test_meta_lora_hands_out_the_adapted_values_when_asked() -> None:
    space, tasks = space_for("meta-lora"), Tasks(tasks=TASKS, steps=STEPS).batch
    inner, start = InnerLoop(steps=STEPS, optimizer=SGD), per_task(space.shared, TASKS)
    kept, plain = zeros_like(space.shared), zeros_like(space.shared)
    outcome = MetaLora(inner=inner, keep_task_adapters=True).outer_gradient(space, start, tasks, kept)
    MetaLora(inner=inner).outer_gradient(space, start, tasks, plain)
    assert same(kept, plain)
    assert outcome.adapted is not None
    assert same(outcome.adapted, inner.adapt(space, start, tasks.support).values)


def test_maml_refuses_an_inner_adamw() -> None:
    with pytest.raises(ValueError, match="inner SGD"):
        Maml(inner=InnerLoop(steps=1, optimizer=AdamW(lr=0.1)))


def test_the_table_names_a_rule_and_its_options() -> None:
    assert {name: (row.rule.__name__, row.space.name) for name, row in METHODS.items()} == {
        "fomaml": ("Fomaml", "all"),
        "maml": ("Maml", "all"),
        "reptile": ("Reptile", "all"),
        "joint": ("Joint", "all"),
        "fomaml-lora": ("Fomaml", "lora"),
        "maml-lora": ("Maml", "lora"),
        "meta-lora": ("MetaLora", "lora"),
        "reptile-lora": ("Reptile", "lora"),
        "joint-lora": ("Joint", "lora"),
        "in-context-lora": ("Joint", "lora"),
        "lora": ("Joint", "lora"),
    }
    assert [name for name, row in METHODS.items() if row.prompt == "in-context"] == ["in-context-lora"]
    assert [name for name, row in METHODS.items() if row.one_task] == ["lora"]
    assert MetaLora.options() == {"inner", "keep_task_adapters"}
    assert Fomaml.options() == Reptile.options() == {"inner"}


def test_traits_are_what_the_rules_do() -> None:
    rules = {row.rule for row in METHODS.values()}
    assert {rule for rule in rules if rule.second_order} == {Maml}
    assert {rule for rule in rules if rule.from_difference} == {Reptile}
    inner = InnerLoop(steps=1, optimizer=Sgd(lr=0.1))
    for rule in rules:
        made = [rule(**{"inner": inner} if "inner" in rule.options() else {})]
        made += [MetaLora(inner=inner, keep_task_adapters=True)] if rule is MetaLora else []
        assert [each.keeps_adapted for each in made] == [False, True][: len(made)]


@dataclass(frozen=True, kw_only=True)
class _Weighted(Fomaml):
    """A rule from elsewhere."""

    weight: float = option(0.5, means="number from 0 to 1", ge=0, le=1)
    kind: Literal["mild", "strong"] = "mild"
    rounds: int = 3


def test_a_rules_own_options_are_the_fields_of_its_dataclass() -> None:
    weight, kind, rounds = own_options(_Weighted)
    assert weight == ("weight", float, 0.5, "number from 0 to 1", {"ge": 0, "le": 1})
    assert (kind.default, kind.means) == ("mild", "mild or strong")
    assert (rounds.kind, rounds.means, rounds.limits) == (int, "whole number", {})
    assert own_options(Fomaml) == own_options(Joint) == []
