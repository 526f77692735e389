"""Where a run's tasks come from, and whether there is enough of them.

read_run_tasks        the tasks of the suite or folder
placeholder_tasks     a suite's tasks with nothing in them, where only their number is asked for
encoder_of, on_a_day  how they are read, and what day it is then
examples_a_round      support and query examples that a step draws of a task
with_tasks_counted    `outer.tasks_per_step: all` as a number
check_sizes           whether the tasks fill a step
check_validation      whether validation tasks can be evaluated during training
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from innerloop.config.loading import RunConfig
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask
from innerloop.data.examples import read_tasks
from innerloop.data.sampler import prompts_of
from innerloop.data.suites import build_suite, suite_task_names
from innerloop.data.tasks import Example, Task
from innerloop.data.templates import writes_date
from innerloop.data.verifiers import verifier_of
from innerloop.errors import Faults

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_run_tasks(config: RunConfig) -> tuple[list[Task], dict[str, int], list[str]]:
    """The tasks of the suite or folder, how many records were left out, and what may be meant otherwise."""
    tasks = config.tasks
    if tasks.suite is not None:
        assert tasks.examples_per_task is not None
        assert tasks.difficulty is not None
        built = build_suite(
            tasks.suite,
            seed=config.seed,
            examples_per_task=tasks.examples_per_task,
            test_examples=tasks.test,
            difficulty=tasks.difficulty,
            instances=tasks.instances,
            only=tasks.only,
        )
        return built, {}, []
    assert tasks.folder is not None
    assert tasks.verifier is not None
    verifier = verifier_of(tasks.verifier)
    found = read_tasks(tasks.folder, columns=tasks.columns, test=tasks.test)
    dropped = {
        "with pictures": sum(file.pictures for file in found.files),
        "repeated": sum(file.duplicates for file in found.files),
        "whose prompt is that of a test example": found.left_out,
        "files of no known kind": len(found.ignored),
    }
    checked = [replace(task, verifier=verifier) for task in found.tasks]
    return [_capped(task, tasks.examples_per_task) for task in checked], dropped, list(found.warnings)


def placeholder_tasks(config: RunConfig) -> list[Task]:
    """A suite's tasks with as many examples as they will have, and nothing in them."""
    tasks = config.tasks
    assert tasks.suite is not None
    assert tasks.examples_per_task is not None
    pool = tuple(Example(str(number), "") for number in range(tasks.examples_per_task))
    return [Task(name, pool, family=family) for name, family in suite_task_names(tasks.suite, tasks.instances)]


def _capped(task: Task, pool: int | None) -> Task:
    """The task with the `pool` examples of the smallest ids, whatever the order of the rows."""
    if pool is None or len(task.pool) <= pool:
        return task
    return replace(task, pool=tuple(sorted(task.pool, key=lambda example: example.id)[:pool]))


def encoder_of(config: RunConfig, tokenizer: "PreTrainedTokenizerBase") -> Encoder:
    """The one reader of a run's examples and prompts."""
    tasks = config.tasks
    return Encoder(tokenizer, tasks.max_length, tasks.on_too_long, tasks.columns or {}, tasks.date, tasks.prompt)


def on_a_day(config: RunConfig, tokenizer: "PreTrainedTokenizerBase") -> RunConfig:
    """The config with today's date where the chat template writes one and the config has none."""
    if config.tasks.date or not writes_date(tokenizer):
        return config
    tasks = config.tasks.model_copy(update={"date": datetime.now().date().isoformat()})  # as a template sees it
    return config.model_copy(update={"tasks": tasks})


def examples_a_round(config: RunConfig) -> tuple[int, int]:
    """(support, query) examples that a step draws of a task; without an inner loop, all are trained on.

    In context the last one of a prompt is asked behind tasks.support others.
    """
    support, query = config.tasks.support, config.tasks.query or 0
    if config.method.inner:
        return support, query
    return 0, support + (1 if config.tasks.prompt == "in-context" else query)


def with_tasks_counted(config: RunConfig, train: Sequence[Task]) -> RunConfig:
    """The config with the number of tasks to train on where a step takes all of them."""
    if config.outer.tasks_per_step != "all":
        return config
    outer = config.outer.model_copy(update={"tasks_per_step": len(train)})
    return config.model_copy(update={"outer": outer})


def check_sizes(config: RunConfig, train: Sequence[Task], faults: Faults) -> None:
    """Adds a fault where the tasks to train on are too few or too small for a step."""
    if not train:
        key = "tasks.held_out" if config.method.row.one_task else "tasks"
        faults.add("no task is left to train on", key, expected="at least one task")
        return
    need = sum(examples_a_round(config))
    for task in train:
        if (prompts := len(prompts_of(task.pool))) < need:
            kind = "examples" if prompts == len(task.pool) else "different prompts"
            right = f"at least {need} {kind} beside the {config.tasks.test} test examples (tasks.test)"
            faults.add("a batch larger than the pool", f"task {task.name}", prompts, right)
    if (count := config.outer.tasks_in_step) > len(train):
        right = f"at most {len(train)}, the tasks to train on; or all"
        faults.add("more tasks than there are", "outer.tasks_per_step", count, right)


def check_validation(config: RunConfig, validation: Sequence[EncodedTask], faults: Faults) -> None:
    """Adds a fault for each task that is to be evaluated during training and is too small for that."""
    if config.evaluate is None:
        return
    for task in validation:
        if len(task.pool) < config.evaluate.k:
            right = f"at most {len(task.pool)}, the examples of {task.task.name}"
            faults.add("more examples than a task has", "evaluate.k", config.evaluate.k, right)
        if not task.test:
            faults.add("no test example is left", f"task {task.task.name}", expected="more examples, or other tasks")
