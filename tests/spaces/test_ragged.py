"""Tasks one behind the other, of unequally many tokens: the same as alone, padded, and in plain operators."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import close, examples, lora_space, of_task, perturbed, untouched
from innerloop.data.batches import collate
from innerloop.data.tasks import Batch, TaskBatch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS
from innerloop.numerics.optimizers import Sgd
from innerloop.numerics.tensors import TensorSet, per_task, zeros_like
from innerloop.spaces.lora import LoraSpace
from innerloop.spaces.ragged import add_updates
from tiny import tiny_model

TASKS = 3
SIZES = [2, 5, 1]


def batch(*, seed: int = 0, even: bool = False, masked: bool = False) -> Batch:
    made = collate(examples(tasks=TASKS, per_task=4, longest_prompt=30, seed=seed), packed=True, even=even)
    assert made.packing is not None
    assert len(set(made.packing.sizes)) == (1 if even else TASKS)
    return replace(made, mask_seeds=tuple(tuple(range(4 * t, 4 * t + 4)) for t in range(TASKS))) if masked else made


def found(space: LoraSpace, values: TensorSet, on: Batch) -> TensorSet:
    loss, gradient = space.loss_and_gradient(values, on)
    assert gradient is not None
    return {"loss": loss, **gradient}


def shifted(on: Batch) -> Batch:
    """The control: one token of the second task is taken for the first's."""
    assert on.packing is not None
    first, second, *rest = on.packing.sizes
    return replace(on, packing=replace(on.packing, sizes=(first + 1, second - 1, *rest)))


# in a model


@pytest.mark.parametrize("loss", [{}, {"checkpointing": True}, {"cut": 1}])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi3"])
def test_tasks_of_a_ragged_forward_are_as_many_forwards(family: str, dropout: float, loss: dict[str, Any]) -> None:
    """Law 1."""
    layers = {"layers": "last-1"} if "cut" in loss else {}
    space = lora_space(tiny_model(family, layers=2), loss=loss, lora_dropout=dropout, **layers)
    values, together = perturbed(space.shared, TASKS), batch(masked=dropout > 0)
    with untouched(space.model):
        every = found(space, values, together)
    for task in range(TASKS):
        alone = together.select(task, task + 1)
        assert alone.packing is not None
        assert close(of_task(every, task), found(space, of_task(values, task), alone))
    assert not close(found(space, values, shifted(together)), every, 1e-3)


def test_dropout_is_as_with_fillers_and_not_as_without_dropout() -> None:
    space = lora_space(tiny_model("llama", layers=2), lora_dropout=0.3)
    values = perturbed(space.shared, TASKS)
    dropped = found(space, values, batch(masked=True))
    assert close(found(space, values, batch(masked=True, even=True)), dropped)
    assert not close(found(space, values, batch()), dropped, 0.01)


@pytest.mark.parametrize("name", ["fomaml-lora", "maml-lora"])
def test_a_method_moves_the_shared_values_the_same_way(name: str) -> None:
    space = lora_space(tiny_model("llama", layers=2))
    method = METHODS[name].rule(inner=InnerLoop(steps=2, optimizer=Sgd(lr=0.1)))

    def outer(on: TaskBatch) -> TensorSet:
        into = zeros_like(space.shared)
        method.outer_gradient(space, per_task(space.shared, TASKS), on, into)
        return into

    support, query = [batch(seed=seed) for seed in (1, 2)], batch(seed=3)
    ragged = TaskBatch(("a", "b", "c"), support, query)
    padded = TaskBatch(ragged.names, [replace(each, packing=None) for each in support], replace(query, packing=None))
    assert close(outer(ragged), outer(padded), 1e-4 if name == "maml-lora" else 1e-5)
    assert not close(outer(ragged._replace(query=shifted(query))), outer(ragged), 1e-3)


def test_a_bfloat16_model_has_float32_gradients() -> None:
    exact, half = (lora_space(tiny_model("llama", layers=2).to(dtype)) for dtype in (torch.float32, torch.bfloat16))
    values = perturbed(exact.shared, TASKS)
    rounded = found(half, values, batch())
    assert {value.dtype for value in rounded.values()} == {torch.float32}
    assert close(rounded, found(exact, values, batch()), 0.2)


# by itself


def parts(*, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """y, x, A and B."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 4), (8, 3), (3, 2, 3), (3, 4, 2)]
    return [torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def added(y: Tensor, *given: Tensor, twice: bool = False) -> Tensor:
    return add_updates(y.clone(), *given, sizes=SIZES, scale=0.7, twice=twice)


def test_its_gradient_is_that_of_differences() -> None:
    assert torch.autograd.gradcheck(added, parts())
    assert torch.autograd.gradgradcheck(lambda *given: added(*given, twice=True), parts())
    assert added(*parts()).allclose(added(*parts(), twice=True))


def test_it_says_so_where_a_second_derivative_was_not_asked_for() -> None:
    given = parts()
    (first,) = torch.autograd.grad(added(*given).square().sum(), given[2], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_the_lowest_layers_input_takes_no_gradient() -> None:
    y, x, A, B = parts()
    expected = torch.autograd.grad(added(y, x, A, B).square().sum(), [A, B])
    y, x = y.detach(), x.detach()
    out = added(y, x, A, B)
    out.square().sum().backward()
    assert x.grad is None
    assert y.grad is None
    for value, gradient in zip((A, B), expected, strict=True):
        assert value.grad is not None
        assert value.grad.equal(gradient)


@pytest.mark.parametrize("twice", [True, False])
def test_it_adds_in_place_and_with_a_second_derivative_to_a_copy(twice: bool) -> None:
    y, *given = (part.detach() for part in parts())
    before = y.clone()
    out = add_updates(y, *given, sizes=SIZES, scale=0.7, twice=twice)
    assert not out.equal(before)
    assert y.equal(before if twice else out)
    assert (out.data_ptr() == y.data_ptr()) != twice


def test_leading_axes_stay() -> None:
    y, x, *matrices = parts()
    assert added(y.view(2, 4, 4), x.view(2, 4, 3), *matrices).equal(added(y, x, *matrices).view(2, 4, 4))
