"""The moving average against its definition: a weighted mean, written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import close
from innerloop.numerics.averages import average_
from innerloop.numerics.tensors import TensorSet

SHAPES = {"matrix": (3, 4), "bias": (5,), "number": ()}


def path(steps: int, seed: int, dtype: torch.dtype = torch.float32) -> list[TensorSet]:
    """What values were after each step."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
        for _ in range(steps)
    ]


def averaged(values: list[TensorSet], decay: float) -> TensorSet:
    """Begun with something that has no part in it."""
    average = {name: torch.full(shape, 1e3) for name, shape in SHAPES.items()}
    for step, at in enumerate(values, 1):
        average_(average, at, decay=decay, steps=step)
    return average


def weighted(values: list[TensorSet], decay: float) -> dict[str, Tensor]:
    """sum_i d^(t-i) theta_i / sum_i d^(t-i), in float64."""
    weights = [decay ** (len(values) - i) for i in range(1, len(values) + 1)]
    return {
        name: sum(w * at[name].double() for w, at in zip(weights, values, strict=True)) / sum(weights)
        for name in SHAPES
    }


@given(decay=st.floats(0.01, 0.9999), steps=st.integers(1, 40), seed=st.integers(0, 99))
def test_it_is_the_weighted_mean_of_all_steps(decay: float, steps: int, seed: int) -> None:
    values = path(steps, seed)
    assert close(averaged(values, decay), weighted(values, decay), 1e-5)


def test_a_wrong_average_is_noticed() -> None:
    """Another decay, a mean that counts its start, and one that forgets a step."""
    values = path(8, seed=1)
    right = weighted(values, 0.9)
    assert not close(averaged(values, 0.8), right, 1e-2)
    assert not close(averaged([path(1, seed=2)[0], *values], 0.9), right, 1e-2)
    assert not close(averaged(values[:-1], 0.9), right, 1e-2)


def test_after_one_step_it_is_that_step() -> None:
    (values,) = path(1, seed=3)
    assert all(torch.equal(averaged([values], 0.999)[name], value) for name, value in values.items())


def test_values_of_16_bits_have_an_average_of_32() -> None:
    values = path(12, seed=4, dtype=torch.bfloat16)
    found = averaged(values, 0.9)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert close(found, weighted(values, 0.9), 1e-5)
    assert not close({name: value.bfloat16().float() for name, value in found.items()}, weighted(values, 0.9), 1e-5)


def test_sets_of_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        average_({"a": torch.zeros(1)}, {"b": torch.zeros(1)}, decay=0.5, steps=1)
