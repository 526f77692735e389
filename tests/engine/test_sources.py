"""A run's tasks are those its config names, cut down as it says, and too few of them is a fault."""

from pathlib import Path
from typing import Any

import pytest

from config_examples import minimal
from innerloop.config.loading import RunConfig, load_config
from innerloop.data.tasks import Example, Task
from innerloop.data.verifiers import same_number
from innerloop.engine.sources import (
    check_sizes,
    examples_a_round,
    placeholder_tasks,
    read_run_tasks,
    with_tasks_counted,
)
from innerloop.errors import Faults
from small_runs import NAMES, World, settings


def config_of(world: World, method: str = "fomaml-lora", **changes: Any) -> RunConfig:
    return load_config(settings(world, method, Path("unused"), changes))


def test_a_folder_gives_a_task_a_file_with_the_verifier_that_is_named(world: World) -> None:
    tasks, dropped, warnings = read_run_tasks(config_of(world, **{"tasks.verifier": "number"}))
    assert sorted(task.name for task in tasks) == sorted(NAMES)
    assert all(task.verifier is same_number for task in tasks)
    assert sum(dropped.values()) == 0
    assert warnings == []


def test_a_cap_keeps_the_same_examples_of_a_larger_pool(world: World) -> None:
    whole = {task.name: task for task in read_run_tasks(config_of(world))[0]}
    for size in (7, 9):
        for task in read_run_tasks(config_of(world, **{"tasks.examples_per_task": size}))[0]:
            assert len(task.pool) == size
            assert {example.id for example in task.pool} == {
                example.id for example in sorted(whole[task.name].pool, key=lambda each: each.id)[:size]
            }


def test_a_suite_is_counted_as_it_is_read() -> None:
    config = load_config(minimal("fomaml-lora"), ["tasks.suite=hidden-rules", "tasks.instances=2"])
    made, empty = read_run_tasks(config)[0], placeholder_tasks(config)
    assert [(task.name, task.family, len(task.pool)) for task in empty] == [
        (task.name, task.family, len(task.pool)) for task in made
    ]


@pytest.mark.parametrize(
    ("method", "drawn"), [("fomaml-lora", (3, 2)), ("reptile-lora", (3, 0)), ("joint-lora", (0, 5)), ("lora", (0, 5))]
)
def test_without_an_inner_loop_support_and_query_are_one(world: World, method: str, drawn: tuple[int, int]) -> None:
    assert examples_a_round(config_of(world, method)) == drawn


def test_pools_that_are_too_small_and_tasks_that_are_too_few_are_all_named(world: World) -> None:
    def faults_of(*tasks: Task) -> list[str]:
        faults = Faults()
        check_sizes(config_of(world), tasks, faults)
        return [f"{fault.where}: {fault.problem}" for fault in faults]

    def task(name: str, *prompts: str) -> Task:
        return Task(name, tuple(Example(prompt, f" {place}") for place, prompt in enumerate(prompts)))

    enough = task("enough", *"abcde")
    assert faults_of(enough, task("other", *"abcdef")) == []
    small, repeated = task("small", *"abcd"), task("repeated", *"aabcd")
    assert faults_of(enough, small, repeated) == [
        "task small: a batch larger than the pool",
        "task repeated: a batch larger than the pool",
    ]
    assert faults_of(enough) == ["outer.tasks_per_step: more tasks than there are"]
    assert faults_of() == ["tasks: no task is left to train on"]


def test_all_tasks_of_a_step_are_counted_once_they_are_known(world: World) -> None:
    three = [Task(name, tuple(Example(f"{n}", "") for n in range(9))) for name in "abc"]
    config = config_of(world, **{"outer.tasks_per_step": "all"})
    assert with_tasks_counted(config, three) == config_of(world, **{"outer.tasks_per_step": 3})
    four = config_of(world, **{"outer.tasks_per_step": 4})
    assert with_tasks_counted(four, three) is four
