import pytest
import torch

from helpers import frozen_copy, same
from innerloop.numerics.tensors import (
    accumulate,
    clip_factor,
    clone,
    difference,
    dot,
    norm,
    per_task,
    scale_,
    zeros_like,
)


def sets(*, tasks: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "matrix": torch.randn(tasks, 4, 5, generator=generator),
        "vector": torch.randn(tasks, 6, generator=generator),
        "scalar": torch.randn(tasks, generator=generator),
    }


def test_per_task_is_a_view_of_the_shared_values() -> None:
    shared = {name: value[0] for name, value in sets().items()}
    view = per_task(shared, 4)
    for name, value in shared.items():
        assert view[name].shape == (4, *value.shape)
        assert view[name].data_ptr() == value.data_ptr()
    with pytest.raises(RuntimeError):
        view["matrix"].add_(1.0)


def test_clone_of_a_view_can_be_written_without_a_trace_in_the_original() -> None:
    shared = {name: value[0] for name, value in sets().items()}
    before = frozen_copy(shared)
    copy = clone(per_task(shared, 2))
    for value in copy.values():
        assert value.is_contiguous()
        value[0] += 1
    assert same(shared, before)
    assert torch.equal(copy["matrix"][1], shared["matrix"])


def test_dot_and_norm_of_each_task_are_those_of_its_flattened_slice() -> None:
    left, right = sets(), sets(seed=1)
    for task in range(3):
        flat_left = torch.cat([value[task].flatten() for value in left.values()])
        flat_right = torch.cat([value[task].flatten() for value in right.values()])
        assert torch.allclose(dot(left, right)[task], flat_left @ flat_right, rtol=1e-5)
        assert torch.allclose(norm(left)[task], flat_left.norm(), rtol=1e-6)
    assert not torch.allclose(norm(left)[0], norm(left)[1])


def test_accumulate_sums_over_tasks_and_adds() -> None:
    values = sets()
    into = {name: torch.ones(value.shape[1:]) for name, value in values.items()}
    accumulate(into, values, alpha=0.5)
    for name, value in values.items():
        assert torch.allclose(into[name], 1 + 0.5 * value.sum(0))


def test_scaling_is_each_tasks_own() -> None:
    values = sets()
    before = frozen_copy(values)
    scale_(values, torch.tensor([0.0, 1.0, 2.0]))
    for name, value in values.items():
        assert torch.equal(value[0], torch.zeros_like(value[0]))
        assert torch.equal(value[1], before[name][1])
        assert torch.equal(value[2], 2 * before[name][2])


def test_clip_factor_shortens_long_gradients_only() -> None:
    factors = clip_factor(torch.tensor([0.0, 0.5, 4.0]), 1.0)
    assert torch.equal(factors[:2], torch.ones(2))
    assert factors[2] == pytest.approx(0.25, rel=1e-6)


def test_difference_and_zeros_keep_names_and_shapes() -> None:
    values = sets()
    assert same(difference(values, values), zeros_like(values))


@pytest.mark.parametrize("operation", [difference, dot, accumulate])
def test_sets_with_other_names_are_refused(operation) -> None:
    values, other = sets(), sets()
    other["another"] = other.pop("vector")
    with pytest.raises(ValueError, match=r"\['another', 'vector'\]"):
        operation(values, other)
