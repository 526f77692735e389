import math
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.sampler import TaskStream, drawn_steps, prompts_of
from innerloop.data.tasks import Example


def stream(pools: list[int], *, seed: int = 0, tasks_per_step: int = 2, support: int = 3, query: int = 2) -> TaskStream:
    names = [f"task {t}" for t in range(len(pools))]
    return TaskStream(names, pools, seed=seed, tasks_per_step=tasks_per_step, support=support, query=query)


@st.composite
def streams(draw: st.DrawFn) -> TaskStream:
    support, query = draw(st.integers(1, 6)), draw(st.integers(0, 6))
    pools = draw(st.lists(st.integers(support + query, 40), min_size=1, max_size=9))
    tasks_per_step = draw(st.integers(1, len(pools)))
    seed = draw(st.integers(0, 2**32))
    return stream(pools, seed=seed, tasks_per_step=tasks_per_step, support=support, query=query)


@settings(max_examples=60, deadline=None)
@given(streams(), st.integers(0, 10**12))
def test_a_draw_has_different_tasks_and_disjoint_examples(tasks: TaskStream, step: int) -> None:
    draw = tasks.draw(step)
    assert len(set(draw.tasks)) == tasks.tasks_per_step
    for task, support, query in zip(draw.tasks, draw.support, draw.query, strict=True):
        assert (len(support), len(query)) == (tasks.support, tasks.query)
        assert len({*support, *query}) == tasks.support + tasks.query
        assert all(0 <= position < tasks.pools[task] for position in (*support, *query))
    assert tasks.draw(step) == draw


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, unique=True), st.integers(0, 2**32 - 1), st.integers(0, 10**12))
def test_a_drawn_number_of_steps_is_one_of_the_choices(choices: list[int], seed: int, step: int) -> None:
    assert drawn_steps(choices, seed=seed, step=step) in choices
    assert drawn_steps(choices, seed=seed, step=step) == drawn_steps(tuple(choices), seed=seed, step=step)


def test_every_number_of_steps_is_drawn_as_often() -> None:
    drawn = [drawn_steps([0, 1, 3, 10], seed=7, step=step) for step in range(2000)]
    assert all(440 <= count <= 560 for count in Counter(drawn).values()), Counter(drawn)
    assert drawn != [drawn_steps([0, 1, 3, 10], seed=8, step=step) for step in range(2000)]
    alike = sum(here == before for here, before in zip(drawn[1:], drawn, strict=False))
    assert 440 <= alike <= 560, "no step depends on the one before"


@settings(max_examples=30, deadline=None)
@given(streams())
def test_every_task_is_drawn_equally_often_in_a_block(tasks: TaskStream) -> None:
    block = math.lcm(len(tasks.pools), tasks.tasks_per_step) // tasks.tasks_per_step
    count = Counter(task for step in range(3 * block) for task in tasks.draw(step).tasks)
    assert len(count) == len(tasks.pools)
    assert len(set(count.values())) == 1


def test_every_example_of_a_pool_is_drawn_within_fifty_rounds() -> None:
    tasks = stream([5, 9, 100, 200], tasks_per_step=4)
    drawn = [set() for _ in tasks.pools]
    for step in range(50):
        for task, support, query in zip(*tasks.draw(step), strict=True):
            drawn[task].update(support, query)
    assert [len(positions) for positions in drawn] == tasks.pools


def test_a_pool_is_gone_through_before_an_example_returns() -> None:
    tasks = stream([20], tasks_per_step=1)
    for turn in range(5):
        draws = [tasks.draw(4 * turn + step) for step in range(4)]
        seen = [position for draw in draws for position in (*draw.support[0], *draw.query[0])]
        assert sorted(seen) == list(range(20))
        assert seen != list(range(20))


def test_the_billionth_draw_costs_no_more_than_the_first() -> None:
    """Counted in calls, which no processor takes more or fewer of."""
    pools = [100] * 50
    first, late = (calls(stream(pools, tasks_per_step=8), step) for step in (0, 10**9))
    assert late <= 2 * first


def calls(tasks: TaskStream, step: int) -> int:
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1

    sys.setprofile(count)
    try:
        tasks.draw(step)
    finally:
        sys.setprofile(None)
    return seen


def test_seeds_steps_and_names_give_other_draws() -> None:
    pools = [30] * 6
    draw = stream(pools).draw(7)
    assert stream(pools).draw(7) == draw
    assert stream(pools, seed=1).draw(7) != draw
    assert stream(pools).draw(8) != draw
    renamed = TaskStream([f"other {t}" for t in range(6)], pools, seed=0, tasks_per_step=2, support=3, query=2)
    assert renamed.draw(7).tasks == draw.tasks
    assert renamed.draw(7).support != draw.support


def test_pools_of_one_size_are_not_drawn_in_one_order() -> None:
    draw = stream([30, 30], tasks_per_step=2).draw(0)
    assert draw.support[0] != draw.support[1]


def test_support_and_query_do_not_keep_their_examples() -> None:
    """An example is support in one round and query in another."""
    tasks = stream([10], tasks_per_step=1)
    support = {p for step in range(20) for p in tasks.draw(step).support[0]}
    query = {p for step in range(20) for p in tasks.draw(step).query[0]}
    assert support == query == set(range(10))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 3), st.integers(0, 3))
def test_no_two_examples_of_a_draw_share_a_prompt_and_all_of_them_have_their_turn(
    prompts: list[int], support: int, query: int
) -> None:
    pool = [Example(f"P {prompt}" if row % 2 else f"p  {prompt}", f"{row}") for row, prompt in enumerate(prompts)]
    need, different = support + query, len(set(prompts))
    if different < need:
        with pytest.raises(ValueError, match=f"a pool of {different} examples"):
            TaskStream(["t"], [prompts_of(pool)], seed=1, tasks_per_step=1, support=support, query=query)
        return
    tasks = TaskStream(["t"], [prompts_of(pool)], seed=1, tasks_per_step=1, support=support, query=query)
    drawn = set()
    for step in range(100 * len(prompts)):
        draw = tasks.draw(step)
        positions = [*draw.support[0], *draw.query[0]]
        assert len({prompts[position] for position in positions}) == need
        drawn.update(positions)
        if len(drawn) == len(prompts):
            break
    assert drawn == set(range(len(prompts)))


def test_a_pool_of_different_prompts_is_drawn_as_one_that_is_only_counted() -> None:
    pool = [Example(f"p{row}", "a") for row in range(20)]
    counted, read = (
        TaskStream(["t"], [given], seed=4, tasks_per_step=1, support=3, query=2) for given in (20, prompts_of(pool))
    )
    assert [counted.draw(step) for step in range(20)] == [read.draw(step) for step in range(20)]


@pytest.mark.parametrize(("pools", "tasks_per_step"), [([4, 30], 1), ([30], 2), ([30], 0)])
def test_what_cannot_be_drawn_is_refused(pools: list[int], tasks_per_step: int) -> None:
    with pytest.raises(ValueError, match=r"pool of 4 examples|tasks per step"):
        stream(pools, tasks_per_step=tasks_per_step)
