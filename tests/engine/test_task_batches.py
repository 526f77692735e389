"""Which examples a step reads is known without making its batch, and is what the batch then holds."""

from pathlib import Path
from typing import Any

import pytest

from innerloop.config.loading import load_config
from innerloop.data.sampler import drawn_steps
from innerloop.engine.session import prepare
from innerloop.engine.task_batches import TaskBatches
from small_runs import World, settings


def batches_of(world: World, method: str, **changes: Any) -> TaskBatches:
    session = prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)
    return TaskBatches(session.config, session.train)


@pytest.mark.parametrize("method", ["fomaml-lora", "reptile-lora", "joint-lora", "fomaml"])
def test_the_keys_that_are_drawn_are_those_of_the_batch(world: World, method: str) -> None:
    batches = batches_of(world, method)
    for step, count in ((0, 2), (5, 2)):
        read = batches[step]
        drawn = list(batches.drawn([step]))
        assert len(drawn) == len(read.names) == count
        for place, keys in enumerate(drawn):
            first = read.support[:1]  # the inner steps of these runs share it
            parts = [*first, *([read.query] if read.query else [])]
            assert keys == tuple(key for batch in parts for key in batch.keys[place])
    assert list(batches.drawn([0])) != list(batches.drawn([5]))


def test_steps_are_drawn_in_the_order_that_is_asked_for(world: World) -> None:
    batches = batches_of(world, "fomaml-lora")
    assert list(batches.drawn([4, 1])) == [*batches.drawn([4]), *batches.drawn([1])]


def test_each_outer_step_draws_its_number_of_inner_steps(world: World) -> None:
    choices = [0, 1, 3]
    batches = batches_of(world, "fomaml-lora", **{"method.inner.steps": choices})
    plain = batches_of(world, "fomaml-lora", **{"method.inner.steps": 3})
    counts = [len(batches[step].support) for step in range(12)]
    assert set(counts) == set(choices)
    assert counts == [drawn_steps(choices, seed=batches.seed, step=step) for step in range(12)]
    for step in range(12):
        read, fixed = batches[step], plain[step]
        assert (read.step, read.names, len(fixed.support)) == (step, fixed.names, 3)
        pairs = zip(read.batches[::-1], [fixed.query, *fixed.support], strict=False)
        assert all(one.example_ids == other.example_ids for one, other in pairs if other), "the same examples"
    assert len(batches.largest.support) == 3
    assert batches.largest.names == batches[0].names


def test_batches_lie_packed_only_where_that_is_asked_for(world: World) -> None:
    session = prepare(load_config(settings(world, "fomaml-lora", Path("unused"))), model=world.model)
    apart = TaskBatches(session.config, session.train)[3]
    packed = TaskBatches(session.config, session.train, packed=True)[3]
    for one, other in zip(apart.batches, packed.batches, strict=True):  # packed, tasks of like size are neighbours
        ids = (dict(zip(each.names, part.example_ids, strict=True)) for each, part in ((apart, one), (packed, other)))
        assert next(ids) == next(ids)
    assert not any(batch.packed for batch in apart.batches)
    assert all(batch.packed for batch in packed.batches)
