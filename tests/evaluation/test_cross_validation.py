"""Folds leave each example out once, and the chosen number of steps is that of a plain loop over them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.config.loading import load_config
from innerloop.data.batches import collate
from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import Example, Task
from innerloop.data.token_ids import Encoded
from innerloop.engine.session import prepare
from innerloop.errors import UserError
from innerloop.evaluation.cross_validation import MOST_FOLDS, StepChoice, choose_steps, fold_fault, folds, most_steps
from innerloop.evaluation.kshot import score
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import Sgd
from innerloop.numerics.tensors import per_task
from small_runs import Runs, World, records, settings


def encoded(examples: list[Example]) -> EncodedTask:
    ids = tuple(Encoded(example.id, (1, place + 2), prompt=1) for place, example in enumerate(examples))
    return EncodedTask(Task("t", tuple(examples)), ids, (), dropped=0, truncated=0)


PAIRS = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 3)), unique=True, max_size=40)


@given(PAIRS)
def test_each_example_is_left_out_once_with_all_of_its_prompt(pairs: list[tuple[int, int]]) -> None:
    examples = [Example(f"p{prompt}", f"a{answer}") for prompt, answer in pairs]
    task, prompts = encoded(examples), {prompt for prompt, _ in pairs}
    found = folds(task)
    assert bool(found) == (len(prompts) > 1) == (fold_fault(task.task) is None)
    if not found:
        return
    assert len(found) == min(len(prompts), MOST_FOLDS)
    assert sorted(example.id for fold in found for example in fold.task.test) == sorted(
        task.task.pool[i].id for i in range(len(pairs))
    )
    for fold in found:
        assert len(fold.task.pool) + len(fold.task.test) == len(examples)
        assert [each.id for each in (*fold.pool, *fold.test)] == [
            each.id for each in (*fold.task.pool, *fold.task.test)
        ]
    turned = folds(encoded(examples[::-1]))
    assert [{e.id for e in fold.task.test} for fold in turned] == [{e.id for e in fold.task.test} for fold in found]


def test_the_fewest_steps_of_the_lowest_nats_are_chosen() -> None:
    assert StepChoice((3.0, 1.0, 2.0, 1.0)).steps == 1
    assert StepChoice((1.0, float("nan"), float("inf"))).steps == 0
    assert StepChoice((float("nan"), 5.0)).steps == 1
    assert [most_steps(InnerLoop(steps=steps, optimizer=Sgd(lr=1.0))) for steps in (1, 3, 5)] == [10, 10, 15]


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml"])
def test_the_nats_are_those_of_a_plain_loop(world: World, method: str) -> None:
    session = prepare(load_config(settings(world, method, Path("unused"))), model=world.model)
    space, inner = session.space(), InnerLoop(steps=2, optimizer=Sgd(lr=0.1))
    short, other, *_ = session.train
    tasks = [EncodedTask(replace(short.task, pool=short.task.pool[:3], test=()), short.pool[:3], (), 0, 0), other]
    found = choose_steps(space, inner, tasks, most=2)
    for task, choice in zip(tasks, found, strict=True):
        for steps in range(3):
            nats: list[float] = []
            for fold in folds(task):
                values = per_task(space.shared, 1)
                if steps:
                    values = replace(inner, steps=steps).adapt(space, values, [collate([fold.pool])]).values
                nats += score(space, values, [fold])[0].nats
            assert choice.nats[steps] == pytest.approx(np.mean(nats), rel=1e-4)
        assert choice.nats[0] != pytest.approx(choice.nats[2], rel=1e-3)
    assert found[0].nats != pytest.approx(found[1].nats, rel=1e-3)


def test_python_adapts_as_many_steps_as_are_chosen(runs: Runs) -> None:
    learned, rows = runs("fomaml-lora"), records("eve")[:4]
    (task,) = learned.encoder.tasks([Task("t", tuple(learned.encoder.examples(rows)))])
    inner = replace(learned.inner, optimizer=replace(learned.inner.optimizer, lr=0.05))
    (choice,) = choose_steps(learned.space, inner, [task])
    adapted = learned.adapt(rows, steps="auto", lr=0.05)
    assert len(adapted.losses) == choice.steps
    assert choice.steps != learned.inner.steps, "else this shows nothing"
    assert adapted.losses == learned.adapt(rows, steps=choice.steps or 1, inner=inner).losses[: choice.steps]
    with pytest.raises(UserError, match="too few examples to leave one out"):
        learned.adapt(rows[:1], steps="auto")
    with pytest.raises(UserError, match=r"steps: not a count[^$]*lr: not a learning rate"):
        learned.adapt(rows, steps=0, lr=float("nan"))
