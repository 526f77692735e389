"""How far a score, or the difference of two, can be trusted. Pure numpy.

Legend: T = tasks, S = training seeds, D = support draws, E = test examples, B = replicates; n = how often the
replicates drew one task.

Interval            a mean, its 95 % interval, and how easily chance alone gives such a mean
bootstrap           hierarchical bootstrap of the mean over tasks, seeds, draws and examples
holm                p values of several comparisons, adjusted for there being several
verdict             better, worse, or no detectable difference
Spread              assumed standard deviations of a paired difference
detectable_effect   the smallest true difference that a comparison of some size finds 4 times in 5
covers              in words, what an interval over so many tasks, seeds, draws and examples speaks of
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05  # two-sided
POWER = 0.8
REPLICATES = 2000
NO_DIFFERENCE = "no detectable difference"

Values = NDArray[np.float64]


class Interval(NamedTuple):
    """p: two-sided, of "the mean is 0"; it says something only where the values are differences."""

    mean: float
    low: float
    high: float
    p: float


def bootstrap(values: Mapping[str, Values], *, replicates: int = REPLICATES, seed: int = 0) -> Interval:
    """Task -> values (S, D, E), or paired differences of them -> mean over tasks, 95 % percentile interval, p.

    Every task weighs the same; S and D are the same for all tasks, E needn't be. A replicate draws, with replacement,
    T tasks; S seeds, the same for all its tasks, since all of them met the same trained values; and for each task that
    it drew, anew, D of its support draws and E of its test examples, by their places, the same for all its seeds, which
    may have met the same ones. Drawing seeds for each task apart, or examples for each seed apart, would count one
    lucky seed or one odd example as many independent ones; where they are independent, drawing them together is right
    too. That errors within a task go together, and that arms are compared example by example: Miller 2024,
    arXiv:2411.00640.

    What there is only one of is not resampled: the interval says nothing of other tasks with one task, nor of other
    seeds with one seed (`covers`). Where there is one value in all, the interval is that value and p is 1. With few
    tasks that differ more than anything else varies, the interval is too short: it held the truth in 86 of 100
    simulated comparisons of 6 tasks, in 90 of 12. Where examples vary most it is too long: 98 of 100.

    p = 2 min(1 + replicates at or below 0, 1 + those at or above) / (B + 1), at most 1: never 0.
    """
    tasks = [np.asarray(values[name], np.float64) for name in sorted(values)]
    seeds, draws = tasks[0].shape[:2]
    assert all(task.shape[:2] == (seeds, draws) for task in tasks)
    means = np.zeros(replicates)
    sizes = tuple(task.shape[2] for task in tasks)
    for task, drawn in zip(tasks, _resampled(sizes, seeds, draws, replicates, seed), strict=True):
        of_examples = (drawn.examples @ task.reshape(seeds * draws, -1).T).reshape(-1, seeds, draws)  # (n, S, D)
        of_seeds = np.einsum("nsd,nd->ns", of_examples, drawn.draws)
        # One replicate may draw a task more than once, so += by index would lose some.
        means += np.bincount(drawn.replicate, (of_seeds * drawn.seeds).sum(1), minlength=replicates)
    means /= len(tasks)
    # Differences of accuracies often cancel to 0, but for rounding.
    means[np.abs(means) <= 1e-12 * max(np.abs(task).max() for task in tasks)] = 0
    mean = float(np.mean([task.mean() for task in tasks]))
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    single = len(tasks) * seeds * draws * sizes[0] == 1
    return Interval(mean, float(low), float(high), 1.0 if single else _two_sided(means))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values in the order given: Holm 1979. At most LEVEL of families of true nulls have one below LEVEL."""
    count, running = len(p_values), 0.0
    adjusted = [0.0] * count
    for rank, position in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        running = max(running, min(1.0, (count - rank) * p_values[position]))
        adjusted[position] = running
    return adjusted


def verdict(low: float, high: float, *, p_holm: float, higher_is_better: bool) -> str:
    """ "better" or "worse" only where the interval excludes 0 and the adjusted p is below LEVEL."""
    if p_holm >= LEVEL or low <= 0 <= high:
        return NO_DIFFERENCE
    return "better" if (low > 0) == higher_is_better else "worse"


class Spread(NamedTuple):
    """Assumed standard deviations of a paired difference of two arms, in the metric's unit.

    tasks      of the true differences of tasks
    seeds      of what a training seed adds, on all tasks alike
    draws      of what a support draw adds, on one task
    examples   of the differences of one task's examples
    """

    tasks: float
    seeds: float
    draws: float
    examples: float


def detectable_effect(spread: Spread, *, tasks: int, seeds: int, draws: int, examples: int) -> float:
    """The true difference found at LEVEL in POWER of comparisons; examples: of one task. Before Holm's adjustment.

    (z(1 - LEVEL / 2) + z(POWER)) sqrt(tasks^2 / T + seeds^2 / S + draws^2 / TD + examples^2 / TE), normal quantiles.
    Draws and examples count once however many seeds met them, as if they were the same for all of them.
    """
    variance = spread.tasks**2 / tasks + spread.seeds**2 / seeds
    variance += spread.draws**2 / (tasks * draws) + spread.examples**2 / (tasks * examples)
    normal = NormalDist()
    return (normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)) * math.sqrt(variance)


def covers(*, tasks: int, seeds: int, draws: int, examples: int) -> str:
    """ "cover other tasks and test examples like these; they don't cover other training seeds: there is one".

    A count of 0: the interval has nothing to do with it.
    """
    counts = {"tasks": tasks, "training seeds": seeds, "support draws": draws, "test examples": examples}
    several = [name for name, count in counts.items() if count > 1]
    single = [name for name, count in counts.items() if count == 1]
    parts = [f"cover other {_listed(several, 'and')} like these"] if several else []
    parts += [f"don't cover other {_listed(single, 'or')}: there is one"] if single else []
    return "; they ".join(parts)


class _Drawn(NamedTuple):
    """One task in all replicates. replicate: (n,); weights, each row's sum is 1: (n, S), (n, D), (n, E)."""

    replicate: NDArray[np.intp]
    seeds: Values
    draws: Values
    examples: Values


@lru_cache(maxsize=8)  # every metric and arm of a table has the same counts
def _resampled(sizes: tuple[int, ...], seeds: int, draws: int, replicates: int, seed: int) -> list[_Drawn]:
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(sizes), size=(replicates, len(sizes)))
    of_seeds = _weights(rng, replicates, seeds)
    found: list[_Drawn] = []
    for task, size in enumerate(sizes):
        replicate = np.nonzero(chosen == task)[0]
        count = len(replicate)
        found.append(
            _Drawn(replicate, of_seeds[replicate], _weights(rng, count, draws), _weights(rng, count, size)),
        )
    return found


def _weights(rng: np.random.Generator, rows: int, size: int) -> Values:
    """How often each of `size` things is among `size` drawn with replacement, as shares: (rows, size)."""
    drawn = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size) / size


def _two_sided(means: Values) -> float:
    least = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (1 + least) / (len(means) + 1))


def _listed(names: Sequence[str], word: str) -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
