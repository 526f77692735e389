"""New tasks' adapters side by side: each arm is what it says, together as alone, and nothing is told its answer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers import close
from innerloop.comparison.judging import each_adapted, judge, parts_of
from innerloop.comparison.new_tasks import encoded_tasks
from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import Example, Task
from innerloop.learning.inner_loop import InnerLoop
from innerloop.runs.learned import Learned
from innerloop.spaces.space import ParameterSpace
from small_runs import Runs, records

SUPPORT, TEST = records("eve")[:6], records("eve")[6:]


def examples(rows: Sequence[dict[str, Any]]) -> tuple[Example, ...]:
    return tuple(Example(row["prompt"], row["completion"]) for row in rows)


def tasks_of(learned: Learned, *given: tuple[str, int, int]) -> list[EncodedTask]:
    """(name, examples, test examples) of each."""
    found = [Task(name, examples(records(name)[:k]), examples(records(name)[k : k + test])) for name, k, test in given]
    return encoded_tasks(learned, found)


def own(learned: Learned, *, steps: int | None = None) -> Any:
    def loops(space: ParameterSpace, tasks: Sequence[EncodedTask]) -> list[InnerLoop]:
        return [replace(learned.inner, steps=learned.inner.steps if steps is None else steps) for _ in tasks]

    return loops


def test_every_arm_is_scored_on_the_same_examples_and_is_what_it_says(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    (found,) = judge(learned, tasks_of(learned, ("eve", 6, 8)), own(learned))
    assert [arm.name for arm in found.arms] == ["base", "in context", "fresh LoRA", "this run"]
    assert {len(part) for arm in found.arms for part in (arm.nats, arm.correct, arm.written)} == {len(TEST)}
    assert [arm.steps for arm in found.arms] == [0, 0, 2, 2]
    adapted = learned.adapt(SUPPORT)
    assert np.mean(found.ours.nats) == pytest.approx(adapted.score(TEST)[0], rel=1e-6)
    (longer,) = adapted.generate([found.prompts[0]], max_new_tokens=32)
    assert longer.strip().startswith(found.ours.written[0].strip())  # cut at the task's allowance
    means = [np.mean(arm.nats) for arm in found.arms]
    assert len(set(means)) == len(means)  # none is another in disguise


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml"])
def test_left_out_examples_are_scored_by_what_the_others_teach(runs: Runs, method: str) -> None:
    learned = runs(method)
    (task,) = tasks_of(learned, ("eve", 4, 0))
    (found,) = judge(learned, [task], own(learned))
    assert found.folds == len(found.prompts) == 4
    for prompt, nats in zip(found.prompts, found.ours.nats, strict=True):
        (row,) = [row for row in SUPPORT[:4] if row["prompt"] == prompt]
        rest = [each for each in SUPPORT[:4] if each is not row]
        assert nats == pytest.approx(learned.adapt(rest).score([row])[0], rel=1e-4)
        assert nats != pytest.approx(learned.adapt(SUPPORT[:4]).score([row])[0], rel=1e-3), "it was told"


def test_many_tasks_in_a_forward_reach_what_each_does_alone(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    tasks = tasks_of(learned, ("eve", 6, 3), ("fay", 4, 3), ("gus", 6, 3), ("hal", 6, 2))
    loops = [replace(learned.inner, steps=steps) for steps in (2, 2, 2, 0)]
    together = list(each_adapted(learned.space, loops, tasks, seed=7))
    assert [part.places for part in together] == [[3], [1], [0, 2]]
    for part in together:
        for at, place in enumerate(part.places):
            rows = records(tasks[place].task.name)[: len(tasks[place].pool)]
            alone = learned.adapt(rows, inner=loops[place]).values if loops[place].steps else learned.unadapted.values
            assert close({name: value[at : at + 1] for name, value in part.values.items()}, alone)
    both = judge(learned, tasks[:3], own(learned))
    for task, found in zip(tasks[:3], both, strict=True):
        (alone,) = judge(learned, [task], own(learned))
        assert found.prompts == alone.prompts
        for left, right in zip(found.arms, alone.arms, strict=True):
            assert left.nats == pytest.approx(right.nats, rel=1e-4)
            assert left.written == right.written
    assert both[0].ours.nats != pytest.approx(both[2].ours.nats, rel=1e-3)


def test_arms_that_cannot_be_say_why(runs: Runs) -> None:
    learned = runs("fomaml")
    (found,) = judge(learned, tasks_of(learned, ("eve", 3, 3)), own(learned))
    assert [arm.name for arm in found.arms] == ["unadapted", "this run"]
    assert found.left_out.keys() == {"base"}
    lora = runs("fomaml-lora")
    cut = Example("eve 99:", " one\n\n###\n\nother")
    (found,) = judge(lora, encoded_tasks(lora, [Task("eve", (*examples(SUPPORT), cut), examples(TEST))]), own(lora))
    assert [arm.name for arm in found.arms] == ["base", "fresh LoRA", "this run"]
    assert "separator" in found.left_out["in context"]


def test_a_task_with_tests_is_judged_on_them(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    tested, bare, lonely = tasks_of(learned, ("eve", 3, 2), ("fay", 3, 0), ("gus", 1, 0))
    assert parts_of(tested) == [tested]
    assert [len(part.pool) for part in parts_of(bare)] == [2, 2, 2]
    assert parts_of(lonely) == []
