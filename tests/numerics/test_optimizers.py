from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import close, frozen_copy, of_task, relative_error, same
from innerloop.numerics.optimizers import AdamW, Optimizer, Sgd
from innerloop.numerics.tensors import TensorSet, norm, over

SHAPES = {"a.lora_A": (2, 5), "a.lora_B": (4, 2), "bias": (3,)}
STEPS = 5


def random_set(tasks: int, *, seed: int) -> TensorSet:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(tasks, *shape, generator=generator) for name, shape in SHAPES.items()}


def gradients(tasks: int) -> list[TensorSet]:
    """The tasks' gradients differ in length: with clipping at 2 some are cut and some are not."""
    length = torch.linspace(0.1, 2.0, tasks)
    return [
        {name: over(length, g) * g for name, g in random_set(tasks, seed=10 + step).items()} for step in range(STEPS)
    ]


def ours(optimizer: Optimizer, tasks: int) -> TensorSet:
    values = random_set(tasks, seed=0)
    state = optimizer.init(values)
    for gradient in gradients(tasks):
        optimizer.step(values, frozen_copy(gradient), state)
    return values


def torchs(
    kind: type[torch.optim.Optimizer], tasks: int, *, clip: float | None, ratio: float, **settings: Any
) -> TensorSet:
    """torch.optim on one task after the other, with torch's clipping."""
    done: list[TensorSet] = []
    for task in range(tasks):
        values = {name: torch.nn.Parameter(value[task].clone()) for name, value in random_set(tasks, seed=0).items()}
        rates = {name: settings["lr"] * (ratio if name.endswith("lora_B") else 1) for name in values}
        groups = [{"params": [value], "lr": rates[name]} for name, value in values.items()]
        optimizer = kind(groups, **settings)
        for gradient in gradients(tasks):
            for name, value in values.items():
                value.grad = gradient[name][task].clone()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(values.values(), clip)
            optimizer.step()
        done.append({name: value.detach() for name, value in values.items()})
    return {name: torch.stack([values[name] for values in done]) for name in SHAPES}


@pytest.mark.parametrize("clip", [None, 2.0])
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_sgd_is_torchs(clip: float | None, ratio: float) -> None:
    values = ours(Sgd(lr=0.1, clip=clip, loraplus_lr_ratio=ratio), 3)
    assert close(values, torchs(torch.optim.SGD, 3, clip=clip, ratio=ratio, lr=0.1))
    assert not close(values, torchs(torch.optim.SGD, 3, clip=clip, ratio=ratio, lr=0.101), 1e-3)
    assert not close(values, torchs(torch.optim.SGD, 3, clip=clip, ratio=ratio + 1, lr=0.1), 1e-3)


@pytest.mark.parametrize("clip", [None, 2.0])
@pytest.mark.parametrize("ratio", [1.0, 4.0])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_is_torchs(clip: float | None, ratio: float, decay: float) -> None:
    settings: dict[str, Any] = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": decay}
    values = ours(AdamW(clip=clip, loraplus_lr_ratio=ratio, **settings), 3)
    assert close(values, torchs(torch.optim.AdamW, 3, clip=clip, ratio=ratio, **settings))
    for key, other in {"lr": 0.021, "betas": (0.9, 0.95), "eps": 0.1, "weight_decay": decay + 0.1}.items():
        assert not close(values, torchs(torch.optim.AdamW, 3, clip=clip, ratio=ratio, **settings | {key: other}), 1e-4)


def test_adamws_defaults_are_torchs_but_for_weight_decay() -> None:
    mine, theirs = AdamW(lr=1e-3), torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    assert (mine.betas, mine.eps, mine.lr) == tuple(theirs.defaults[key] for key in ("betas", "eps", "lr"))
    assert mine.weight_decay == 0


def test_each_task_is_clipped_on_its_own() -> None:
    optimizer = Sgd(lr=1.0, clip=2.0)
    gradient = gradients(3)[0]
    assert (norm(gradient) < 2).any()
    assert (norm(gradient) > 2).any()
    for task in range(3):
        clipped = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()}
        for name, parameter in clipped.items():
            parameter.grad = gradient[name][task].clone()
        torch.nn.utils.clip_grad_norm_(clipped.values(), 2.0)
        moved = {name: torch.zeros(3, *shape) for name, shape in SHAPES.items()}
        optimizer.step(moved, frozen_copy(gradient), optimizer.init(moved))
        expected = {name: -parameter.grad for name, parameter in clipped.items() if parameter.grad is not None}
        assert close({name: value[task] for name, value in moved.items()}, expected)
    together = gradient["bias"] * (2.0 / torch.linalg.vector_norm(norm(gradient)))
    assert not close(moved["bias"], -together, 1e-2), "one norm over all tasks would give this"


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1, clip=2.0), AdamW(lr=0.02, clip=2.0, weight_decay=0.1)])
def test_a_task_moves_the_same_alone_and_in_company(optimizer: Optimizer) -> None:
    together, start = ours(optimizer, 3), random_set(3, seed=0)
    for task in range(3):
        alone = of_task(start, task)
        alone = frozen_copy(alone)
        state = optimizer.init(alone)
        for gradient in gradients(3):
            optimizer.step(alone, frozen_copy(of_task(gradient, task)), state)
        assert close(alone, of_task(together, task))


def vector(tasks: int) -> TensorSet:
    return random_set(tasks, seed=77)


def vjp_by_autograd(optimizer: Sgd, v: TensorSet, gradient: TensorSet, task: int) -> list[Tensor]:
    """D^T v of one task through the update as it is written down: lr * clip(g)."""

    def update(*g: Tensor) -> tuple[Tensor, ...]:
        length = torch.sqrt(sum((x**2).sum() for x in g))
        factor = 1.0 if optimizer.clip is None else (optimizer.clip / (length + 1e-6)).clamp(max=1.0)
        return tuple(optimizer.rate(name) * factor * x for name, x in zip(SHAPES, g, strict=True))

    at = tuple(gradient[name][task] for name in SHAPES)
    return list(torch.autograd.functional.vjp(update, at, tuple(v[name][task] for name in SHAPES))[1])


@pytest.mark.parametrize("clip", [None, 1e3, 2.0, 0.05], ids=["off", "never active", "active for some", "active"])
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_sgds_vjp_is_autograds(clip: float | None, ratio: float) -> None:
    optimizer = Sgd(lr=0.3, clip=clip, loraplus_lr_ratio=ratio)
    v, gradient = vector(3), gradients(3)[0]
    product = optimizer.vjp(v, gradient)
    for task in range(3):
        expected = vjp_by_autograd(optimizer, v, gradient, task)
        assert close({n: product[n][task] for n in SHAPES}, dict(zip(SHAPES, expected, strict=True)))
    if clip is not None and clip < 1:
        scaled_only = {
            name: value * clip / over(norm(gradient), value) for name, value in Sgd(lr=0.3).vjp(v, None).items()
        }
        assert relative_error(product, scaled_only) > 1e-2, "clipping is more than a factor"


def test_sgds_vjp_at_a_zero_gradient_is_finite() -> None:
    v = vector(2)
    zero = {name: torch.zeros_like(value) for name, value in v.items()}
    assert close(Sgd(lr=0.3, clip=1.0).vjp(v, zero), {name: 0.3 * value for name, value in v.items()})


def test_a_step_leaves_the_gradient_of_an_unclipped_task_alone() -> None:
    optimizer, values, gradient = Sgd(lr=0.1), random_set(2, seed=0), gradients(2)[0]
    before = frozen_copy(gradient)
    optimizer.step(values, gradient, optimizer.init(values))
    assert same(gradient, before)
