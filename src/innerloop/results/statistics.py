"""How far a score, or the difference of two, can be trusted: crossed random effects, tasks x seeds, and t intervals.

Legend: T = tasks, S = training seeds, X = any axes before them (many comparisons at once).

Interval            a mean, its 95 % interval, and how easily chance alone gives such a mean
interval            task -> values of each seed: the interval of the mean over tasks
Bounds, bounds      the same of tables (X, T, S), in arrays
sides               which intervals leave out 0, and on which side
unjudged            why nothing is said of a method: too few seeds or tasks
verdict             better, worse, no detectable difference, or why there is none
Spread              assumed standard deviations of a paired difference
detectable_effect   the smallest true difference that a comparison of some size finds 4 times in 5
covers              in words, what an interval over so many tasks and seeds speaks of
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05  # two-sided
POWER = 0.8
FEWEST_SEEDS, FEWEST_TASKS = 3, 2  # for a word about a method
FEWEST = f"{FEWEST_TASKS} tasks and {FEWEST_SEEDS} seeds"
NO_DIFFERENCE = "no detectable difference"
THESE_VALUES, THIS_TASK = "these trained values", "this task alone"
ROUNDING = 1e-12  # of the largest value: what is smaller is 0
SIMULATED = 20_000

Values = NDArray[np.float64]


class Interval(NamedTuple):
    """p: two-sided, of "the mean is 0". None: there is no such thing of so few seeds or tasks."""

    mean: float
    low: float | None
    high: float | None
    p: float | None


class Bounds(NamedTuple):
    """Of tables (X, T, S): arrays (X)."""

    mean: Values
    low: Values
    high: Values
    p: Values


class MeanSquares(NamedTuple):
    """Of a table's tasks, seeds and what is left of it, with their degrees of freedom: arrays (X)."""

    tasks: Values
    seeds: Values
    rest: Values


def interval(values: Mapping[str, Values]) -> Interval:
    """Task -> values (S, ...), or paired differences of them -> mean over tasks, 95 % interval, p.

    Within a task and seed everything (support draws, test examples) is averaged; tasks and seeds weigh the same.
    With one task, or with fewer than 3 seeds, there is no p, since nothing can be said of a method: the interval is
    then over the seeds of this task, or over tasks for these trained values, and none where there is only one of both.
    """
    table = np.array([np.asarray(values[name], np.float64).reshape(len(values[name]), -1).mean(1) for name in values])
    tasks, seeds = table.shape
    if tasks < FEWEST_TASKS and seeds < FEWEST_SEEDS:
        return Interval(float(table.mean()), None, None, None)
    if seeds < FEWEST_SEEDS:
        table = table.mean(1, keepdims=True)  # these values are all there is: only tasks are drawn
    found = Interval(*(float(each) for each in bounds(table)))
    return found if unjudged(tasks=tasks, seeds=seeds) is None else found._replace(p=None)


def bounds(tables: Values) -> Bounds:
    """Tables (X, T, S) -> the mean of each, its 95 % t interval, and p of "it is 0". T or S may be 1, not both.

    value = mean + task + seed + rest, each effect drawn anew for other tasks and seeds, since a training seed's luck is
    shared by all of its tasks. The variance of the mean is (tasks + seeds - rest) / TS, in mean squares; their noise
    may make that too small, so it is no less than the larger of the tasks' and the seeds' mean square / TS. Degrees of
    freedom are Satterthwaite's: of the three mean squares, or where one stands alone, its own.
    """
    from scipy.special import stdtr, stdtrit

    *_, tasks, seeds = tables.shape
    mean, squares = tables.mean((-2, -1)), mean_squares(tables)
    variance, freedom = _variance(squares, tasks, seeds)
    largest = np.abs(tables).max((-2, -1))
    # Differences of accuracies often cancel to 0, but for rounding.
    mean = np.where(np.abs(mean) <= ROUNDING * largest, 0.0, mean)
    error = np.where(np.sqrt(variance) <= ROUNDING * largest, 0.0, np.sqrt(variance))
    width = stdtrit(freedom, 1 - LEVEL / 2) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stdtr(freedom, -np.abs(mean) / error)
    return Bounds(mean, mean - width, mean + width, np.where(error > 0, p, np.where(mean == 0, 1.0, 0.0)))


def sides(found: Bounds) -> NDArray[np.int64]:
    """1 where the interval lies above 0, -1 where below, 0 where it holds 0: arrays (X)."""
    return np.asarray(found.low > 0, np.int64) - np.asarray(found.high < 0, np.int64)


def unjudged(*, tasks: int, seeds: int) -> str | None:
    """What a difference is about where it can't be about a method: "these trained values", "this task alone"."""
    if seeds < FEWEST_SEEDS:
        return THESE_VALUES
    return THIS_TASK if tasks < FEWEST_TASKS else None


def verdict(found: Interval, *, tasks: int, seeds: int, higher_is_better: bool) -> str:
    """ "better" or "worse" only of 3 seeds or more and 2 tasks or more, where the interval leaves out 0."""
    if (about := unjudged(tasks=tasks, seeds=seeds)) is not None:
        return about
    side = int(sides(Bounds(*(np.asarray(each) for each in found))))
    return NO_DIFFERENCE if side == 0 else "better" if (side > 0) == higher_is_better else "worse"


class Spread(NamedTuple):
    """Assumed standard deviations of a paired difference of two arms, in the metric's unit.

    tasks   of the true differences of tasks
    seeds   of what a training seed adds, on all tasks alike
    both    of what it adds on one task, with the noise of that task's support draws and test examples
    """

    tasks: float
    seeds: float
    both: float


def detectable_effect(spread: Spread, *, tasks: int, seeds: int) -> float | None:
    """The true difference that `verdict` finds in POWER of comparisons; None where it says nothing of methods.

    The share that is found is that of the test itself: the mean is normal and the three mean squares are multiples of
    chi-squares, all independent, so for each of many drawn ones the share beyond the interval that they give is exact.
    """
    from scipy.special import ndtr, stdtrit

    if unjudged(tasks=tasks, seeds=seeds) is not None:
        return None
    of_tasks, of_seeds, both = (np.float64(part) ** 2 for part in spread)
    expected = MeanSquares(*map(np.asarray, (seeds * of_tasks + both, tasks * of_seeds + both, both)))
    error = math.sqrt(float(expected.tasks + expected.seeds - expected.rest) / (tasks * seeds))
    if not error:
        return 0.0
    rng, counts = np.random.default_rng(0), _freedom(tasks, seeds)
    drawn = [mean * rng.chisquare(n, SIMULATED) / n for mean, n in zip(expected, counts, strict=True)]
    variance, freedom = _variance(MeanSquares(*drawn), tasks, seeds)
    width = stdtrit(freedom, 1 - LEVEL / 2) * np.sqrt(variance)

    def found(effect: float) -> float:
        return float((ndtr((effect - width) / error) + ndtr((-effect - width) / error)).mean())

    low, high = 0.0, error
    while found(high) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-6 * error:
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) < POWER else (low, middle)
    return high


def covers(*, tasks: int, seeds: int) -> str:
    """ "cover other tasks like these, for these trained values; they don't cover other training seeds: there are 2"."""
    if seeds >= FEWEST_SEEDS:
        if tasks >= FEWEST_TASKS:
            return "cover other tasks and training seeds like these"
        return "cover other training seeds; they don't cover other tasks: there is one"
    count = f"there {'is one' if seeds == 1 else f'are {seeds}'}, and 3 are needed"
    if tasks >= FEWEST_TASKS:
        return f"cover other tasks like these, for these trained values; they don't cover other training seeds: {count}"
    return f"are left out: there is one task, and of training seeds {count}"


def mean_squares(tables: Values) -> MeanSquares:
    """Tables (X, T, S). What there is only one of has none: 0."""
    tasks, seeds = tables.shape[-2:]
    mean = tables.mean((-2, -1), keepdims=True)
    of_tasks, of_seeds = tables.mean(-1, keepdims=True) - mean, tables.mean(-2, keepdims=True) - mean
    parts = seeds * of_tasks**2, tasks * of_seeds**2, (tables - mean - of_tasks - of_seeds) ** 2
    counts = _freedom(tasks, seeds)
    return MeanSquares(*(part.sum((-2, -1)) / max(n, 1) for part, n in zip(parts, counts, strict=True)))


def _freedom(tasks: int, seeds: int) -> tuple[int, int, int]:
    return tasks - 1, seeds - 1, (tasks - 1) * (seeds - 1)


def _variance(squares: MeanSquares, tasks: int, seeds: int) -> tuple[Values, Values]:
    """Of the mean, and its degrees of freedom: arrays (X)."""
    of_tasks, of_seeds, of_rest = (max(n, 1) for n in _freedom(tasks, seeds))
    floor = np.maximum(squares.tasks, squares.seeds)
    whole = squares.tasks + squares.seeds - squares.rest
    parts = squares.tasks**2 / of_tasks + squares.seeds**2 / of_seeds + squares.rest**2 / of_rest
    even = 1 - 1e-9  # mean squares that are equal but for rounding are equal
    alone = np.where(squares.tasks >= even * squares.seeds, of_tasks, of_seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(even * whole > floor, whole**2 / parts, alone)
    return np.maximum(whole, floor) / (tasks * seeds), freedom
