import pytest
import torch
from torch import Tensor, nn

from helpers import (
    Tasks,
    all_space,
    close,
    frozen_copy,
    own_names,
    perturbed,
    reference_model,
    relative_error,
    same,
    untouched,
)
from innerloop.data.tasks import Batch
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.all_parameters import AllParameters
from innerloop.spaces.space import ParameterSpace
from reference import naive
from tiny import FAMILIES, tiny_model


def batch(seed: int = 0) -> Batch:
    return Tasks(tasks=1, seed=seed).batch.support[0]


def gradient(space: ParameterSpace, values: TensorSet, batch: Batch) -> TensorSet:
    _, found = space.loss_and_gradient(values, batch)
    assert found is not None
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_those_of_a_copy_of_the_model(family: str) -> None:
    space, examples = all_space(tiny_model(family, layers=2)), Tasks(tasks=1).support[0][0]
    values = perturbed(space.shared, 1)
    losses, found = space.loss_and_gradient(values, batch())
    assert found is not None
    model = reference_model(space, {name: value[0] for name, value in values.items()})
    assert naive.loss(model, examples).item() == pytest.approx(losses.item(), rel=1e-5)
    expected = own_names(naive.gradient(model, examples))
    assert close({name: value[0] for name, value in found.items()}, expected)
    at_shared = own_names(naive.gradient(reference_model(space, space.shared), examples))
    assert not close({name: value[0] for name, value in found.items()}, at_shared, 0.05)


def test_a_tied_head_has_the_sum_of_both_gradients() -> None:
    """Head and embedding are one tensor; either part alone is another gradient."""
    model = tiny_model("gemma", layers=2)
    space = all_space(model)
    name = "model.embed_tokens.weight"
    found = gradient(space, per_task(space.shared, 1), batch())[name][0]
    assert "lm_head.weight" not in space.shared
    tied = reference_model(space, space.shared)
    tied.lm_head.weight = nn.Parameter(tied.lm_head.weight.detach().clone())  # pyright: ignore
    parts = naive.gradient(tied, Tasks(tasks=1).support[0][0])
    assert close(found, parts[name] + parts["lm_head.weight"])
    assert not close(found, parts[name], 0.1)
    assert not close(found, parts["lm_head.weight"], 0.1)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_fused_descent_is_unfused_descent_bit_for_bit(checkpointing: bool, family: str) -> None:
    """Gradients applied inside the backward pass = all of them taken first."""
    space, optimizer = all_space(tiny_model(family, layers=2), checkpointing=checkpointing), Sgd(lr=0.1)
    fused, unfused = space.fork(per_task(space.shared, 1)), space.fork(per_task(space.shared, 1))
    state = optimizer.init(fused)
    for step in range(3):
        left = space.descend(fused, state, batch(step), optimizer)
        right = ParameterSpace.descend(space, unfused, state, batch(step), optimizer)
        assert torch.equal(left, right)
    assert same(fused, unfused)
    ParameterSpace.descend(space, unfused, state, batch(0), Sgd(lr=1e-6))
    assert not same(fused, unfused)


def test_clipping_acts_on_all_parameters_together() -> None:
    space, examples = all_space(tiny_model("llama", layers=2)), Tasks(tasks=1).support[0][0]
    optimizer = Sgd(lr=0.5, clip=0.05)
    values = space.fork(per_task(space.shared, 1))
    space.descend(values, optimizer.init(values), batch(), optimizer)
    inner = naive.Inner(steps=1, lr=0.5, clip=0.05)
    adapted = naive.adapt(reference_model(space, space.shared), [examples], inner)
    moved = {name: value[0] - space.shared[name] for name, value in values.items()}
    expected = {n: v - space.shared[n] for n, v in own_names(naive.trainable(adapted)).items()}
    assert close(moved, expected, 1e-4)  # a difference of nearby float32 numbers
    length = torch.cat([value.flatten() for value in moved.values()]).norm()
    assert length.item() == pytest.approx(0.5 * 0.05, rel=1e-3)


@pytest.mark.parametrize("optimizer", [Sgd(lr=1e-5), Sgd(lr=1e-5, clip=10.0), AdamW(lr=1e-5)])
def test_fast_weights_of_a_bfloat16_model_are_float32_and_move_at_a_tiny_rate(optimizer: Sgd | AdamW) -> None:
    space = all_space(tiny_model("llama", layers=2).bfloat16())
    assert {value.dtype for value in space.shared.values()} == {torch.float32}
    values = space.fork(per_task(space.shared, 1))
    before, after_bf16 = frozen_copy(values), []
    with untouched(space.model):
        space.descend(values, optimizer.init(values), batch(), optimizer)
    for name, value in values.items():
        assert value.dtype == torch.float32
        reached = gradient(space, before, batch())[name] != 0
        assert (value != before[name])[reached].float().mean() > 0.5, name
        after_bf16.append((value.bfloat16() != before[name].bfloat16()).float().mean())
    assert max(after_bf16) < 0.2, "the model's own dtype would have rounded the step away"


def test_a_float32_models_own_tensors_are_the_shared_values() -> None:
    space = all_space(tiny_model("llama", layers=2))
    for name, parameter in space.model.named_parameters():
        assert space.shared[name].data_ptr() == parameter.data_ptr()
        assert not space.shared[name].requires_grad
    values = space.fork(per_task(space.shared, 1))
    with space.installed(values):
        for name, parameter in space.model.named_parameters():
            assert parameter.data_ptr() == values[name].data_ptr()


def test_a_gradient_left_on_the_model_is_not_counted() -> None:
    space = all_space(tiny_model("llama", layers=1))
    values = per_task(space.shared, 1)
    expected = gradient(space, values, batch())
    for parameter in space.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert same(gradient(space, values, batch()), expected)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.used = nn.Parameter(torch.randn(3, generator=generator))
        self.number = nn.Parameter(torch.tensor(2.0))
        self.unused = nn.Parameter(torch.ones(2))


@pytest.mark.parametrize("clip", [None, 1.0])
def test_any_module_and_loss_will_do_and_what_the_loss_does_not_reach_stays(clip: float | None) -> None:
    net = Net()

    def loss(batch: Batch, *, twice: bool = False) -> Tensor:
        return (net.used.square().sum() * net.number).view(1)

    space = AllParameters(net, loss)
    found = gradient(space, per_task(space.shared, 1), batch())
    assert close(found["used"][0], 2 * net.number.detach() * net.used.detach() * 1)
    assert found["number"].item() == pytest.approx(net.used.square().sum().item())
    assert not found["unused"].any()
    values = space.fork(per_task(space.shared, 1))
    space.descend(values, Sgd(lr=0.1).init(values), batch(), Sgd(lr=0.1, clip=clip))
    assert torch.equal(values["unused"][0], space.shared["unused"])
    assert relative_error(values["used"][0], space.shared["used"]) > 1e-2
    product = space.hessian_vector_product(per_task(space.shared, 1), batch(), per_task(space.shared, 1))
    assert close(product["used"][0], 4 * net.number.detach() * net.used.detach())
    assert not product["unused"].any()


def test_several_tasks_in_a_forward_are_refused() -> None:
    space, tasks = all_space(tiny_model("llama", layers=1)), Tasks(tasks=2).batch
    with pytest.raises(ValueError, match="one task a forward"):
        space.loss_and_gradient(perturbed(space.shared, 2), tasks.support[0])
    with pytest.raises(ValueError, match="one task a forward"), space.installed(perturbed(space.shared, 2)):
        pass
