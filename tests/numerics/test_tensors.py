import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers import frozen_copy, same
from innerloop.numerics.rounding import SLICE, seeded
from innerloop.numerics.tensors import (
    accumulate,
    accumulate_difference,
    clip_factor,
    clone,
    dot,
    norm,
    per_task,
    scale_,
)
from numerics.live_bytes import peak_bytes


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


@pytest.mark.parametrize("tasks", [1, 3])
def test_accumulate_difference_is_the_sum_of_differences(tasks: int) -> None:
    left, right = sets(tasks=tasks), sets(tasks=tasks, seed=1)
    shared = per_task({name: value[0] for name, value in left.items()}, tasks)
    for start in (left, shared):
        into, expected = ({name: torch.ones(value.shape[1:]) for name, value in left.items()} for _ in range(2))
        accumulate_difference(into, start, right)
        accumulate(expected, {name: start[name] - right[name] for name in start})
        assert same(into, expected)
        for name, value in start.items():
            assert torch.allclose(into[name], 1 + sum(value[t] - right[name][t] for t in range(tasks)))


def test_a_difference_in_bfloat16_loses_nothing_in_the_mean() -> None:
    """Eight differences of 2^-10 onto 1, where the next number above is 2^-7 away."""
    left, right = torch.full((1, 20_000), 0.25).bfloat16(), torch.full((1, 20_000), 0.25 - 2**-10).bfloat16()
    into, nearest = ({"x": torch.ones(20_000).bfloat16()} for _ in range(2))
    with seeded("difference", device=torch.device("cpu")):
        for _ in range(8):
            accumulate_difference(into, {"x": left}, {"x": right})
            nearest["x"] += (left - right)[0]
    deviation = 2**-7 / 20_000**0.5
    assert float(into["x"].float().mean()) == pytest.approx(1 + 8 * 2**-10, abs=5 * deviation)
    assert torch.equal(nearest["x"], torch.ones_like(nearest["x"]))


def test_accumulate_in_bfloat16_loses_nothing_in_the_mean() -> None:
    values = {"x": torch.full((3, 20_000), 2.0**-10).bfloat16()}
    into = {"x": torch.ones(20_000).bfloat16()}
    with seeded("accumulate", device=torch.device("cpu")):
        accumulate(into, values, alpha=0.5)
    assert float(into["x"].float().mean()) == pytest.approx(1 + 1.5 * 2**-10, abs=5 * 2**-8 / 20_000**0.5)
    assert into["x"].float().std() > 0


def test_bfloat16_is_measured_and_scaled_in_float32() -> None:
    values = {"x": sets()["matrix"].bfloat16(), "many": torch.full((3, 100_000), 0.01).bfloat16()}
    wide = {name: value.float() for name, value in values.items()}
    assert norm(values).dtype == torch.float32
    assert torch.allclose(norm(values), norm(wide), rtol=1e-6)
    factors = torch.tensor([0.3, 1.0, 0.7])
    scale_(values, factors)
    scale_(wide, factors)
    assert same(values, {name: value.bfloat16() for name, value in wide.items()})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_accumulator_and_the_factors_may_be_on_another_device(dtype: torch.dtype) -> None:
    with FakeTensorMode():  # knows devices that aren't there, and refuses to mix them
        far = {"x": torch.zeros(2, 3, device="cuda", dtype=dtype)}
        near, into = {"x": torch.zeros(2, 3, dtype=dtype)}, {"x": torch.zeros(3, dtype=dtype)}
        accumulate(into, far)
        accumulate_difference(into, near, far)
        accumulate_difference(into, far, near)
        scale_(far, clip_factor(norm(near), 1.0))
        assert into["x"].device.type == "cpu"
        with pytest.raises(RuntimeError):
            into["x"].add_(far["x"][0])


@pytest.mark.parametrize("operation", ["accumulate", "accumulate_difference", "scale", "norm"])
def test_no_copy_of_a_large_bfloat16_tensor_is_made(operation: str) -> None:
    def prepare():
        values, other = ({"x": torch.zeros(1, 16, SLICE, dtype=torch.bfloat16)} for _ in range(2))
        into = {"x": torch.zeros(16, SLICE, dtype=torch.bfloat16)}
        return {
            "accumulate": lambda: accumulate(into, values),
            "accumulate_difference": lambda: accumulate_difference(into, values, other),
            "scale": lambda: scale_(values, torch.ones(1)),
            "norm": lambda: norm(values),
        }[operation]

    assert peak_bytes(prepare) <= 16 * SLICE


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


def accumulate_with_other(into, other) -> None:
    accumulate_difference({name: value[0] for name, value in into.items()}, into, other)


@pytest.mark.parametrize("operation", [dot, accumulate, accumulate_with_other])
def test_sets_with_other_names_are_refused(operation) -> None:
    values, other = sets(), sets()
    other["another"] = other.pop("vector")
    with pytest.raises(ValueError, match=r"\['another', 'vector'\]"):
        operation(values, other)
