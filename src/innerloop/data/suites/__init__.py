"""Built-in task suites: many small tasks that need no files, the same in every process for the same seed.

SUITES             suite -> how its tasks are named and built
build_suite        the tasks of a suite
suite_task_names   (task name, family) of every task, without building any
describe           a Markdown table of a suite's families
"""

from collections.abc import Sequence
from itertools import groupby

from innerloop.data.suites import hidden_rules, house_styles, math_science
from innerloop.data.suites.drawing import DIFFICULTIES, Difficulty, Request, Suite
from innerloop.data.tasks import Task
from innerloop.errors import Fault, Faults, UserError, did_you_mean

__all__ = ["SUITES", "Difficulty", "build_suite", "describe", "suite_task_names"]

SUITES = {
    "hidden-rules": Suite(hidden_rules.task_names, hidden_rules.build, hidden_rules.INSTANCES),
    "house-styles": Suite(house_styles.task_names, house_styles.build, house_styles.INSTANCES),
    "math-science": Suite(math_science.task_names, math_science.build, None),
}


def build_suite(
    name: str,
    *,
    seed: int,
    examples_per_task: int,
    test_examples: int,
    difficulty: Difficulty = "default",
    instances: int | None = None,
    only: Sequence[str] = (),
) -> list[Task]:
    """All tasks of a suite, each with a pool of `examples_per_task` and `test_examples` beside it.

    Equal arguments give equal tasks. At equal `test_examples` a bigger pool starts with the smaller one and
    the test examples stay. `instances` is the number of tasks per family, for suites that have more than one.
    With `only`, the other tasks of math-science may have fewer examples: nobody is going to read them.
    UserError: an unknown suite or difficulty, a size out of range, too few distinct examples (naming every
    such task), or a package of the demo extra that is missing.
    """
    faults = Faults()
    for key, value, least in (
        ("examples_per_task", examples_per_task, 1),
        ("test_examples", test_examples, 0),
    ):
        if value < least:
            faults.add("too small", f"suite {name}: {key}", value, f"at least {least}")
    if difficulty not in DIFFICULTIES:
        faults.add(
            "no such difficulty",
            f"suite {name}: difficulty",
            difficulty,
            did_you_mean(difficulty, DIFFICULTIES),
        )
    faults.raise_if_any()
    request = Request(seed, examples_per_task, test_examples, difficulty, tuple(only))
    return _suite(name, instances).build(request, instances)


def suite_task_names(name: str, instances: int | None = None) -> list[tuple[str, str]]:
    """(task name, family) of every task `build_suite` would build; nothing is built or imported."""
    return _suite(name, instances).task_names(instances)


def describe(name: str) -> str:
    """A Markdown table: each family with one prompt and its answer, in two tasks where they are what is hidden.

    Two prompts where the tasks of a family share none.
    """
    instances = 2 if SUITES[name].instances else None
    tasks = build_suite(name, seed=7, examples_per_task=100, test_examples=0, instances=instances)
    lines = ["| Family | Prompt | Answer |", "|---|---|---|"]
    for family, members in groupby(tasks, key=lambda task: task.family):
        answers = [{example.prompt: example.answer for example in task.pool} for task in members]
        shared = [prompt for prompt in answers[0] if all(prompt in known for known in answers)]
        if shared:
            asked = [max(shared, key=lambda prompt: len({known[prompt] for known in answers}))] * len(answers)
        else:
            asked = [next(iter(known)) for known in answers]
        told = [known[prompt] for known, prompt in zip(answers, asked, strict=True)]
        cells = [" / ".join(map(_code, texts)) for texts in (dict.fromkeys(map(str, asked)), told)]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return "`" + text.strip().replace("\n", "⏎").replace("|", "\\|") + "`"


def _suite(name: str, instances: int | None) -> Suite:
    if name not in SUITES:
        raise UserError(Fault("no such suite", "suite", name, did_you_mean(name, SUITES)))
    if instances is not None and instances < 1:
        raise UserError(Fault("too small", f"suite {name}: instances", instances, "at least 1"))
    return SUITES[name]
