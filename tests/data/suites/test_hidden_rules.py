import functools
import itertools
import re
from collections import Counter
from dataclasses import replace

import pytest

from innerloop.data.leaks import overlaps
from innerloop.data.suites import build_suite
from innerloop.data.suites.drawing import DIFFICULTIES, Difficulty
from innerloop.data.suites.drawn_rules import MEASURES
from innerloop.data.suites.hidden_families import FAMILIES
from innerloop.data.suites.hidden_rules import INSTANCES
from innerloop.data.suites.words import COLOURS, DAYS, DIRECTIONS, LABELS, LETTERS, MONTHS, WORDS
from innerloop.data.tasks import Task
from innerloop.errors import UserError

ONE_TOKEN = {*WORDS, *LABELS, *LETTERS, *COLOURS, *DIRECTIONS, *DAYS, *MONTHS, *MEASURES}


@functools.cache
def tasks_of(
    difficulty: Difficulty = "default", instances: int | None = None, examples: int = 100
) -> dict[str, list[Task]]:
    tasks = build_suite(
        "hidden-rules",
        seed=7,
        examples_per_task=examples,
        test_examples=40,
        difficulty=difficulty,
        instances=instances,
    )
    return {family: list(group) for family, group in itertools.groupby(tasks, key=lambda task: task.family)}


def answers(task: Task) -> dict[str, str]:
    return {str(example.prompt): example.answer for example in (*task.pool, *task.test)}


def conflict(task: Task, other: Task) -> float:
    """Share of the two tasks' common prompts on which their answers differ; no common prompt is an error."""
    mine, theirs = answers(task), answers(other)
    common = mine.keys() & theirs.keys()
    return sum(mine[prompt] != theirs[prompt] for prompt in common) / len(common)


def test_there_are_enough_families_and_instances() -> None:
    families = tasks_of()
    assert len(families) == len(FAMILIES) >= 14
    assert {len(tasks) for tasks in families.values()} == {INSTANCES}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_two_tasks_of_a_family_share_prompts_but_not_answers(difficulty: Difficulty) -> None:
    for family, tasks in tasks_of(difficulty).items():
        for one, other in itertools.combinations(tasks, 2):
            assert len(answers(one).keys() & answers(other).keys()) >= 25, family
            assert conflict(one, other) > 0.5, family
        assert conflict(tasks[0], tasks[0]) == 0  # the measure can fail


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_twelve_rules_of_a_family_differ_on_most_inputs(difficulty: Difficulty) -> None:
    for family, tasks in tasks_of(difficulty, instances=12, examples=110).items():
        shares = [conflict(one, other) for one, other in itertools.combinations(tasks, 2)]
        assert len(tasks) == 12
        assert min(shares) > 0.5, family
        assert sum(shares) / len(shares) > 0.75, family


def test_no_answer_is_most_of_a_task() -> None:
    for tasks in tasks_of().values():
        for task in tasks:
            counts = Counter(answers(task).values())
            assert max(counts.values()) / counts.total() < 0.6, task.name


def tokens(text: str) -> int:
    """What the SmolLM2 tokenizer makes of it: digits one by one (and the space before them), a word once."""
    total = 0
    for piece in re.findall(r"in:|out:|\n|\S+", text):
        assert piece in ONE_TOKEN or piece.isdigit() or piece in ("in:", "out:", "\n"), piece
        total += 1 + len(piece) if piece.isdigit() else 2 if piece.endswith(":") else 1
    return total


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_examples_are_short_and_all_look_alike(difficulty: Difficulty) -> None:
    for tasks in tasks_of(difficulty).values():
        for prompt, answer in itertools.chain.from_iterable(answers(task).items() for task in tasks):
            assert re.fullmatch(r"in: \S+( \S+)*\nout:", prompt)
            assert tokens(prompt + answer) <= (17 if difficulty != "hard" else 24)


def test_a_rule_stays_when_more_tasks_or_examples_are_asked_for() -> None:
    few, many = tasks_of(instances=2, examples=50), tasks_of(instances=5, examples=100)
    for family, tasks in few.items():
        for small, large in zip(tasks, many[family], strict=False):
            assert small.test == large.test
            assert small.pool == large.pool[:50]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_no_prompt_of_a_test_is_in_any_pool(difficulty: Difficulty) -> None:
    tasks = [task for family in tasks_of(difficulty, instances=6).values() for task in family]
    tested = {example.prompt_key for task in tasks for example in task.test}
    assert not tested & {example.prompt_key for task in tasks for example in task.pool}
    mixed = [replace(task, pool=task.pool[20:], test=task.pool[:20]) for task in tasks]  # as if drawn from all inputs
    tested = {example.prompt_key for task in mixed for example in task.test}
    assert tested & {example.prompt_key for task in mixed for example in task.pool}


@pytest.mark.parametrize(("pool", "test"), [(100, 50), (24, 16)])
def test_no_example_that_is_measured_is_in_another_task(pool: int, test: int) -> None:
    tasks = build_suite("hidden-rules", seed=1, examples_per_task=pool, test_examples=test)
    for number in range(INSTANCES):
        held_out = [task for task in tasks if task.name.endswith(f"/{number}")]
        others = [task for task in tasks if task not in held_out]
        for role in ("train", "validation"):
            assert overlaps({role: others, "held_out": held_out}) == []
    planted = replace(tasks[1], pool=(), test=tasks[0].pool[:1])
    assert [each.test for each in overlaps({"train": tasks[:1], "held_out": [planted]})] == [1]


def test_running_out_of_rules_or_inputs_names_the_task_and_the_limit() -> None:
    with pytest.raises(UserError) as caught:
        build_suite("hidden-rules", seed=7, examples_per_task=50, test_examples=0, difficulty="easy", instances=20)
    (fault,) = [fault for fault in caught.value.faults if "family index_pick" in fault.where]
    assert fault.value == 20
    assert re.search(r"at most 1[0-2]\b", fault.expected)
    with pytest.raises(UserError) as caught:
        build_suite("hidden-rules", seed=7, examples_per_task=250, test_examples=0)
    (fault,) = [fault for fault in caught.value.faults if fault.where.startswith("task category/3: ")]
    assert fault.value == "250 (250 + 0)"
    assert "at most 240" in fault.expected
    assert not any("index_pick" in fault.where for fault in caught.value.faults)
