"""k-shot scores are those of a plain loop over examples, and the adaptation with the best of them is chosen."""

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers import frozen_copy, same
from innerloop.config.loading import load_config
from innerloop.data.batches import collate
from innerloop.data.encoding import EncodedTask
from innerloop.data.token_ids import Encoded
from innerloop.engine.session import Session, prepare
from innerloop.evaluation.kshot import (
    Chunk,
    TaskScore,
    adapt,
    adapt_and_score,
    choose,
    draw_support,
    mean_correct,
    mean_nats,
    score,
)
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.kinds import Grid
from innerloop.spaces.space import ParameterSpace
from small_runs import World, settings

K = 4
INNER = InnerLoop(steps=3, optimizer=AdamW(lr=0.01))


@pytest.fixture(scope="module", params=["fomaml-lora", "fomaml"])
def session(world: World, request: pytest.FixtureRequest) -> Session:
    return prepare(load_config(settings(world, request.param, Path("unused"))), model=world.model)


@pytest.fixture(scope="module")
def space(session: Session) -> ParameterSpace:
    return session.space()


def supports_of(tasks: Sequence[EncodedTask]) -> list[list[Encoded]]:
    return [draw_support(task, K, seed=5) for task in tasks]


@torch.no_grad()
def plain_score(space: ParameterSpace, values: TensorSet, task: EncodedTask) -> TaskScore:
    """One example after the other, by the model's own logits."""
    nats: list[Tensor] = []
    stop_nats: list[Tensor] = []
    exact: list[bool] = []
    for example in task.test:
        tokens, targets = torch.tensor([example.tokens]), torch.tensor(example.scored)
        with space.installed(values) as model:
            logits: Tensor = model(input_ids=tokens, use_cache=False).logits[0, example.prompt - 1 : -1]
        picked = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
        nats.append(-picked[: -example.end].mean())
        stop_nats.append(-picked[-example.end :].mean())
        exact.append(bool((logits.argmax(-1) == targets).all()))
    ids = tuple(example.id for example in task.test)
    both = (tuple(torch.stack(part).tolist()) for part in (nats, stop_nats))
    return TaskScore(task.task.name, ids, *both, tuple(float(right) for right in exact))


def adapted(space: ParameterSpace, inner: InnerLoop, support: list[Encoded]) -> TensorSet:
    return inner.adapt(space, per_task(space.shared, 1), [collate([support])]).values


def nats_of(scores: Sequence[TaskScore]) -> list[float]:
    return [each.mean_nats for each in scores]


def test_support_is_drawn_from_the_pool_by_seed_and_name(session: Session) -> None:
    task = session.train[0]
    drawn = draw_support(task, K, seed=5)
    assert len(set(drawn)) == K
    assert set(drawn) <= set(task.pool)
    assert drawn == draw_support(task, K, seed=5) == draw_support(task, K + 2, seed=5)[:K]
    assert drawn != draw_support(task, K, seed=6)
    renamed = replace(task, task=replace(task.task, name="another"))
    assert drawn != draw_support(renamed, K, seed=5)


def test_scores_are_those_of_the_models_own_logits(session: Session, space: ParameterSpace) -> None:
    for task in session.train:
        values = adapted(space, replace(INNER, steps=30), list(task.test))
        (found,) = score(space, values, [task])
        expected = plain_score(space, values, task)
        assert (found.task, found.ids, found.correct) == (expected.task, expected.ids, expected.correct)
        assert found.nats == pytest.approx(expected.nats, rel=1e-4)
        assert found.stop_nats == pytest.approx(expected.stop_nats, rel=1e-4)
        assert found.nats != pytest.approx(found.stop_nats, rel=1e-2)
        (before,) = score(space, per_task(space.shared, 1), [task])
        assert (before.mean_correct, found.mean_correct) == (0.0, 1.0), "learned by heart, every answer is exact"
        assert found.mean_nats < before.mean_nats / 2


def test_one_adaptation_gives_the_scores_after_each_number_of_steps(session: Session, space: ParameterSpace) -> None:
    tasks, shared = session.train, frozen_copy(space.shared)
    supports = supports_of(tasks)
    found = adapt_and_score(space, INNER, supports, tasks, after=(0, 1, 3))
    assert sorted(found) == [0, 1, 3]
    for steps, scores in found.items():
        inner = replace(INNER, steps=steps)
        expected = [
            plain_score(space, adapted(space, inner, support), task)
            for support, task in zip(supports, tasks, strict=True)
        ]
        assert [each.task for each in scores] == [task.task.name for task in tasks]
        assert nats_of(scores) == pytest.approx(nats_of(expected), rel=1e-4)
    assert nats_of(found[0]) != pytest.approx(nats_of(found[1]), rel=1e-3)
    assert nats_of(found[1]) != pytest.approx(nats_of(found[3]), rel=1e-3)
    assert same(space.shared, shared)


def test_smaller_forwards_give_the_same(session: Session, space: ParameterSpace) -> None:
    tasks, supports = session.train, supports_of(session.train)

    def nats(tokens: int | None) -> list[float]:
        found: list[TaskScore] = []

        def look(taken: int, values: TensorSet, chunk: Chunk) -> None:
            if taken == INNER.steps:
                found.extend(score(space, values, chunk.tasks, tokens=tokens))

        adapt(space, INNER, supports, tasks, look=look, tokens=tokens)
        return nats_of(found)

    assert nats(1) == pytest.approx(nats(None), rel=1e-4)


def test_the_values_of_some_tasks_are_gone_before_those_of_the_next_are_made(
    session: Session, space: ParameterSpace
) -> None:
    """Of all parameters, each is as large as the model."""
    tasks, seen = session.train, dict[str, "weakref.ref[Tensor]"]()

    def look(taken: int, values: TensorSet, chunk: Chunk) -> None:
        (name,) = (task.task.name for task in chunk.tasks)
        assert all(ref() is None for other, ref in seen.items() if other != name)
        seen[name] = weakref.ref(next(iter(values.values())))
        assert seen[name]() is not None

    adapt(space, INNER, supports_of(tasks), tasks, look=look, tokens=1)
    assert len(seen) == len(tasks) > 1


def test_more_steps_than_the_inner_loop_has_are_taken_and_no_others(session: Session, space: ParameterSpace) -> None:
    tasks = session.train[:1]
    supports = supports_of(tasks)
    passes: list[int] = []
    adapt_and_score(space, INNER, supports, tasks, after=(5,), on_pass=passes.append)
    support, test = collate(supports).token_count, collate([tasks[0].test]).token_count
    assert sorted(passes) == sorted([*[support] * 5, test])


def test_the_lowest_mean_on_validation_tasks_is_chosen(session: Session, space: ParameterSpace) -> None:
    tasks = session.train
    supports, grid = supports_of(tasks), Grid(lrs=(1e-4, 0.02, 5.0), steps=(1, 4))
    by_hand: dict[tuple[float, int], float] = {}
    for lr in grid.lrs:
        tried = replace(INNER, optimizer=AdamW(lr=lr))
        for steps in grid.steps:
            scores = adapt_and_score(space, tried, supports, tasks, after=(steps,))[steps]
            by_hand[lr, steps] = mean_nats(scores)
    best = min(by_hand, key=lambda pair: by_hand[pair])
    chosen = choose(space, INNER, grid, tasks, k=K, seed=5)
    assert chosen == InnerLoop(steps=best[1], optimizer=AdamW(lr=best[0]))
    worst = max(by_hand, key=lambda pair: by_hand[pair])
    left = Grid(lrs=(best[0], worst[0]), steps=(worst[1], best[1]))
    assert choose(space, INNER, left, tasks, k=K, seed=5) == chosen
    assert best != worst


def test_means_weigh_every_task_alike() -> None:
    scores = [
        TaskScore("a", ("1",), (1.0,), (9.0,), (0.0,)),
        TaskScore("b", ("2", "3"), (1.0, 3.0), (9.0, 9.0), (0.0, 1.0)),
        TaskScore("c", ("4",), (6.0,), (9.0,), (1.0,)),
    ]
    assert (mean_nats(scores), mean_correct(scores)) == (3.0, 0.5)
