"""Intervals hold the truth as often as they say, and are those of nested loops; flat ones are not.

Legend: T = tasks, S = training seeds, D = support draws, E = test examples, B = replicates.
"""

import itertools
import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.evaluation.statistics import (
    NO_DIFFERENCE,
    Interval,
    Spread,
    Values,
    bootstrap,
    covers,
    detectable_effect,
    holm,
    verdict,
)

VALUES = st.floats(-1e3, 1e3, allow_subnormal=False)
NORMAL_80, NORMAL_975 = 0.8416212, 1.9599640


def simulated(rng: np.random.Generator, spread: Spread, *, tasks: int, seeds: int, draws: int, examples: int) -> Values:
    """(T, S, D, E) differences whose true mean is 0, with a component for each level and one for each value."""
    shapes = {
        (tasks, 1, 1, 1): spread.tasks,
        (1, seeds, 1, 1): spread.seeds,
        (tasks, 1, draws, 1): spread.draws,
        (tasks, 1, 1, examples): spread.examples,
        (tasks, seeds, draws, examples): spread.examples / 2,
    }
    return sum((rng.normal(0, deviation, shape) for shape, deviation in shapes.items()), np.zeros(1))


def by_task(values: Values) -> dict[str, Values]:
    return {f"task {index:02}": each for index, each in enumerate(values)}


def nested_loops(values: Mapping[str, Values], *, replicates: int, seeds_of_each_task: bool = False) -> Values:
    """The docstring of `bootstrap`, line by line. seeds_of_each_task: the mistake that it warns of."""
    rng = np.random.default_rng(99)
    means: list[float] = []
    for _ in range(replicates):
        total = 0.0
        seeds = next(iter(values.values())).shape[0]
        drawn_seeds = [rng.integers(seeds) for _ in range(seeds)]
        for _ in values:
            task = values[list(values)[rng.integers(len(values))]]
            if seeds_of_each_task:
                drawn_seeds = [rng.integers(seeds) for _ in range(seeds)]
            drawn_draws = [rng.integers(task.shape[1]) for _ in range(task.shape[1])]
            drawn_examples = [rng.integers(task.shape[2]) for _ in range(task.shape[2])]
            cells = [task[cell] for cell in itertools.product(drawn_seeds, drawn_draws, drawn_examples)]
            total += float(np.mean(cells))
        means.append(total / len(values))
    return np.array(means)


def flat(values: Values, *, replicates: int) -> Interval:
    """Every value as if it had nothing to do with the others."""
    return bootstrap({"all": values.reshape(1, 1, -1)}, replicates=replicates)


def covered(interval_of: Callable[[Values], Interval], spread: Spread, *, tasks: int = 12, seeds: int = 3) -> float:
    rng, held = np.random.default_rng(5), 0
    for _ in range(200):
        found = interval_of(simulated(rng, spread, tasks=tasks, seeds=seeds, draws=3, examples=10))
        held += found.low <= 0 <= found.high
    return held / 200


def hierarchical(values: Values) -> Interval:
    return bootstrap(by_task(values), replicates=300)


class TestBootstrap:
    def test_it_is_that_of_nested_loops(self) -> None:
        rng = np.random.default_rng(0)
        sizes = (4, 2, 6)  # one task may have more examples than another
        shared = 2 * rng.normal(size=(3, 1, 1))  # what a seed adds to every task
        values = {f"task {e}": e / 4 + shared + rng.normal(size=(3, 2, e)) for e in sizes}
        means = nested_loops(values, replicates=3000)
        found = bootstrap(values, replicates=20_000)
        assert found.mean == pytest.approx(np.mean([each.mean() for each in values.values()]))
        tolerance = 0.1 * float(means.std())
        assert found.low == pytest.approx(np.quantile(means, 0.025), abs=2 * tolerance)
        assert found.high == pytest.approx(np.quantile(means, 0.975), abs=2 * tolerance)
        share = float(min((means <= 0).mean(), (means >= 0).mean()))
        assert found.p == pytest.approx(2 * share, abs=0.04)
        apart = nested_loops(values, replicates=1000, seeds_of_each_task=True)
        width = np.quantile(apart, 0.975) - np.quantile(apart, 0.025)
        assert width < 0.8 * (found.high - found.low), "seeds drawn for each task apart are another, narrower, thing"

    @pytest.mark.parametrize(
        "spread",
        [
            Spread(tasks=0.2, seeds=0.0, draws=0.05, examples=0.2),
            Spread(tasks=0.15, seeds=0.05, draws=0.15, examples=0.6),
            Spread(tasks=0.1, seeds=0.0, draws=0.1, examples=0.5),
        ],
    )
    def test_intervals_hold_the_truth_in_95_of_100(self, spread: Spread) -> None:
        assert 0.90 <= covered(hierarchical, spread) <= 0.99

    def test_a_flat_bootstrap_does_not(self) -> None:
        assert covered(lambda values: flat(values, replicates=300), Spread(0.2, 0.0, 0.05, 0.2)) < 0.5

    def test_without_pairs_an_interval_is_far_wider(self) -> None:
        """The same two arms: what examples share cancels within pairs alone."""
        rng = np.random.default_rng(1)
        difficulty = rng.normal(2, 1, (12, 1, 1, 20))
        one, other = (difficulty + shift + rng.normal(0, 0.1, (12, 1, 2, 20)) for shift in (0.0, 0.1))
        paired = bootstrap(by_task(other - one))
        shuffled = rng.permuted(one, axis=3)
        unpaired = bootstrap(by_task(other - shuffled))
        assert unpaired.mean == pytest.approx(paired.mean)
        assert unpaired.high - unpaired.low > 3 * (paired.high - paired.low)
        assert paired.p < 0.05 < unpaired.p

    def test_a_luckier_seed_widens_the_interval_only_where_there_are_others(self) -> None:
        values = np.zeros((12, 3, 2, 10)) + np.array([-0.5, 0.0, 0.5])[:, None, None]
        found = bootstrap(by_task(values))
        assert (found.low, found.high) == pytest.approx((-0.5, 0.5), abs=0.2)
        alone = bootstrap(by_task(values[:, 2:]))
        assert (alone.low, alone.high) == pytest.approx((0.5, 0.5))

    @pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 1, 5), (3, 1, 1, 1), (1, 2, 1, 1), (1, 1, 4, 1)])
    def test_counts_of_one_have_an_interval(self, shape: tuple[int, ...]) -> None:
        values = np.random.default_rng(3).normal(1, 0.1, shape)
        found = bootstrap(by_task(values), replicates=100)
        assert values.min() - 1e-9 <= found.low <= found.high <= values.max() + 1e-9
        if values.size == 1:
            assert found == pytest.approx((values.item(),) * 3 + (1.0,))
        else:
            assert found.low < found.high

    def test_p_is_never_0(self) -> None:
        assert bootstrap(by_task(np.ones((4, 1, 1, 5))), replicates=99).p == pytest.approx(2 / 100)

    def test_differences_that_cancel_are_no_difference_whatever_the_rounding(self) -> None:
        """Half of the replicates have both tasks; a third is rounded otherwise over 12 examples than over 24."""
        values = {"a": np.full((1, 1, 12), 1 / 3), "b": np.full((1, 1, 24), -1 / 3)}
        assert bootstrap(values).p == 1.0

    def test_seed_and_replicates_decide_the_numbers(self) -> None:
        values = by_task(np.random.default_rng(2).normal(size=(4, 2, 2, 5)))
        assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
        assert bootstrap(values, seed=1) != bootstrap(values, seed=2)

    def test_a_published_comparison_takes_less_than_two_seconds(self) -> None:
        values = by_task(np.random.default_rng(4).normal(size=(12, 3, 5, 50)))
        start = time.perf_counter()
        bootstrap(values, replicates=2000, seed=1234)
        assert time.perf_counter() - start < 2

    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def test_order_shift_and_sign(self, data: st.DataObject) -> None:
        seeds, draws = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
        sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
        numbers = st.lists(VALUES, min_size=seeds * draws * 4, max_size=seeds * draws * 4)
        values = {
            f"task {index}": np.reshape(data.draw(numbers), (seeds, draws, 4))[:, :, :size]
            for index, size in enumerate(sizes)
        }
        found = bootstrap(values, replicates=40)
        order = data.draw(st.permutations(sorted(values)))
        assert bootstrap({name: values[name] for name in order}, replicates=40) == found
        moved = bootstrap({name: 3 - 2 * each for name, each in values.items()}, replicates=40)
        expected = (3 - 2 * found.mean, 3 - 2 * found.high, 3 - 2 * found.low)
        assert moved[:3] == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert 0 < found.p <= 1
        nothing = bootstrap({name: each - each for name, each in values.items()}, replicates=40)
        assert nothing == Interval(0.0, 0.0, 0.0, 1.0)


class TestHolm:
    def test_by_hand(self) -> None:
        # sorted: .01 x 4, .03 x 3, .04 x 2 (below .09, so .09), .5 x 1
        assert holm([0.04, 0.01, 0.5, 0.03]) == pytest.approx([0.09, 0.04, 0.5, 0.09])
        assert holm([0.6, 0.7]) == [1.0, 1.0]
        assert holm([0.02]) == [0.02]
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), max_size=8))
    def test_properties(self, p_values: list[float]) -> None:
        adjusted = holm(p_values)
        pairs = sorted(zip(p_values, adjusted, strict=True))
        assert all(p <= new <= min(1.0, len(pairs) * p) + 1e-12 for p, new in pairs)
        assert [new for _, new in pairs] == sorted(adjusted)

    def test_few_families_of_true_nulls_have_a_winner(self) -> None:
        rng = np.random.default_rng(0)
        p_values = rng.uniform(size=(2000, 5))
        assert np.mean([min(holm(list(row))) < 0.05 for row in p_values]) < 0.065
        assert np.mean(p_values.min(1) < 0.05) > 0.2, "without the adjustment"


@pytest.mark.parametrize(
    ("low", "high", "p", "higher", "expected"),
    [
        (0.1, 0.2, 0.01, True, "better"),
        (0.1, 0.2, 0.01, False, "worse"),
        (-0.2, -0.1, 0.01, False, "better"),
        (-0.2, -0.1, 0.01, True, "worse"),
        (0.1, 0.2, 0.05, True, NO_DIFFERENCE),
        (-0.1, 0.2, 0.01, True, NO_DIFFERENCE),
        (0.0, 0.2, 0.01, True, NO_DIFFERENCE),
        (0.0, 0.0, 1.0, False, NO_DIFFERENCE),
    ],
)
def test_a_verdict_needs_both_interval_and_p(low: float, high: float, p: float, higher: bool, expected: str) -> None:
    assert verdict(low, high, p_holm=p, higher_is_better=higher) == expected


class TestDetectableEffect:
    def test_by_hand(self) -> None:
        # variance: .04/4 + .01/2 + .09/(4*3) + .16/(4*8) = .01 + .005 + .0075 + .005
        found = detectable_effect(Spread(0.2, 0.1, 0.3, 0.4), tasks=4, seeds=2, draws=3, examples=8)
        assert found == pytest.approx((NORMAL_975 + NORMAL_80) * 0.0275**0.5, rel=1e-6)

    def test_it_is_found_four_times_in_five(self) -> None:
        """With a test that knows the true deviations."""
        spread, rng = Spread(0.2, 0.1, 0.3, 0.4), np.random.default_rng(0)
        sizes = {"tasks": 10, "seeds": 3, "draws": 2, "examples": 8}
        effect = detectable_effect(spread, **sizes)
        error = effect / (NORMAL_975 + NORMAL_80)
        parts = [(sizes["tasks"],), (sizes["seeds"],), (sizes["tasks"], sizes["draws"]), (sizes["tasks"], 8)]
        runs = 4000
        means = sum(rng.normal(0, d, (runs, *s)).reshape(runs, -1).mean(1) for d, s in zip(spread, parts, strict=True))
        assert np.mean(np.abs(effect + means) > NORMAL_975 * error) == pytest.approx(0.8, abs=0.02)

    def test_more_of_anything_that_varies_detects_less(self) -> None:
        sizes = {"tasks": 6, "seeds": 1, "draws": 2, "examples": 24}
        first = detectable_effect(Spread(1, 1, 1, 1), **sizes)
        assert all(detectable_effect(Spread(1, 1, 1, 1), **(sizes | {name: 50})) < first for name in sizes)


def test_what_an_interval_covers_is_said() -> None:
    everything = covers(tasks=12, seeds=3, draws=5, examples=50)
    assert everything == "cover other tasks, training seeds, support draws and test examples like these"
    quick = covers(tasks=6, seeds=1, draws=2, examples=24)
    expected = "cover other tasks, support draws and test examples like these; they don't cover other training seeds"
    assert quick == f"{expected}: there is one"
    assert covers(tasks=1, seeds=1, draws=0, examples=1).startswith("don't cover other tasks, training seeds or test")
