"""Which examples a step reads is known without making its batch, and is what the batch then holds."""

from pathlib import Path
from typing import Any

import pytest

from helpers import close, own_names, randomize_b, reference_model, same
from innerloop.config.loading import load_config
from innerloop.config.schema import ABSENT
from innerloop.data.sampler import drawn_steps
from innerloop.engine.session import Session, prepare
from innerloop.engine.task_batches import TaskBatches
from innerloop.learning.methods import METHODS
from innerloop.numerics.tensors import per_task, zeros_like
from reference import naive
from small_runs import World, settings

IN_CONTEXT = {"tasks.prompt": "in-context"}


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


def test_the_methods_own_steps_are_counted_from_where_joint_training_ends(world: World) -> None:
    """There a warm-up of the inner rate begins, and a multi-step loss."""
    batches = batches_of(world, "fomaml-lora", **{"outer.joint_steps": 3, "outer.steps": 8})
    assert [batches[step].step for step in range(7)] == [0, 0, 0, 0, 1, 2, 3]


def test_batches_lie_packed_only_where_that_is_asked_for(world: World) -> None:
    session = prepare(load_config(settings(world, "fomaml-lora", Path("unused"))), model=world.model)
    apart = TaskBatches(session.config, session.train)[3]
    packed = TaskBatches(session.config, session.train, packed=True)[3]
    for one, other in zip(apart.batches, packed.batches, strict=True):  # packed, tasks of like size are neighbours
        ids = (dict(zip(each.names, part.example_ids, strict=True)) for each, part in ((apart, one), (packed, other)))
        assert next(ids) == next(ids)
    assert not any(batch.packed for batch in apart.batches)
    assert all(batch.packed for batch in packed.batches)


# examples in the prompt


def session_of(world: World, method: str, **changes: Any) -> Session:
    return prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)


def in_context(world: World, method: str, **changes: Any) -> Session:
    query = ABSENT if "joint" in method or "context" in method or "reptile" in method else 2
    return session_of(world, method, **{**IN_CONTEXT, "tasks.query": query, **changes})


SGD = naive.Inner(2, lr=0.1, clip=1.0)
STEPS = {
    f"method.inner.{key}": value for key, value in {"optimizer.name": "sgd", "optimizer.lr": 0.1, "clip": 1.0}.items()
}


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if not row.one_task])
def test_a_step_on_prompts_with_examples_in_them_is_the_naive_methods(world: World, method: str) -> None:
    loop = "inner" in METHODS[method].rule.options()
    session = in_context(world, method, **(STEPS if loop else {}))
    tasks, space = session.streams()[0][1][3], session.space()
    randomize_b(space.shared)
    if loop:
        assert len({id(batch) for batch in tasks.support}) == 2, "drawn anew for each step"
        assert {batch.tokens.shape[:2] for batch in tasks.support} == {(2, 3)}, "so many prompts of a task"
    else:
        assert tasks.query is not None
        assert [[len(prompt.answers) for prompt in task] for task in tasks.query.examples] == [[4], [4]]
    queries = tasks.query.examples if tasks.query else [()] * 2
    each = [([list(step.examples[t]) for step in tasks.support], list(queries[t])) for t in range(2)]
    found = zeros_like(space.shared)
    for chunk in tasks.split(space.limit or 2):
        session.config.method.build().outer_gradient(space, per_task(space.shared, len(chunk.names)), chunk, found)
    mean = {name: value / 2 for name, value in found.items()}
    # A difference of neighbours has their error, and so have second derivatives along a path.
    rule, tolerance = method.replace("in-context", "joint"), 1e-3 if "reptile" in method or "maml-" in method else 1e-4
    model = reference_model(space, space.shared)
    assert close(mean, own_names(naive.outer_gradient(rule, model, each, SGD)), tolerance)
    more = [
        ([[one._replace(prompt=1, between=()) for one in step] for step in support], query) for support, query in each
    ]
    wrong = more if loop else [([], [one._replace(prompt=one.asked, between=()) for one in query]) for _, query in each]
    assert not close(mean, own_names(naive.outer_gradient(rule, model, wrong, SGD)), 1e-2), "of other losses"


def test_joint_lora_with_such_prompts_is_in_context_lora(world: World) -> None:
    """A law, bit for bit."""
    ours, theirs = in_context(world, "in-context-lora"), in_context(world, "joint-lora")
    plain = session_of(world, "joint-lora")
    trained = []
    for session in (ours, theirs, plain):
        space, (_, batches) = session.space(), session.streams()[0]
        trainer = session.trainer(space, batches)
        for step in range(2):
            trainer.step(batches[step])
        trained.append(space.shared)
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])
    assert ours.config.method.row.rule is theirs.config.method.row.rule
    told = [session.config.model_dump(exclude={"method": {"name"}}) for session in (ours, theirs)]
    assert told[0] == told[1]


@pytest.mark.parametrize("method", ["in-context-lora", "fomaml-lora"])
def test_such_prompts_are_a_function_of_the_seed_and_the_step(world: World, method: str) -> None:
    def read(step: int, **changes: Any) -> list[Any]:
        return [batch.examples for batch in in_context(world, method, **changes).streams()[0][1][step].batches]

    assert read(5) == read(5) != read(6)
    assert read(5) != read(5, seed=8)


def test_a_step_draws_as_many_examples_as_it_reads(world: World) -> None:
    batches = in_context(world, "in-context-lora").streams()[0][1]
    assert {len(drawn) for drawn in batches.drawn([0, 1])} == {4}
    query = batches[0].query
    assert query is not None
    assert {len(prompt.answers) for task in query.examples for prompt in task} == {4}
    single = [len(example.tokens) for task in in_context(world, "in-context-lora").train for example in task.pool]
    assert query.token_count > 2 * 4 * min(single), "every example counts"
