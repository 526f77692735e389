"""A batch that goes through the model in parts gives what it gives whole: losses, gradients, every kind of step."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import all_space, close, examples, frozen_copy, lora_space, perturbed, same
from innerloop.data.batches import collate
from innerloop.data.tasks import Batch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW, Optimizer, Sgd
from innerloop.numerics.tensors import TensorSet, zeros_like
from innerloop.spaces.bounded import InParts
from innerloop.spaces.space import ParameterSpace
from tiny import tiny_model

EXAMPLES = 7
OPTIMIZERS = {"sgd": Sgd(lr=0.1), "clipped": Sgd(lr=0.5, clip=0.05), "adamw": AdamW(lr=0.01)}


def space_of(kind: str) -> ParameterSpace:
    model = tiny_model("llama", layers=2)
    if kind == "all":
        return all_space(model)
    cut = kind == "lora above a trunk"
    return lora_space(model, loss={"cut": 1}, layers=(1,)) if cut else lora_space(model)


KINDS = ["lora", "lora above a trunk", "all"]


def asked(space: ParameterSpace, *, packed: bool) -> tuple[TensorSet, Batch]:
    """Ragged examples whose numbers of scored tokens differ, so that a plain mean of the parts' means is wrong."""
    tasks = space.limit or 3
    rows = [
        [e for p in zip(short, long, strict=True) for e in p][:EXAMPLES]
        for short, long in zip(
            examples(tasks=tasks, per_task=EXAMPLES),
            examples(tasks=tasks + 3, per_task=EXAMPLES, longest_prompt=30)[3:],
            strict=True,
        )
    ]
    return perturbed(space.shared, tasks), collate(rows, packed=packed)


def largest_forward(model: nn.Module) -> list[int]:
    """The tokens of each forward from here on, the first layer's."""
    taken: list[int] = []
    layer: Any = model.get_submodule("model.layers.1")
    layer.self_attn.q_proj.register_forward_hook(lambda _, inputs, __: taken.append(inputs[0].shape[:-1].numel()))
    return taken


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("per_task", [1, 50, 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_of_the_parts_add_up_to_the_whole(kind: str, per_task: int, packed: bool) -> None:
    space = space_of(kind)
    values, batch = asked(space, packed=packed)
    tokens = per_task * batch.tasks
    before = frozen_copy(values)
    loss, gradient = space.loss_and_gradient(values, batch)
    whole = zeros_like(space.shared)
    space.loss_and_gradient(values, batch, into=whole)
    parted, taken = InParts(space, tokens=tokens), largest_forward(space.model)
    found_loss, found = parted.loss_and_gradient(values, batch)
    into = zeros_like(space.shared)
    found_into, nothing = parted.loss_and_gradient(values, batch, into=into)
    assert gradient is not None
    assert found is not None
    assert nothing is None
    assert close(found_loss, loss)
    assert close(found_into, loss)
    assert close(found, gradient)
    assert close(into, whole)
    assert same(values, before)
    forwards = {1: EXAMPLES, 10_000: 1}.get(per_task)
    assert len(taken) == 2 * forwards if forwards else len(taken) > 2
    assert per_task == 1 or max(taken) <= tokens
    product = parted.hessian_vector_product(values, batch, values)
    assert close(product, space.hessian_vector_product(values, batch, values))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_steps_in_parts_end_where_whole_ones_do(kind: str, name: str) -> None:
    """With the fused step of plain SGD, which moves values inside a backward pass, too."""
    space = space_of(kind)
    _, batch = asked(space, packed=True)
    values = {key: value.expand(space.limit or 3, *value.shape) for key, value in space.shared.items()}
    inner = InnerLoop(steps=3, optimizer=OPTIMIZERS[name])
    whole = inner.adapt(space, values, [batch])
    parted = inner.adapt(InParts(space, tokens=40), values, [batch])
    assert close(parted.losses, whole.losses)
    moved = {key: value - values[key] for key, value in whole.values.items()}
    assert close({key: value - values[key] for key, value in parted.values.items()}, moved, 1e-3)
    one_by_one = wrong_steps(space, values, batch, inner.optimizer)
    assert not close({key: value - values[key] for key, value in one_by_one.items()}, moved, 1e-2)


def wrong_steps(space: ParameterSpace, values: TensorSet, batch: Batch, optimizer: Optimizer) -> TensorSet:
    """What parts must not be: a step for each."""
    phi = space.fork(values)
    state = optimizer.init(phi)
    for _ in range(3):
        for part in batch.parts(40):
            space.descend(phi, state, part, optimizer)
    return phi


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_mean_of_the_parts_is_not_the_mean_of_all_tokens(kind: str) -> None:
    space = space_of(kind)
    values, batch = asked(space, packed=False)
    loss, _ = space.loss_and_gradient(values, batch)
    parts = batch.parts(40)
    unweighted: list[Tensor] = [
        space.loss_and_gradient(values, part)[0] / part.share for part in parts if part.share is not None
    ]
    assert len(unweighted) == len(parts) > 1
    assert not close(torch.stack(unweighted).mean(0), loss, 1e-3)
