"""What every space promises, held for each of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import (
    Tasks,
    all_space,
    close,
    frozen_copy,
    lora_space,
    own_names,
    perturbed,
    reference_model,
    relative_error,
    same,
    untouched,
)
from innerloop.data.tasks import Batch
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.numerics.tensors import TensorSet, dot, per_task, zeros_like
from innerloop.spaces.space import ParameterSpace, gradients, math_attention
from reference import naive
from tiny import tiny_model

SPACES: dict[str, Callable[..., ParameterSpace]] = {
    "lora": lambda model, **loss: lora_space(model, loss=loss),
    "all": all_space,
}
FAMILIES = ["llama", "gemma2"]  # an untied and a tied head, the tied one with soft caps


def build(kind: str, family: str = "llama", **loss: Any) -> tuple[ParameterSpace, TensorSet, Batch]:
    """A space, values of as many tasks as it takes in a forward, and their batch."""
    space = SPACES[kind](tiny_model(family, layers=2), **loss)
    tasks = space.limit or 3
    return space, perturbed(space.shared, tasks), Tasks(tasks=tasks).batch.support[0]


def use_installed(space: ParameterSpace, values: TensorSet, batch: Batch) -> None:
    with space.installed(values) as model:
        model(input_ids=batch.tokens.flatten(0, 1))


CALLS: dict[str, Callable[[ParameterSpace, TensorSet, Batch], object]] = {
    "gradient": lambda space, values, batch: space.loss_and_gradient(values, batch),
    "into": lambda space, values, batch: space.loss_and_gradient(values, batch, into=zeros_like(space.shared)),
    "hessian": lambda space, values, batch: space.hessian_vector_product(values, batch, values),
    "installed": use_installed,
} | {
    f"descend {optimizer}": lambda space, values, batch, optimizer=optimizer: space.descend(
        space.fork(values), optimizer.init(values), batch, optimizer
    )
    for optimizer in (Sgd(lr=0.1), Sgd(lr=0.1, clip=0.1), AdamW(lr=0.1))
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_leaves_model_values_and_shared_as_they_were(call: str, kind: str, family: str) -> None:
    space, values, batch = build(kind, family)
    space.model.get_parameter(next(n for n, _ in space.model.named_parameters() if "norm" in n)).requires_grad_(True)
    before = frozen_copy(values), frozen_copy(space.shared)
    with untouched(space.model):
        CALLS[call](space, values, batch)
    assert same(values, before[0])
    assert same(space.shared, before[1])


class Boom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        raise ArithmeticError("in the backward pass")


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("call", [name for name in CALLS if name != "installed"])
def test_an_exception_leaves_no_trace_either(call: str, where: str, kind: str) -> None:
    space, values, batch = build(kind)
    loss = space.loss

    def broken(batch: Batch, *, twice: bool = False) -> Tensor:
        value = loss(batch, twice=twice)
        if where == "forward":
            raise ArithmeticError("in the forward pass")
        return Boom.apply(value)  # pyright: ignore[reportReturnType]

    space.loss = broken
    with untouched(space.model), pytest.raises(ArithmeticError, match=f"in the {where} pass"):
        CALLS[call](space, values, batch)
    space.loss = loss
    clean, _, _ = build(kind)
    assert same(space.loss_and_gradient(values, batch)[1] or {}, clean.loss_and_gradient(values, batch)[1] or {})


@pytest.mark.parametrize("kind", SPACES)
def test_an_exception_while_values_are_installed_puts_the_model_back(kind: str) -> None:
    space, values, _ = build(kind)
    with untouched(space.model), pytest.raises(ArithmeticError), space.installed(values):
        raise ArithmeticError


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("call", ["gradient", "hessian", "installed"])
def test_values_that_lack_a_tensor_are_refused_without_a_trace(call: str, kind: str) -> None:
    space, values, batch = build(kind)
    del values[list(values)[-1]]
    with untouched(space.model), pytest.raises(KeyError):
        CALLS[call](space, values, batch)


def test_untouched_notices_a_change() -> None:
    """The negative control of law 6."""
    model = tiny_model("llama", layers=1)
    parameter = next(model.parameters())
    changes: list[Callable[[], object]] = [
        lambda: parameter.data.view(-1)[0].add_(1e-6),
        lambda: parameter.requires_grad_(True),
        lambda: setattr(parameter, "data", parameter.data.clone()),
        lambda: model.register_forward_hook(lambda *_: None),
        lambda: setattr(parameter, "grad", torch.zeros_like(parameter)),
    ]
    for change in changes:
        with pytest.raises(AssertionError), untouched(model):
            change()


@pytest.mark.parametrize("kind", SPACES)
def test_installed_values_answer_and_record_no_graph(kind: str) -> None:
    space, values, batch = build(kind)
    inputs = batch.tokens.flatten(0, 1)
    with torch.no_grad():
        own = space.model(input_ids=inputs).logits
    with space.installed(values) as model:
        logits = model(input_ids=inputs).logits
    assert not logits.requires_grad
    assert relative_error(logits, own) > 1e-2


@pytest.mark.parametrize("kind", SPACES)
def test_a_fork_is_a_writable_float32_copy(kind: str) -> None:
    space, _, _ = build(kind)
    before = frozen_copy(space.shared)
    fork = space.fork(per_task({name: value.bfloat16() for name, value in space.shared.items()}, 2))
    assert {value.dtype for value in fork.values()} == {torch.float32}
    fork = space.fork(per_task(space.shared, 2))
    for name, value in fork.items():
        assert torch.equal(value[1], before[name])
        value[0] += 1
        assert torch.equal(value[1], before[name])
    assert same(space.shared, before)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", SPACES)
def test_into_adds_the_sum_over_tasks(kind: str, family: str) -> None:
    space, values, batch = build(kind, family)
    losses, gradient = space.loss_and_gradient(values, batch)
    assert gradient is not None
    into = {name: torch.ones_like(value) for name, value in space.shared.items()}
    again, nothing = space.loss_and_gradient(values, batch, into=into)
    assert nothing is None
    assert torch.equal(losses, again)
    assert close(into, {name: 1 + value.sum(0) for name, value in gradient.items()})
    assert relative_error({n: v - 1 for n, v in into.items()}, {n: v.sum(0) for n, v in gradient.items()}) < 1e-3


def random_like(values: TensorSet, *, seed: int) -> TensorSet:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator) for name, value in values.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_hessian_vector_products_are_those_of_a_second_backward_pass(
    checkpointing: bool, kind: str, family: str
) -> None:
    space, values, batch = build(kind, family, checkpointing=checkpointing)
    support = Tasks(tasks=batch.tasks).support[0]
    vector = random_like(values, seed=3)
    product = space.hessian_vector_product(values, batch, vector)
    for task, examples in enumerate(support):
        model = reference_model(space, {name: value[task] for name, value in values.items()})
        inputs = naive.trainable(model)
        with math_attention():
            first = torch.autograd.grad(naive.loss(model, examples), list(inputs.values()), create_graph=True)
            along = sum((g * vector[n][task]).sum() for n, g in zip(own_names(inputs), first, strict=True))
            second = torch.autograd.grad(along, list(inputs.values()))
        expected = dict(zip(own_names(inputs), second, strict=True))
        ours = {name: value[task] for name, value in product.items()}
        assert close(ours, expected)
        assert not close(ours, own_names(dict(zip(inputs, first, strict=True))), 0.1), "a gradient isn't a Hessian"
        if batch.tasks > 1:
            assert not close({name: value[task - 1] for name, value in product.items()}, expected, 0.1)


@pytest.mark.parametrize("kind", SPACES)
def test_the_hessian_is_symmetric(kind: str) -> None:
    space, values, batch = build(kind)
    u, v = (random_like(values, seed=seed) for seed in (1, 2))
    left = dot(u, space.hessian_vector_product(values, batch, v))
    right = dot(v, space.hessian_vector_product(values, batch, u))
    assert close(left, right, 1e-4)
    assert not close(left, dot(u, u), 1e-1)


@pytest.mark.parametrize("kind", SPACES)
def test_gradients_are_finite_and_every_tensor_has_one(kind: str) -> None:
    space, values, batch = build(kind)
    _, gradient = space.loss_and_gradient(values, batch)
    assert gradient is not None
    assert list(gradient) == list(space.shared)
    for name, value in gradient.items():
        assert value.shape == values[name].shape
        assert value.abs().max() > 0, name


def test_gradients_of_an_unused_input_are_zero() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    assert [g.tolist() for g in gradients(2 * used, [used, unused])] == [[2, 2], [0, 0, 0]]


def test_lora_trains_less_than_all_and_says_so() -> None:
    lora, everything = (build(kind)[0].trained() for kind in SPACES)
    model = tiny_model("llama", layers=2)
    count = sum(parameter.numel() for parameter in model.parameters())
    linears = [m for layer in model.model.layers for m in layer.modules() if isinstance(m, nn.Linear)]
    assert (everything.parameters, everything.model_parameters, everything.percent) == (count, count, 100.0)
    assert lora.parameters == sum(3 * (m.in_features + m.out_features) for m in linears)
    assert (lora.tensors, len(lora.modules)) == (2 * len(linears), len(linears))
