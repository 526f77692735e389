"""The sweep against a case that has a formula: L(phi) = phi^T H phi / 2 - b^T phi."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from helpers import Tasks, close
from innerloop.data.tasks import Batch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.second_order import sweep
from innerloop.numerics.optimizers import Sgd
from innerloop.numerics.tensors import TensorSet, clone, per_task
from innerloop.spaces.all_parameters import AllParameters

SIZE, RATE = 5, 0.1
BATCH = Tasks(tasks=1).batch.support[0]


def hessian() -> Tensor:
    root = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return root @ root.T


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.linspace(-1, 2, SIZE))


def quadratic() -> AllParameters:
    point, H = Point(), hessian()

    def loss(batch: Batch, *, twice: bool = False) -> Tensor:
        return (0.5 * point.at @ H @ point.at - point.at.sum()).view(1)

    return AllParameters(point, loss)


def adapted(start: Tensor, *, steps: int, clip: float | None) -> Tensor:
    """The inner loop as one differentiable function."""
    for _ in range(steps):
        gradient = hessian() @ start - 1
        factor = 1.0 if clip is None else (clip / (gradient.norm() + 1e-6)).clamp(max=1.0)
        start = start - RATE * factor * gradient
    return start


def swept(*, steps: int, clip: float | None, vector: Tensor) -> Tensor:
    space, optimizer = quadratic(), Sgd(lr=RATE, clip=clip)
    trajectory: list[tuple[TensorSet, Batch]] = []
    keep: Callable[[TensorSet, Batch], None] = lambda phi, batch: trajectory.append((clone(phi), batch))  # noqa: E731
    loop = InnerLoop(steps=steps, optimizer=optimizer)
    end = loop.adapt(space, per_task(space.shared, 1), [BATCH], before_step=keep)
    start = space.shared["at"]
    assert close(end.values["at"][0], adapted(start, steps=steps, clip=clip))
    return sweep(space, trajectory, optimizer, {"at": vector[None]})["at"][0]


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("clip", [None, 0.5, 6.0, 1e6])
def test_the_sweep_is_the_transposed_jacobian_of_the_inner_loop(steps: int, clip: float | None) -> None:
    vector = torch.linspace(1, -2, SIZE)
    found = swept(steps=steps, clip=clip, vector=vector)
    start = quadratic().shared["at"]
    jacobian = torch.autograd.functional.jacobian(lambda x: adapted(x, steps=steps, clip=clip), start)
    assert close(found, jacobian.T @ vector)
    if steps:
        assert not close(found, vector, 0.01), "first order"
    if clip is None:
        power = torch.linalg.matrix_power(torch.eye(SIZE) - RATE * hessian(), steps)
        assert close(found, power @ vector)
    if steps and clip == 0.5:
        assert not close(jacobian, jacobian.T, 1e-3), "with clipping the Jacobian isn't symmetric: order matters"
        assert not close(found, jacobian @ vector, 1e-3)
