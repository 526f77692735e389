import pytest
import torch
from torch import Tensor

from innerloop.numerics.eight_bit import BLOCK, Code, Signed, Stored, Unsigned, block_ranges, no_scales
from innerloop.numerics.rounding import SLICE

# Every level of a block whose scale is 1, from the formulas
SIGNED = torch.tensor([(-1 if c < 0 else 1) * (abs(c) / 127) ** 2 for c in range(-127, 128)], dtype=torch.float64)
UNSIGNED = torch.tensor([((c + 1) / 256) ** 4 for c in range(256)], dtype=torch.float64)
CODES = [(Signed(), SIGNED), (Unsigned(), UNSIGNED)]
named = pytest.mark.parametrize(("code", "levels"), CODES, ids=["signed", "unsigned"])


@pytest.fixture(autouse=True)
def noise() -> None:
    torch.manual_seed(0)


def stored(code: Code, values_BN: Tensor) -> Tensor:
    """Float64 values after they were kept in 8 bits."""
    codes, scales = code.encode(values_BN.float().clone())
    assert codes.dtype == code.dtype
    return code.decode(codes, scales).double()


def between(levels: Tensor, count: int) -> Tensor:
    """(count,) numbers evenly over the levels' intervals, the largest magnitude among them."""
    position = torch.rand(count, dtype=torch.float64) * (len(levels) - 1)
    lower = position.long()
    numbers = levels[lower] + (position - lower) * (levels[lower + 1] - levels[lower])
    return torch.cat([levels[-1:], numbers])[:count]


@named
@pytest.mark.parametrize("scale", [1.0, 3e-12, 7e9])
def test_a_level_stays_what_it_is(code: Code, levels: Tensor, scale: float) -> None:
    block = scale * levels.unsqueeze(0)
    assert torch.allclose(stored(code, block), block, rtol=1e-6, atol=0)


@named
def test_a_number_becomes_one_of_its_two_levels(code: Code, levels: Tensor) -> None:
    block = between(levels, BLOCK).unsqueeze(0)
    upper = torch.searchsorted(levels, block.float().double())
    upper = upper.clamp(1, len(levels) - 1)
    for _ in range(20):
        result = stored(code, block)
        distance = torch.stack([(result - levels[upper]).abs(), (result - levels[upper - 1]).abs()]).amin(0)
        assert (distance <= 2e-7 * result.abs()).all()


@named
def test_the_mean_is_the_number(code: Code, levels: Tensor) -> None:
    """Within 5 standard errors: a deviation is at most half the distance of the two levels."""
    draws, block = 4000, between(levels, BLOCK)
    mean = stored(code, block.expand(draws, BLOCK)).mean(0)
    upper = torch.searchsorted(levels, block).clamp(1, len(levels) - 1)
    bound = 5 * (levels[upper] - levels[upper - 1]) / 2 / draws**0.5
    assert ((mean - block).abs() <= bound + 1e-7 * block.abs()).all()
    nearest = levels[(block.unsqueeze(1) - levels).abs().argmin(1)]
    assert ((nearest - block).abs() > bound).float().mean() > 0.5, "rounding to the nearest level would not pass"


def test_a_second_moment_is_never_zero_beside_a_larger_one() -> None:
    block = torch.zeros(1, BLOCK)
    block[0, 7] = 1e30
    result = stored(Unsigned(), block)
    assert (result > 0).all()
    assert float(result[0, 0]) == pytest.approx(1e30 / 256**4, rel=1e-6)
    assert float(result[0, 7]) == pytest.approx(1e30, rel=1e-6)


@named
def test_zero_blocks_and_the_smallest_numbers(code: Code, levels: Tensor) -> None:
    zero = torch.zeros(2, 5)
    assert torch.equal(stored(code, zero), zero.double())
    for smallest in (1e-24, 1e-38, 1e-42):
        block = torch.tensor([[smallest, 0.0, smallest / 2]])
        result = stored(code, block)
        assert torch.isfinite(result).all()
        assert float(result[0, 0]) == pytest.approx(smallest, rel=1e-2)


def test_the_second_moment_decays_in_the_mean_where_the_nearest_level_stays() -> None:
    """1,000 steps without gradient at beta2 = 0.999, beside an entry that stays: the scale doesn't change."""
    beta2, steps, count = 0.999, 1000, 64 * BLOCK
    start = torch.full((count // BLOCK, BLOCK), 0.1)
    start[:, 0] = 1.0
    ours, nearest = Stored(Unsigned(), torch.zeros(count, dtype=torch.uint8), no_scales(start)), start.double()
    (window,) = block_ranges(count)
    ours.write(window, start.clone())
    for _ in range(steps):
        second = ours.read(window).mul_(beta2)
        second[:, 0] = 1.0
        ours.write(window, second)
        nearest = UNSIGNED[(UNSIGNED - (beta2 * nearest[:1]).unsqueeze(-1)).abs().argmin(-1)]
        nearest[:, 0] = 1.0
    right = 0.1 * beta2**steps
    decayed = ours.read(window)[:, 1:]
    error = decayed.std() / decayed.numel() ** 0.5
    assert abs(decayed.mean() - right) < 5 * error
    assert error < 0.005 * right
    assert nearest[0, 1] > 0.95 * 0.1, "stays at the level it began at"


@pytest.mark.parametrize("entries", [0, 1, 255, 256, 257, 1000, SLICE, SLICE + 1, 2 * SLICE + 300])
def test_windows_hold_every_entry_and_every_block_once(entries: int) -> None:
    flat, scales = torch.arange(entries), no_scales(torch.empty(entries))
    at, block = 0, 0
    for window in block_ranges(entries):
        part = window.of(flat)
        assert part.numel() <= SLICE
        assert part.shape == (window.blocks.stop - block, part.shape[1])
        assert torch.equal(part.flatten(), flat[at : at + part.numel()])
        assert (window.entries.start, window.blocks.start) == (at, block)
        assert part.shape[1] == BLOCK or len(part) == 1
        at, block = window.entries.stop, window.blocks.stop
    assert (at, block) == (entries, len(scales))


def test_blocks_do_not_touch_each_other() -> None:
    values = torch.cat([torch.full((BLOCK,), 1e-6), torch.full((BLOCK,), 1e6), torch.full((3,), 1.0)])
    kept = Stored(Signed(), torch.zeros(len(values), dtype=torch.int8), no_scales(values))
    for window in block_ranges(len(values)):
        kept.write(window, window.of(values).clone())
    assert torch.allclose(torch.cat([kept.read(window).flatten() for window in block_ranges(len(values))]), values)
    assert torch.equal(kept.scales, torch.tensor([1e-6, 1e6, 1.0]))
