from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from innerloop.numerics.rounding import SLICE, add_, seeded, slice_size, slices
from numerics.live_bytes import peak_bytes

CPU = torch.device("cpu")
BF16 = torch.bfloat16


def neighbours(exact: Tensor) -> tuple[Tensor, Tensor]:
    """The bfloat16 numbers at or below and at or above each float32 number, as float32; found by nextafter."""
    nearest = exact.to(BF16)
    lower = torch.where(
        nearest.float() <= exact, nearest, torch.nextafter(nearest, torch.full_like(nearest, -torch.inf))
    )
    upper = torch.where(
        nearest.float() >= exact, nearest, torch.nextafter(nearest, torch.full_like(nearest, torch.inf))
    )
    return lower.float(), upper.float()


def of_any_bits(count: int, *, seed: int) -> Tensor:
    """float32 numbers of random bits: every exponent, both signs, subnormals, infinities and NaN."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31, (count,), generator=generator).to(torch.int32)
    bits[::50] |= 0x7F800000  # infinities and NaN are one in 256 otherwise
    return bits.view(torch.float32)


def added(start: Tensor, value: Tensor, *, alpha: float = 1.0, seed: int = 0) -> Tensor:
    into = start.clone()
    with seeded(seed, device=CPU):
        add_(into, value, alpha=alpha)
    return into


def test_the_mean_is_the_float32_sum() -> None:
    """Within 5 standard errors: one number's deviation is at most half the distance of its neighbours."""
    draws, generator = 4096, torch.Generator().manual_seed(0)
    start = torch.randn(64, generator=generator).to(BF16)
    value = torch.randn(64, generator=generator) * torch.logspace(-6, 1, 64)
    exact = start.float() + 0.7 * value
    lower, upper = neighbours(exact)
    bound = 5 * (upper - lower) / 2 / draws**0.5
    mean = added(start.expand(draws, 64).contiguous(), value, alpha=0.7).float().mean(0)
    assert (upper > lower).all()
    assert ((mean - exact).abs() <= bound).all()
    assert ((exact.to(BF16).float() - exact).abs() > bound).sum() > 32, "rounding to the nearest would not pass"


def test_any_sum_becomes_one_of_its_two_neighbours_and_both_occur() -> None:
    start, value = of_any_bits(500_000, seed=1).to(BF16), of_any_bits(500_000, seed=2)
    exact = start.float().add(value)
    result = added(start, value).float()
    assert torch.equal(result.isnan(), exact.isnan())
    assert torch.equal(result.isneginf(), result.isinf() & (result < 0))
    finite = ~exact.isnan()
    lower, upper = (x[finite] for x in neighbours(exact))
    assert ((result[finite] == lower) | (result[finite] == upper)).all()
    between = lower < upper
    ups = (result[finite] == upper)[between].float().mean()
    assert between.sum() > 200_000
    assert 0.45 < ups < 0.55


@pytest.mark.parametrize("special", [torch.inf, -torch.inf, torch.nan, 0.0, -0.0, -1.5, 3.0e-39])
def test_what_bfloat16_can_hold_stays_what_it_is(special: float) -> None:
    exact = torch.tensor(special).to(BF16)
    start = exact.expand(1000).contiguous()
    assert torch.equal(added(start, torch.zeros(1)), start) or exact.isnan()
    result = added(torch.zeros(1000, dtype=BF16), exact.float())
    assert torch.equal(result, start) or (exact.isnan() and result.isnan().all())


@pytest.mark.parametrize("bits", [0x7FFFFFFF, -1, 0x7F800001, -0x7FFFFF])
def test_no_nan_becomes_a_number_whatever_its_bits(bits: int) -> None:
    nan = torch.tensor([bits], dtype=torch.int32).view(torch.float32).expand(5000)
    assert nan.isnan().all()
    assert added(torch.ones(5000, dtype=BF16), nan).isnan().all()
    assert added(nan.to(BF16), torch.ones(1)).isnan().all()


def test_past_the_largest_number_infinity_is_the_upper_neighbour() -> None:
    largest = torch.finfo(BF16).max
    result = added(torch.full((4000,), largest, dtype=BF16), torch.tensor(2.0**118), seed=3).float()
    assert set(result.tolist()) == {largest, torch.inf}
    assert 0.2 < result.isinf().float().mean() < 0.3, "2^118 is a quarter of the way to 2^128"
    assert (added(torch.tensor([-largest], dtype=BF16), torch.tensor(-(2.0**122))) == -torch.inf).all()


def test_small_steps_move_the_mean_where_the_nearest_number_stays() -> None:
    """100 steps of a hundred-thousandth, as at learning rate 1e-5."""
    moved, nearest = (torch.ones(20_000, dtype=BF16) for _ in range(2))
    with seeded("steps", device=CPU):
        for _ in range(100):
            add_(moved, moved.float(), alpha=-1e-5)
            nearest.add_(nearest, alpha=-1e-5)
    # One number ends a step of 2^-8 below or stays: deviation below 2^-8, of the mean below 2^-8 / sqrt(20,000)
    assert float(moved.float().mean()) == pytest.approx((1 - 1e-5) ** 100, abs=5 * 2**-8 * 0.5 / 20_000**0.5)
    assert torch.equal(nearest, torch.ones_like(nearest))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("value_dtype", [torch.float32, BF16])
def test_any_other_dtype_is_added_as_torch_adds(dtype: torch.dtype, value_dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    into, value = torch.randn(7, 5, generator=generator).to(dtype), torch.randn(5, generator=generator).to(value_dtype)
    expected = into.clone().add_(value, alpha=0.3)
    before = torch.get_rng_state()
    add_(into, value, alpha=0.3)
    assert torch.equal(into, expected)
    assert torch.equal(torch.get_rng_state(), before), "no noise is drawn"


def test_the_noise_depends_on_the_seeds_parts_and_nothing_outside_changes() -> None:
    start, value = torch.ones(1000, dtype=BF16), torch.full((1000,), 1e-3)

    def with_parts(*parts: int | str) -> Tensor:
        into = start.clone()
        with seeded(*parts, device=CPU):
            add_(into, value)
        return into

    before = torch.get_rng_state()
    first = with_parts(3, "inner", 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(with_parts(3, "inner", 1), first)
    for other in [(3, "inner", 2), (3, "outer", 1), ("3", "inner", 1), (3, "inner", 1, 0), (31, "inner")]:
        assert not torch.equal(with_parts(*other), first)


def test_the_state_is_restored_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="must match"), seeded(1, device=CPU):
        torch.rand(3).add_(torch.rand(4))
    assert torch.equal(torch.get_rng_state(), before)


LARGE = [(SLICE + 4099,), (1, 3, SLICE // 2 + 5), (2, SLICE + 3), (SLICE // 4, 5)]
SHAPES = [(), (1,), (0,), (0, 3), (3, 0, 2), (7, 5, 3)]


@pytest.mark.parametrize("shape", [*LARGE, *SHAPES])
def test_slices_hold_every_entry_once_and_are_small(shape: tuple[int, ...]) -> None:
    counts, other = torch.zeros(shape, dtype=torch.int8), torch.ones(1, dtype=torch.int8).expand(*shape, 2)
    for part, of_other in slices(counts, other):
        assert part.numel() <= SLICE
        assert of_other.shape == (*part.shape, 2)
        part.add_(of_other[..., 1])
    assert (counts == 1).all()


@pytest.mark.parametrize("view", ["plain", "transposed", "broadcast", "half", "into is a view"])
def test_large_and_oddly_laid_out_tensors_are_added_like_any(view: str) -> None:
    rows, columns = 3, SLICE // 2 + 5
    start = torch.linspace(1.1, 1.9, rows * columns).view(rows, columns).to(BF16)
    value = torch.linspace(-1, 1, rows * columns).view(rows, columns)
    if view == "transposed":
        value = value.view(columns, rows).T
    elif view == "broadcast":
        value = value[1:2]
    elif view == "half":
        value = value.to(torch.float16)
    into = torch.stack([start, start], -1)[..., 0] if view == "into is a view" else start.clone()
    with seeded(0, device=CPU):
        add_(into, value, alpha=0.05)
    exact = start.float().add(value.float(), alpha=0.05)
    assert ((into.float() - exact).abs() < 2**-7).all(), "the distance of neighbours from 1 to 2"
    assert (into.float() - exact).mean().abs() < 1e-5
    assert ((start.float() - exact).abs() > 2**-7).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_small_shapes(shape: tuple[int, ...]) -> None:
    result = added(torch.ones(shape, dtype=BF16), torch.full(shape, 0.5))
    assert torch.equal(result, torch.full(shape, 1.5, dtype=BF16))


ENTRIES = 128256 * 2048


def test_temporaries_are_a_slices_size() -> None:
    """On tensors without memory, as the planner runs it: 262 million entries, a bfloat16 value that is cast."""

    def adding() -> Callable[[], None]:
        into, value = (torch.zeros(ENTRIES // 2048, 2048, dtype=BF16) for _ in range(2))

        def run() -> None:
            with seeded("plan", device=CPU):
                add_(into, value, alpha=0.1)

        return run

    assert slice_size(ENTRIES) == ENTRIES // 16 > SLICE == slice_size(SLICE)
    assert peak_bytes(adding) <= 12 * slice_size(ENTRIES)
