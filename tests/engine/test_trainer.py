"""The outer loop: laws 1 and 4 over several steps, law 6, and what happens when a number is not finite."""

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import (
    Tasks,
    all_space,
    close,
    frozen_copy,
    lora_space,
    own_names,
    reference_model,
    relative_error,
    same,
    untouched,
)
from innerloop.data.tasks import Batch, TaskBatch
from innerloop.engine.last_round import LastRound
from innerloop.engine.metrics import Metrics
from innerloop.engine.trainer import Trainer
from innerloop.errors import RunError
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS, Maml, MetaLora, Method
from innerloop.numerics.optimizers import AdamW, Optimizer, Sgd
from innerloop.numerics.tensors import TensorSet, accumulate, clone, largest, zeros_like
from innerloop.spaces.lora import LoraSettings, LoraSpace
from innerloop.spaces.loss import AnswerLoss
from innerloop.spaces.space import ParameterSpace
from reference import naive
from tiny import tiny_model

TASKS, STEPS, ROUNDS = 4, 2, 3
INNER = Sgd(lr=0.2, clip=1.0)
ADAMW: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-3, "weight_decay": 0.1}
OUTER = AdamW(lr=0.02, clip=0.1, **ADAMW)
SPACES: dict[str, Callable[..., ParameterSpace]] = {
    "lora": lora_space,
    "all": all_space,
}
NAMES = [
    "fomaml",
    "maml",
    "reptile",
    "joint",
    "fomaml-lora",
    "maml-lora",
    "meta-lora",
    "reptile-lora",
    "joint-lora",
]


def method(name: str, inner: Optimizer = INNER) -> Method:
    rule = METHODS[name].rule
    return rule(**{"inner": InnerLoop(steps=STEPS, optimizer=inner)} if "inner" in rule.options() else {})


def build(name: str = "fomaml-lora", *, outer: Optimizer = OUTER, inner: Optimizer = INNER, **settings: Any) -> Trainer:
    model = tiny_model("llama", layers=2)
    return Trainer(SPACES[METHODS[name].space.name](model), method(name, inner), outer, **settings)


def rounds(count: int = ROUNDS) -> list[Tasks]:
    return [Tasks(tasks=TASKS, steps=STEPS, seed=seed) for seed in range(count)]


def trained(trainer: Trainer, batches: list[TaskBatch]) -> TensorSet:
    for batch in batches:
        trainer.step(batch)
    return trainer.space.shared


@pytest.mark.parametrize("name", ["fomaml", "maml-lora", "meta-lora", "reptile-lora", "joint"])
def test_several_outer_steps_are_those_of_torch_optim(name: str) -> None:
    """Law 4 over time: AdamW with weight decay and a clipped outer gradient."""
    trainer = build(name)
    start = frozen_copy(trainer.space.shared)
    model = reference_model(trainer.space, start)
    groups = [{"params": [value]} for value in naive.trainable(model).values()]
    optimizer = naive.adamw(groups, lr=OUTER.lr, **ADAMW)
    inner = naive.Inner(steps=STEPS, lr=INNER.lr, clip=INNER.clip)
    naive.train(name, model, [tasks.each for tasks in rounds()], inner, optimizer, clip=OUTER.clip)
    shared = trained(trainer, [tasks.batch for tasks in rounds()])
    expected = own_names(naive.trainable(model))
    assert close(shared, expected)
    moved, should = (({n: v - start[n] for n, v in values.items()}) for values in (shared, expected))
    assert close(moved, should, 2e-4)  # a difference of neighbours keeps fewer digits
    for wrong in ({"clip": None}, {"lr": 0.021}, {"weight_decay": 0.3}):
        other = trained(build(name, outer=replace(OUTER, **wrong)), [tasks.batch for tasks in rounds()])
        assert not close({n: v - start[n] for n, v in other.items()}, should, 2e-3), wrong


@pytest.mark.parametrize("name", ["fomaml-lora", "maml-lora"])
def test_the_chunk_size_changes_nothing_over_several_steps(name: str) -> None:
    """Law 1 (and 5): tasks split 4 = 3 + 1 = 1 x 4. The outer SGD sees the gradient's scale, as AdamW wouldn't."""
    batches, outer = [tasks.batch for tasks in rounds()], Sgd(lr=0.2)
    together = trained(build(name, outer=outer), batches)
    for size in (1, 3):
        assert close(trained(build(name, outer=outer, tasks_per_forward=size), batches), together)
    again = (trained(build(name, outer=outer, tasks_per_forward=3), batches) for _ in range(2))
    assert same(*again), "repeats with the same chunks are equal bit by bit"
    assert not close(trained(build(name, outer=outer), batches[::-1]), together, 1e-4)


def test_all_parameters_take_one_task_a_forward_whatever_is_asked() -> None:
    assert build("fomaml").tasks_per_forward == 1
    assert build("fomaml", tasks_per_forward=3).tasks_per_forward == 1
    assert build("fomaml-lora", tasks_per_forward=3).tasks_per_forward == 3
    assert build("fomaml-lora").tasks_per_forward is None


@pytest.mark.parametrize(
    ("name", "outer"),
    [("fomaml-lora", Sgd(lr=0.0))] + [(name, AdamW(lr=0.0, weight_decay=0.1)) for name in NAMES],
)
def test_an_outer_rate_of_zero_leaves_everything_as_it_was(name: str, outer: Optimizer) -> None:
    """Law 6, with a gradient that isn't zero."""
    trainer = build(name, outer=outer)
    before = frozen_copy(trainer.space.shared)
    with untouched(trainer.space.model):
        metrics = trainer.step(rounds()[0].batch)
    assert metrics.gradient_norm > 0.01
    assert same(trainer.space.shared, before)
    moving = build(name, outer=Sgd(lr=1e-3))
    moving.step(rounds()[0].batch)
    assert not same(moving.space.shared, before)


def test_lora_training_never_writes_the_model() -> None:
    trainer = build("fomaml-lora")
    before = frozen_copy(trainer.space.shared)
    with untouched(trainer.space.model):
        trained(trainer, [tasks.batch for tasks in rounds()])
    assert relative_error(trainer.space.shared, before) > 1e-2


@pytest.mark.parametrize("name", ["fomaml-lora", "fomaml", "joint-lora"])
def test_metrics_are_means_over_the_tasks(name: str) -> None:
    trainer, tasks = build(name, tasks_per_forward=3), rounds()[0]
    model = reference_model(trainer.space, trainer.space.shared)
    inner = naive.Inner(steps=STEPS, lr=INNER.lr, clip=INNER.clip)
    gradient = naive.outer_gradient(name, model, tasks.each, inner)
    metrics = trainer.step(tasks.batch)
    length = torch.stack([value.norm() for value in gradient.values()]).norm().item()
    assert metrics.gradient_norm == pytest.approx(length, rel=1e-4)
    assert (metrics.step, trainer.steps) == (1, 1)
    assert metrics.tokens == trainer.method.tokens(tasks.batch)

    def mean(losses: list[Tensor]) -> float:
        return torch.stack(losses).mean().item()

    if name == "joint-lora":
        assert metrics.support_loss_first is metrics.support_loss_last is None
        assert metrics.loss == pytest.approx(mean([naive.loss(model, query) for _, query in tasks.each]), rel=1e-4)
        return
    after = {k: [naive.adapt(model, support[:k], inner) for support, _ in tasks.each] for k in (STEPS - 1, STEPS)}
    queries = [naive.loss(adapted, query) for adapted, (_, query) in zip(after[STEPS], tasks.each, strict=True)]
    first = [naive.loss(model, support[0]) for support, _ in tasks.each]
    last = [naive.loss(m, support[-1]) for m, (support, _) in zip(after[STEPS - 1], tasks.each, strict=True)]
    assert metrics.loss == pytest.approx(mean(queries), rel=1e-4)
    assert metrics.support_loss_first == pytest.approx(mean(first), rel=1e-4)
    assert metrics.support_loss_last == pytest.approx(mean(last), rel=1e-4)


class NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        return grad_outputs[0] * float("nan")


class Spoiled:
    """A task loss that goes wrong on the batches of one length, for the last of their tasks."""

    def __init__(self, loss: Any, batch: Batch, number: float | str) -> None:
        self.loss, self.ids, self.number = loss, batch.example_ids[-1], number

    def __call__(self, batch: Batch, *, twice: bool = False) -> Tensor:
        value = self.loss(batch, twice=twice)
        if batch.example_ids[-1] != self.ids:
            return value
        if self.number == "nan gradient":
            return torch.cat([value[:-1], NanGradient.apply(value[-1:])])  # pyright: ignore
        last = torch.zeros_like(value)
        last[-1] = self.number
        return value + last


SIDES = ("support", "query")
NUMBERS: list[float | str] = [float("nan"), float("inf"), -float("inf"), "nan gradient"]
SPOILED = [(name, side, n) for name in ("fomaml", "fomaml-lora") for side in ("support", "query") for n in NUMBERS]
SPOILED += [("maml-lora", "query", "nan gradient"), ("reptile-lora", "support", "nan gradient")]


@pytest.mark.parametrize(("name", "side", "number"), SPOILED)
def test_what_is_not_finite_stops_the_step_before_anything_is_written(name: str, side: str, number: Any) -> None:
    """A loss may be infinite where its gradient is finite, and the other way round."""
    trainer, clean = build(name), build(name)
    first, second, third = (tasks.batch for tasks in rounds())
    for each in (trainer, clean):
        each.step(first)
    before = (
        frozen_copy(trainer.space.shared),
        frozen_copy(trainer._state.first),
        frozen_copy(trainer._state.second),
    )
    loss = trainer.space.loss
    spoiled = second.support[-1] if side == "support" else second.query
    assert spoiled is not None
    trainer.space.loss = Spoiled(loss, spoiled, number)
    with (
        untouched(trainer.space.model),
        pytest.raises(RunError, match=r"step 2.*not a finite number") as error,
    ):
        trainer.step(second)
    if number != "nan gradient":
        assert "the loss of task 3 is" in str(error.value)
    assert same(trainer.space.shared, before[0])
    assert same(trainer._state.first, before[1])
    assert same(trainer._state.second, before[2])
    assert (trainer.steps, trainer._state.steps) == (1, 1)
    trainer.space.loss = loss
    for each in (trainer, clean):
        each.step(third)
    assert same(trainer.space.shared, clean.space.shared), "the refused step left a trace"


@pytest.mark.parametrize("chunks", [None, 1])
@pytest.mark.parametrize(("name", "side", "number"), SPOILED)
def test_a_task_that_is_not_finite_is_skipped_when_asked(name: str, side: str, number: Any, chunks: int | None) -> None:
    """The step is that of the other tasks alone, and says whom it left out."""
    trainer = build(name, skip_non_finite=True, tasks_per_forward=chunks)
    others = build(name, tasks_per_forward=chunks)
    batch = rounds()[0].batch
    spoiled = batch.support[-1] if side == "support" else batch.query
    assert spoiled is not None
    trainer.space.loss = Spoiled(trainer.space.loss, spoiled, number)
    metrics, expected = trainer.step(batch), others.step(batch.select(0, TASKS - 1))
    assert metrics.skipped == (batch.names[-1],)
    assert same(trainer.space.shared, others.space.shared)
    counts = {name: getattr(metrics, name) for name in ("tokens", "computed_tokens", "passes")}
    assert metrics == expected._replace(skipped=metrics.skipped, **counts)
    assert metrics.tokens > expected.tokens, "the round that was thrown away went through the model"
    assert (trainer.steps, trainer._state.steps) == (1, 1)


def test_a_step_without_any_sound_task_is_refused() -> None:
    trainer = build(inner=Sgd(lr=1e30), skip_non_finite=True)
    before = frozen_copy(trainer.space.shared)
    with pytest.raises(RunError, match="not a finite number"):
        trainer.step(rounds()[0].batch)
    assert same(trainer.space.shared, before)


def test_tasks_that_are_broken_in_company_alone_are_refused() -> None:
    """Skipping would leave out nobody, for ever."""
    trainer = build("joint-lora", skip_non_finite=True)
    loss: Any = trainer.space.loss

    def together(batch: Batch, *, twice: bool = False) -> Tensor:
        value = loss(batch, twice=twice)
        return value if batch.tasks == 1 else NanGradient.apply(value)  # pyright: ignore

    trainer.space.loss = together
    with pytest.raises(RunError, match="the outer gradient is not"):
        trainer.step(rounds()[0].batch)


def test_an_inner_rate_that_explodes_is_named() -> None:
    """With the task, the step, the course of its loss, and the rate to try."""
    trainer = build(inner=Sgd(lr=1e30))
    said = r"step 1: the loss of task 0.* before each inner step was [0-9.]+, (nan|inf)"
    with pytest.raises(RunError, match=rf"{said}.*method\.inner\.optimizer\.lr = 1e\+30 .*try 1e\+29"):
        trainer.step(rounds()[0].batch)


@pytest.mark.parametrize("name", ["fomaml-lora", "fomaml"])
def test_a_new_trainer_goes_on_where_another_was(name: str) -> None:
    first, second, third = (tasks.batch for tasks in rounds())
    whole, before, after, forgetful = build(name), build(name), build(name), build(name)
    expected = frozen_copy(trained(whole, [first, second, third]))
    trained(before, [first, second])
    for trainer in (after, forgetful):
        for key, value in trainer.tensors.items():
            value.copy_(before.tensors[key])
    after.go_on_from(2)
    assert same(trained(after, [third]), expected)
    assert not same(trained(forgetful, [third]), expected), "the count of steps is part of the state"


def test_what_a_round_left_is_kept_under_plain_names() -> None:
    trainer = keeping()
    trained(trainer, [rounds()[0].batch])
    last = trainer.last_round
    again = LastRound.from_tensors(last.tensors, last.query_ids)
    assert again.query_ids == last.query_ids
    assert same(again.gradient, last.gradient)
    assert again.adapters.keys() == last.adapters.keys()
    assert all(same(again.adapters[task], values) for task, values in last.adapters.items())


@pytest.mark.parametrize("name", ["fomaml-lora", "fomaml"])
def test_an_interrupted_step_is_dropped_and_can_be_replayed(name: str) -> None:
    """An exception between chunks, as a stop request is one."""
    trainer, clean = build(name, tasks_per_forward=1), build(name, tasks_per_forward=1)
    before, loss, batch = frozen_copy(trainer.space.shared), trainer.space.loss, rounds()[0].batch
    calls: list[int] = []

    def interrupted(batch: Batch, *, twice: bool = False) -> Tensor:
        calls.append(1)
        if len(calls) > 2 * (STEPS + 1):
            raise KeyboardInterrupt
        return loss(batch, twice=twice)

    trainer.space.loss = interrupted
    with untouched(trainer.space.model), pytest.raises(KeyboardInterrupt):
        trainer.step(batch)
    assert same(trainer.space.shared, before)
    trainer.space.loss = loss
    for each in (trainer, clean):
        each.step(batch)
    assert same(trainer.space.shared, clean.space.shared)


def keeping() -> Trainer:
    rule = MetaLora(inner=InnerLoop(steps=STEPS, optimizer=INNER), keep_task_adapters=True)
    return Trainer(lora_space(tiny_model("llama", layers=2)), rule, OUTER, tasks_per_forward=3)


def test_the_kept_adapters_give_the_recorded_gradient() -> None:
    """META-LORA's two stages, checked from what a round leaves behind."""
    trainer, (first, tasks) = keeping(), rounds(2)
    trainer.step(first.batch)
    start = frozen_copy(trainer.space.shared)
    trainer.step(tasks.batch)
    kept, query = trainer.last_round, tasks.batch.query
    assert query is not None
    assert list(kept.adapters) == list(tasks.names)
    averaged = zeros_like(start)
    for task, name in enumerate(tasks.names):
        assert kept.query_ids[name] == query.example_ids[task]
        assert relative_error(kept.adapters[name], start) > 1e-3
        values = {key: value[None] for key, value in kept.adapters[name].items()}
        _, gradient = trainer.space.loss_and_gradient(values, query.select(task, task + 1))
        accumulate(averaged, gradient or {}, 1 / TASKS)
    assert close(kept.gradient, averaged)
    swapped = kept.adapters[tasks.names[0]]
    _, other = trainer.space.loss_and_gradient({k: v[None] for k, v in swapped.items()}, query.select(1, 2))
    _, own = trainer.space.loss_and_gradient(
        {k: v[None] for k, v in kept.adapters[tasks.names[1]].items()}, query.select(1, 2)
    )
    assert not close(other or {}, own or {}, 1e-2)


def test_keeping_the_adapters_changes_no_number_and_others_keep_none() -> None:
    trainer, plain = keeping(), build("meta-lora", tasks_per_forward=3)
    batches = [tasks.batch for tasks in rounds()]
    assert same(trained(trainer, batches), trained(plain, batches))
    assert plain.last_round == LastRound()
    norm = torch.stack([value.norm() for value in trainer.last_round.gradient.values()]).norm()
    assert norm > 1.01 * (OUTER.clip or 0), "recorded before the outer optimizer clips it"


@pytest.mark.parametrize("name", ["fomaml-lora", "fomaml"])
def test_a_bfloat16_model_is_trained_in_float32(name: str) -> None:
    """A frozen base is not written; a model that is trained holds the float32 masters."""
    model = tiny_model("llama", layers=2).bfloat16()
    space = SPACES[METHODS[name].space.name](model)
    trainer = Trainer(space, method(name), AdamW(lr=1e-5))
    before = frozen_copy(space.shared)
    with untouched(model) if METHODS[name].space.reads_lora else nullcontext():
        trainer.step(rounds()[0].batch)
    for value in space.shared.values():
        assert value.dtype == torch.float32
    assert not same(space.shared, before)


@pytest.mark.parametrize("name", ["fomaml", "joint-lora"])
def test_values_beyond_a_sane_size_are_warned_of_once(name: str) -> None:
    """Whether or not the numbers stay finite there. Training that goes well says nothing: the control."""
    wild = build(name, outer=Sgd(lr=1e5, clip=1.0))

    def train() -> None:
        with suppress(RunError):  # what such values make of a loss differs between processors
            trained(wild, [tasks.batch for tasks in rounds()])

    with pytest.warns(RuntimeWarning, match=r"step 1: training diverges[\s\S]*outer\.optimizer\.lr") as said:
        train()
    assert sum("diverges" in str(each.message) for each in said) == 1
    assert largest(wild.space.shared) > 1e3
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        trained(build(name), [tasks.batch for tasks in rounds()])


# what went through the model


@contextmanager
def counted(model: Any) -> Iterator[dict[str, int]]:
    """Tokens of examples that were embedded, where padding is id 0, which no example has; and all that a layer saw."""
    seen = {"tokens": 0, "computed_tokens": 0}

    def embedded(_: Any, args: Any, __: Any) -> None:
        seen["tokens"] += int((args[0] != 0).sum())

    def computed(_: Any, args: Any, __: Any) -> None:
        seen["computed_tokens"] += args[0].shape[:-1].numel()

    handles = [
        model.get_input_embeddings().register_forward_hook(embedded),
        model.model.layers[-1].self_attn.q_proj.register_forward_hook(computed),
    ]
    yield seen
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("tasks_per_forward", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_tokens_are_those_that_went_through_the_model(name: str, tasks_per_forward: int, clip: float | None) -> None:
    """Against a counter on the embedding: Hessian-vector products and the passes of clipping are forwards too."""
    trainer = build(name, inner=Sgd(lr=0.05, clip=clip), tasks_per_forward=tasks_per_forward)
    batch = rounds()[0].batch
    tasks = batch.select(0, 1) if METHODS[name].one_task else batch
    with counted(trainer.space.model) as seen:
        metrics = trainer.step(tasks)
    assert (metrics.tokens, metrics.computed_tokens) == (seen["tokens"], seen["computed_tokens"])
    assert metrics.tokens == trainer.method.tokens(tasks)
    if METHODS[name].rule is Maml:
        once = sum(each.token_count for each in tasks.batches)
        assert metrics.tokens > 1.5 * once, "the control: each batch counted once"


@pytest.mark.parametrize("name", ["fomaml-lora", "maml", "reptile"])
def test_an_outer_step_takes_as_many_inner_steps_as_it_drew(name: str) -> None:
    """1, 3 and 2 of at most 3, each the naive method's with so many."""
    rule = METHODS[name].rule(inner=InnerLoop(steps=3, optimizer=Sgd(lr=0.2)))  # pyright: ignore[reportCallIssue]
    drawn = [(steps, Tasks(tasks=2, steps=steps, seed=steps)) for steps in (1, 3, 2)]

    def trained_on(batches: list[TaskBatch]) -> tuple[Trainer, list[Metrics]]:
        trainer = Trainer(SPACES[METHODS[name].space.name](tiny_model("llama", layers=2)), rule, Sgd(lr=0.1))
        return trainer, [trainer.step(batch) for batch in batches]

    trainer, found = trained_on([tasks.batch for _, tasks in drawn])
    start, _ = trained_on([])
    model = reference_model(start.space, start.space.shared)
    optimizer = torch.optim.SGD(naive.trainable(model).values(), lr=0.1)
    for steps, tasks in drawn:
        naive.train(name, model, [tasks.each], naive.Inner(steps, lr=0.2), optimizer, clip=1e9)
    expected = own_names(naive.trainable(model))
    assert close(trainer.space.shared, expected)
    assert [each.inner_steps for each in found] == [1, 3, 2]
    inner, query = (2 if name == "maml" else 1), (0 if name == "reptile" else 1)
    assert [each.passes for each in found] == [2 * (steps * inner + query) for steps in (1, 3, 2)]
    other, _ = trained_on([tasks.batch._replace(support=tasks.batch.support[:1]) for _, tasks in drawn])
    assert not close(other.space.shared, expected, 1e-3), "the control: one step each time"


@pytest.mark.parametrize("name", ["fomaml-lora", "maml-lora", "reptile"])
def test_the_inner_rate_of_a_warm_up_is_that_of_its_outer_step(name: str) -> None:
    """Law 4 over time: the naive method with another rate in each round; the control: the whole rate in all."""
    rule = METHODS[name].rule(inner=InnerLoop(steps=STEPS, optimizer=INNER, warmup=2))  # pyright: ignore[reportCallIssue]
    trainer = Trainer(SPACES[METHODS[name].space.name](tiny_model("llama", layers=2)), rule, Sgd(lr=0.1))
    model = reference_model(trainer.space, trainer.space.shared)
    optimizer = torch.optim.SGD(naive.trainable(model).values(), lr=0.1)
    for tasks, share in zip(rounds(), (0.1, 0.55, 1.0), strict=True):
        inner = naive.Inner(STEPS, share * INNER.lr, INNER.clip)
        naive.train(name, model, [tasks.each], inner, optimizer, clip=1e9)
    batches = [tasks.batch._replace(step=step) for step, tasks in enumerate(rounds())]
    expected = own_names(naive.trainable(model))
    assert close(trained(trainer, batches), expected)
    assert not close(trained(build(name, outer=Sgd(lr=0.1)), batches), expected, 1e-3)


def test_without_an_inner_step_it_is_joint_training_on_the_query() -> None:
    """K = 0: bit for bit, and there is no support loss to tell."""
    trainer, joint = build("fomaml-lora"), build("joint-lora")
    for tasks in rounds():
        none, plain = (each.step(tasks.batch._replace(support=[])) for each in (trainer, joint))
        assert none == plain._replace(inner_steps=0)
    assert same(trainer.space.shared, joint.space.shared)


def test_with_a_trunk_tokens_are_those_of_the_trained_layers() -> None:
    """The layers below run once for each example, which counts for nothing: the same budget buys the same steps."""
    tasks = rounds()[0].batch
    found: list[Metrics] = []
    for cut in (0, 1):
        space = lora_space(tiny_model("llama", layers=2), loss={"cut": cut}, layers="last-1")
        trainer = Trainer(space, method("fomaml-lora"), OUTER)
        for _ in range(2):
            with counted(space.model) as seen:
                found.append(trainer.step(tasks))
            assert found[-1].computed_tokens == seen["computed_tokens"]
    assert len({each.tokens for each in found}) == 1


def test_tokens_of_tasks_that_were_left_out_went_through_the_model_too() -> None:
    trainer, tasks = build("fomaml-lora", skip_non_finite=True), rounds()[0].batch
    assert tasks.query is not None
    trainer.space.loss = Spoiled(trainer.space.loss, tasks.query, float("nan"))
    with counted(trainer.space.model) as seen:
        metrics = trainer.step(tasks)
    assert metrics.skipped
    assert metrics.tokens == seen["tokens"] > trainer.method.tokens(tasks)


# memory that runs out


class Narrow(LoraSpace):
    """A space on a device where no more than `most` tasks go through a forward."""

    most = 2

    def loss_and_gradient(self, values: Any, batch: Batch, *, into: TensorSet | None = None) -> Any:
        if batch.tasks > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss_and_gradient(values, batch, into=into)


def narrow(most: int, **settings: Any) -> Trainer:
    model = tiny_model("llama", layers=2)
    space = Narrow(model, AnswerLoss(model), LoraSettings(r=2), seed=0)
    space.most = most
    return Trainer(space, method("fomaml-lora"), OUTER, **settings)


@pytest.mark.parametrize(("most", "reached"), [(2, 2), (3, 2), (1, 1)])
def test_a_step_that_memory_is_too_small_for_is_repeated_with_half_the_tasks(most: int, reached: int) -> None:
    """The numbers are those of a run that was begun with so many."""
    halved, told = narrow(most), narrow(TASKS, tasks_per_forward=reached)
    batches = [each.batch for each in rounds()]
    with pytest.warns(RuntimeWarning, match="memory ran out with 4 tasks per forward pass; from here on it is 2"):
        first = halved.step(batches[0])
    assert halved.tasks_per_forward == reached
    assert first == told.step(batches[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert [halved.step(batch) for batch in batches[1:]] == [told.step(batch) for batch in batches[1:]]
    assert same(halved.space.shared, told.space.shared)
    assert not same(halved.space.shared, trained(narrow(TASKS), batches)), "another number has other last bits"


def test_noise_is_drawn_again_where_a_step_is_repeated() -> None:
    """Else a repeated step would round other numbers up and down."""

    class Noisy(Narrow):
        def fork(self, start: Any) -> TensorSet:
            return {name: value + 1e-3 * torch.rand_like(value) for name, value in super().fork(start).items()}

    def noisy(most: int, **settings: Any) -> Trainer:
        model = tiny_model("llama", layers=2)
        space = Noisy(model, AnswerLoss(model), LoraSettings(r=2), seed=0)
        space.most = most
        return Trainer(space, method("fomaml-lora"), OUTER, **settings)

    batch = Tasks(tasks=TASKS, steps=STEPS).batch
    halved, told = noisy(2), noisy(TASKS, tasks_per_forward=2)
    with pytest.warns(RuntimeWarning, match="memory ran out"):
        halved.step(batch)
    told.step(batch)
    assert same(halved.space.shared, told.space.shared)


def test_a_single_task_that_memory_is_too_small_for_ends_the_run() -> None:
    trainer = narrow(0)
    before = clone(trainer.space.shared)
    with pytest.warns(RuntimeWarning, match="1 begins with that"), pytest.raises(torch.OutOfMemoryError):
        trainer.step(Tasks(tasks=TASKS, steps=STEPS).batch)
    assert same(trainer.space.shared, before)
    assert trainer.steps == 0


# how deep it goes


@pytest.mark.parametrize("name", ["fomaml", "maml-lora", "fomaml-lora", "joint-lora"])
def test_few_functions_stand_between_a_step_and_the_loss(name: str) -> None:
    trainer, depths = build(name), list[list[str]]()
    loss = trainer.space.loss

    def counted(batch: Batch, *, twice: bool = False) -> Tensor:
        names = [frame.name for frame in traceback.extract_stack()]
        depths.append(names[names.index("step") + 1 : -1])
        return loss(batch, twice=twice)

    trainer.space.loss = counted
    trainer.step(Tasks(tasks=TASKS, steps=STEPS).batch)
    assert max(map(len, depths)) <= 8, max(depths, key=len)
    assert depths[0][:2] == ["_round", "_outer_gradient"]
