from copy import deepcopy

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
from innerloop.engine.trainer import Trainer
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import Fomaml
from innerloop.numerics.optimizers import AdamW, AdamW8bit, OptimizerState, Sgd
from innerloop.numerics.rounding import seeded
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.all_parameters import AllParameters
from innerloop.spaces.loss import AnswerLoss
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
    optimizer = Sgd(lr=50.0, clip=0.05)  # a move beside which the rounding of a sum is nothing
    values = space.fork(per_task(space.shared, 1))
    space.descend(values, optimizer.init(values), batch(), optimizer)
    inner = naive.Inner(steps=1, lr=50.0, clip=0.05)
    adapted = naive.adapt(reference_model(space, space.shared), [examples], inner)
    moved = {name: value[0] - space.shared[name] for name, value in values.items()}
    expected = {n: v - space.shared[n] for n, v in own_names(naive.trainable(adapted)).items()}
    assert close(moved, expected, 1e-4)
    length = torch.cat([value.flatten() for value in moved.values()]).norm()
    assert length.item() == pytest.approx(50 * 0.05, rel=1e-3)


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


def test_a_16_bit_models_forward_runs_on_a_cast_of_the_masters() -> None:
    """The loss is that of a bfloat16 model, not of a float32 one, and at rest the masters are back."""
    model = tiny_model("llama", layers=2)
    exact, cast = all_space(deepcopy(model)), all_space(model.bfloat16())
    assert cast.dtype == torch.bfloat16
    values = perturbed(cast.shared, 1)
    with cast.installed(values) as installed:
        found = {name: parameter.detach().clone() for name, parameter in installed.named_parameters()}
    assert same(found, {name: value[0].bfloat16() for name, value in values.items()})
    assert same(dict(cast.model.named_parameters()), cast.shared)
    rounded = {name: value.bfloat16().float() for name, value in values.items()}
    assert torch.equal(*(cast.loss_and_gradient(some, batch())[0] for some in (values, rounded)))
    left, right = (space.loss_and_gradient(rounded, batch())[0] for space in (cast, exact))
    assert not torch.equal(left, right)
    assert left.item() == pytest.approx(right.item(), rel=0.02)


def lean_space(layers: int = 2) -> AllParameters:
    model = tiny_model("llama", layers=layers).bfloat16()
    return AllParameters(model, AnswerLoss(model), lean=True)


def test_lean_values_are_the_models_own_tensors_and_bfloat16() -> None:
    space = lean_space()
    assert space.trained().dtype == "bfloat16"
    for name, parameter in space.model.named_parameters():
        assert space.shared[name].data_ptr() == parameter.data_ptr()
        assert space.shared[name].dtype == torch.bfloat16
    values = space.fork(per_task(space.shared, 1))
    assert {value.dtype for value in gradient(space, values, batch()).values()} == {torch.bfloat16}
    with space.installed(values):
        assert all(p.data_ptr() == values[name].data_ptr() for name, p in space.model.named_parameters())


def test_lean_fast_weights_move_at_a_tiny_rate_as_far_as_they_should() -> None:
    """Rounded to the nearest, none would; rounded stochastically, their mean moves by lr times the gradient."""
    space, optimizer, name = lean_space(), Sgd(lr=1e-5), "model.layers.0.mlp.up_proj.weight"
    start = per_task(space.shared, 1)
    step = -1e-5 * gradient(space, start, batch())[name].double()
    nearest = (start[name].double() + step).bfloat16()
    assert (nearest != start[name]).float().mean() < 0.01
    moved, draws = torch.zeros_like(step), 400
    with seeded("test", device=space.device):
        for _ in range(draws):
            values = space.fork(start)
            space.descend(values, OptimizerState(), batch(), optimizer)
            moved += (values[name].double() - start[name].double()) / draws
    along = float((moved * step).sum() / step.square().sum())
    assert along == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_lean_steps_are_float32_steps_but_for_rounding(clip: float | None) -> None:
    """After 3 steps each tensor is off by less than a last bit, 2**-7, a step, and all went the same way."""
    lean, model = lean_space(), tiny_model("llama", layers=2).bfloat16()
    exact, optimizer = AllParameters(model, AnswerLoss(model)), Sgd(lr=0.5, clip=clip)
    ends: list[TensorSet] = []
    for space in (lean, exact):
        values = space.fork(per_task(space.shared, 1))
        with seeded("test", device=space.device):
            for step in range(3):
                space.descend(values, OptimizerState(), batch(step), optimizer)
        ends.append({name: value.float() for name, value in values.items()})
    start = per_task(exact.shared, 1)
    ways = [torch.cat([(end[name] - start[name]).flatten() for name in start]) for end in ends]
    assert float(ways[0] @ ways[1] / ways[1].square().sum()) == pytest.approx(1.0, abs=0.05)
    for name, value in ends[1].items():
        assert (ends[0][name] - value).norm() < 3 * 2**-7 * value.norm(), name


def test_a_lean_query_gradient_is_added_rounded_stochastically() -> None:
    """Many additions of a part too small for bfloat16 next to the sum: nearest rounding would lose them all."""
    space, name = lean_space(1), "model.norm.weight"
    values = per_task(space.shared, 1)
    part = gradient(space, values, batch())[name][0].float()
    into = {key: torch.zeros_like(value) for key, value in space.shared.items()}
    into[name] += 1000 * part.sign() * part.abs().max()
    before, times = into[name].float().clone(), 300
    assert torch.equal(into[name] + part.bfloat16(), into[name])
    with seeded("test", device=space.device):
        for _ in range(times):
            space.loss_and_gradient(values, batch(), into=into)
    along = float(((into[name].float() - before) * part).sum() / (times * part.square().sum()))
    assert along == pytest.approx(1.0, abs=0.2)


def test_offloading_changes_no_number() -> None:
    """On a CPU the two memories are one, and only the way there differs; the next test has two."""
    offloaded_steps_are_equal(torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_offloaded_values_lie_in_host_memory() -> None:
    offloaded_steps_are_equal(torch.device("cuda"))


def offloaded_steps_are_equal(device: torch.device) -> None:
    found: list[TensorSet] = []
    for offload in (False, True):
        model = tiny_model("gemma", layers=2).to(device)
        space = AllParameters(model, AnswerLoss(model), offload=offload)
        assert {value.device.type for value in space.shared.values()} == {"cpu" if offload else device.type}
        method = Fomaml(inner=InnerLoop(steps=2, optimizer=Sgd(lr=0.1)))
        trainer = Trainer(space, method, AdamW(lr=1e-2, clip=1.0), tasks_per_forward=1)
        for seed in range(2):
            trainer.step(Tasks(tasks=2, seed=seed).batch.to(device))
        found.append({name: value.cpu() for name, value in space.shared.items()})
    assert close(found[1], found[0]) if device.type == "cuda" else same(found[1], found[0])


def test_theta_moves_at_an_outer_rate_of_1e_5_when_lean() -> None:
    """AdamW's step is about lr, 1e-5: nearest rounding would lose it for every weight above 0.004."""
    space = lean_space()
    name = "model.layers.1.mlp.down_proj.weight"
    before = space.shared[name].float().clone()
    method = Fomaml(inner=InnerLoop(steps=1, optimizer=Sgd(lr=0.1)))
    trainer = Trainer(space, method, AdamW8bit(lr=1e-5), tasks_per_forward=1)
    for seed in range(20):
        trainer.step(Tasks(tasks=2, seed=seed % 2, steps=1).batch)
    large = before.abs() > 0.01
    moved = (space.shared[name].float() - before)[large]
    assert (moved != 0).float().mean() > 0.05
    assert 0.2e-5 * 20 < moved.abs().mean() < 4e-5 * 20
    unmoved = before[large].bfloat16()
    for _ in range(20):
        unmoved = unmoved + 1e-5
    assert torch.equal(unmoved, before[large].bfloat16())


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
    with pytest.raises(ValueError, match="one task per forward pass"):
        space.loss_and_gradient(perturbed(space.shared, 2), tasks.support[0])
    with pytest.raises(ValueError, match="one task per forward pass"), space.installed(perturbed(space.shared, 2)):
        pass
