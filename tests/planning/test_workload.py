"""What a run goes through: the tokens of its own batches where they can be counted, else the most they can come to."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from config_examples import minimal
from innerloop.config.loading import load_config
from innerloop.data.suites import build_suite
from innerloop.data.tasks import TaskBatch
from innerloop.engine.session import prepare
from innerloop.errors import UserError
from innerloop.learning.methods import METHODS
from innerloop.planning.workload import Workload, workload_of
from small_runs import NAMES, ROWS, TEST, World, settings


def workload(world: World, method: str = "fomaml-lora", **changes: Any) -> Workload:
    return workload_of(load_config(settings(world, method, Path("unused"), changes)), kind="cpu")


@pytest.fixture(scope="module")
def bare(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model's folder without its tokenizer and weights."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copy(world.base / "config.json", folder)
    return str(folder)


def computed(tasks: TaskBatch) -> int:
    return sum(batch.computed_tokens for batch in tasks.batches)


# counted tokens


@pytest.mark.parametrize("method", METHODS)
def test_the_batches_are_those_of_the_run(world: World, method: str) -> None:
    """Against the sessions that training itself makes, model and all."""
    config = load_config(settings(world, method, Path("unused"), {"outer.steps": 5}))
    found, session = workload_of(config, kind="cpu"), prepare(config, model=world.model)
    batches = [stream[step] for _, stream in session.streams() for step in range(5)]
    assert found.encoded
    assert found.adapters == len(session.streams())
    assert [step.names for step in found.steps] == [batch.names for batch in batches]
    assert [[each.keys for each in step.batches] for step in found.steps] == [
        [each.keys for each in batch.batches] for batch in batches
    ]
    rule = config.method.build()
    assert found.tokens_per_step == sum(rule.tokens(batch) for batch in batches) / len(batches)
    assert found.pool == sum(len(task.pool) for task in session.train)
    assert found.tasks_per_forward(config, kind="cpu") == session.tasks_per_forward(session.streams()[0][1])
    trained = session.space().trained()
    assert (found.trained, found.parameters) == (trained.parameters, trained.model_parameters)
    assert found.base_bytes == sum(p.numel() * p.element_size() for p in world.model.model.parameters())


@pytest.mark.parametrize("first", [0.5, 3])
def test_steps_of_joint_training_count_as_what_they_read(world: World, first: float) -> None:
    """As many tokens as the run's trainer says it took."""
    changes = {"outer.steps": 4, "outer.joint_steps": first, "method.inner.steps": 3}
    found = workload(world, **changes)
    session = prepare(found.session.config, model=world.model)
    ((_, batches),) = session.streams()
    trainer = session.trainer(session.space(), batches)
    taken = [trainer.step(batches[step]).tokens for step in range(4)]
    assert found.tokens_per_step == pytest.approx(sum(taken) / 4)
    assert max(taken[: int(max(first, 2))]) < min(taken[int(max(first, 2)) :])
    assert found.tokens_per_step < workload(world, **{**changes, "outer.joint_steps": 0}).tokens_per_step
    assert [(stretch.joint, stretch.share) for stretch in found.stretches] == [
        (True, max(first, 2) / 4),
        (False, 1 - max(first, 2) / 4),
    ]


def test_batches_are_laid_out_for_the_device_of_the_plan(world: World) -> None:
    """As session.streams() lays them out on one: with fillers for a GPU, without on a CPU."""
    config = load_config(settings(world, "fomaml-lora", Path("unused"), {"outer.steps": 5, "outer.tasks_per_step": 3}))
    here, there = (workload_of(config, kind=kind) for kind in ("cpu", "cuda"))
    stream = prepare(config, model=world.model).streams()[0][1]
    assert [computed(step) for step in here.steps] == [computed(stream[step]) for step in range(5)]
    assert all(batch.even for step in there.steps for batch in step.batches)
    assert not any(batch.even for step in here.steps for batch in step.batches)
    assert sum(map(computed, here.steps)) < sum(map(computed, there.steps))


@pytest.mark.parametrize("tasks_per_forward", [1, 2, 3])
def test_the_largest_chunk_is_that_of_all_steps(world: World, tasks_per_forward: int) -> None:
    found = workload(world, **{"outer.steps": 6, "outer.tasks_per_step": 3})
    every = [chunk for step in found.steps for chunk in step.split(tasks_per_forward)]
    tokens = [max(batch.computed_tokens for batch in chunk.batches) for chunk in every]
    largest = found.stretches[0].largest_chunk(tasks_per_forward)
    assert max(batch.computed_tokens for batch in largest.batches) == max(tokens) > min(tokens)
    assert len(largest.names) == tasks_per_forward


def test_a_long_run_is_looked_at_in_part(world: World) -> None:
    assert len(workload(world, **{"outer.steps": 100_000}).steps) == 256
    assert len(workload(world, "lora", **{"outer.steps": 100_000}).steps) == 256


def test_the_cut_keeps_what_a_run_draws_and_no_more_than_there_is(world: World) -> None:
    changes = {"method.lora.layers": "last-1", "memory.trunk_cache": True}
    pool = (len(NAMES) - 1) * (ROWS - TEST)
    assert workload(world, **changes, **{"outer.steps": 1}).cached_examples == 2 * (ROWS - TEST)  # whole companies
    assert workload(world, **changes, **{"outer.steps": 1000}).cached_examples == pool
    assert workload(world, **{"outer.steps": 1000}).cached_examples == 0
    short, long = workload(world).tokens_per_example, max(len(e.tokens) for e in workload(world).session.train[0].pool)
    assert 0 < short <= long


# assumed tokens


def test_without_a_tokenizer_every_example_is_as_long_as_it_may_be(world: World, bare: str) -> None:
    found = workload(world, **{"model.name": bare, "tasks.max_length": 77, "outer.steps": 50})
    assert not found.encoded
    assert (found.tokens_per_step, found.tokens_per_example) == (2 * 8 * 77, 77)  # tasks x (K supports + query)
    (step,) = found.steps
    assert step.query is not None
    assert len(step.query.scored_rows) == 2 * 2 * 76  # the first token is predicted by none
    assert found.pool == workload(world).pool


def test_a_suites_tasks_are_counted_without_building_them(bare: str) -> None:
    for method in ("fomaml-lora", "lora"):
        tree = minimal(method, tasks={"suite": "hidden-rules", "instances": 2, "held_out": ["affine"]})
        tree["model"]["name"] = bare
        config = load_config(tree)
        built = build_suite("hidden-rules", seed=config.seed, examples_per_task=1, test_examples=0, instances=2)
        held_out = [task for task in built if task.family == "affine"]
        found = workload_of(config, kind="cpu")
        train = held_out if method == "lora" else [task for task in built if task not in held_out]
        assert [task.task.name for task in found.session.train] == [task.name for task in train]
        assert found.pool == 100 * len(train)
        assert found.adapters == (len(held_out) if method == "lora" else 1)


# refusals


@pytest.mark.parametrize("tokenizer", [True, False])
def test_what_a_run_would_refuse_is_refused(world: World, bare: str, tokenizer: bool) -> None:
    name = {"model.name": str(world.base) if tokenizer else bare}
    with pytest.raises(UserError, match="a batch larger than the pool") as caught:
        workload(world, **name, **{"tasks.support": 200})
    assert len(caught.value.faults) == len(NAMES) - 1
    with pytest.raises(UserError, match="more tasks than there are"):
        workload(world, **name, **{"outer.tasks_per_step": 9})
    with pytest.raises(UserError, match=r"tasks.held_out: no task or family has this name"):
        workload(world, **name, **{"tasks.held_out": ["nobody"]})
