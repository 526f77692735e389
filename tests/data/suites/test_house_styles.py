import functools
import itertools
import re
import statistics
from dataclasses import replace

import pytest

from innerloop.data.leaks import overlaps
from innerloop.data.suites import build_suite, suite_task_names
from innerloop.data.suites.drawing import DIFFICULTIES, Difficulty, Request
from innerloop.data.suites.house_styles import DIFFERENT, INSTANCES, KINDS, MOST, styles
from innerloop.data.tasks import Task
from innerloop.errors import UserError
from innerloop.loading.models import load_tokenizer


@functools.cache
def tasks_of(difficulty: Difficulty = "default", instances: int = 8, pool: int = 100) -> list[Task]:
    return build_suite(
        "house-styles", seed=7, examples_per_task=pool, test_examples=40, difficulty=difficulty, instances=instances
    )


@functools.cache
def written(kind: str, difficulty: Difficulty) -> list[tuple[str, ...]]:
    """What every style of a kind makes of the same inputs, spread over all that there are."""
    size = KINDS[kind].size
    inputs = [KINDS[kind].items(number) for number in range(0, size, size // 48)]
    return [
        tuple(KINDS[kind].written(items, style) for items in inputs)
        for style in styles(kind, Request(7, 1, 0, difficulty), MOST)
    ]


def apart(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """The share of inputs on which two styles differ."""
    return sum(a != b for a, b in zip(one, other, strict=True)) / len(one)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_thousand_styles_differ_in_what_they_write(difficulty: Difficulty) -> None:
    assert len(KINDS) == 8
    texts = {(kind, said) for kind in KINDS for said in written(kind, difficulty)}
    assert len(texts) == 8 * MOST >= 1000
    for kind in KINDS:  # on inputs that they were not chosen by
        pairs = [apart(one, other) for one, other in itertools.combinations(written(kind, difficulty), 2)]
        assert min(pairs) > DIFFERENT / 3, kind
        assert statistics.mean(pairs) > 0.9, kind
    assert apart(*[written("dates", difficulty)[0]] * 2) == 0  # the measure can fail


def test_a_harder_style_is_farther_from_the_plain_one() -> None:
    for kind in KINDS.values():
        plain = {name: groups[0][0] for name, groups in kind.aspects.items()}
        for difficulty, changed in zip(DIFFICULTIES, (2, 3, 5), strict=True):
            name = next(name for name, each in KINDS.items() if each is kind)
            for style in styles(name, Request(7, 1, 0, difficulty), 5):
                differing = [aspect for aspect in plain if style[aspect] != plain[aspect]]
                assert len(differing) == changed
                assert differing[0] == next(iter(plain))


def test_names_are_kind_and_number() -> None:
    names = suite_task_names("house-styles")
    assert len(names) == 8 * INSTANCES
    assert names[:2] == [("dates/0", "dates"), ("dates/1", "dates")]
    assert [kind for _, kind in names[::INSTANCES]] == list(KINDS)
    assert len(suite_task_names("house-styles", instances=MOST)) == 8 * MOST


def test_a_style_and_its_examples_stay_when_more_are_asked_for() -> None:
    few = {task.name: task for task in tasks_of(instances=3, pool=20)}
    many = {task.name: task for task in tasks_of()}
    for name, task in few.items():
        assert task.test == many[name].test
        assert task.pool == many[name].pool[:20]


def test_no_prompt_is_in_two_tasks_or_on_two_sides() -> None:
    tasks = tasks_of()
    keys = [example.prompt_key for task in tasks for example in (*task.pool, *task.test)]
    assert len(set(keys)) == len(keys) == 64 * 140
    for held_out in (tasks[::2], [task for task in tasks if task.family == "times"]):
        others = [task for task in tasks if task not in held_out]
        assert overlaps({"train": others, "held_out": held_out}) == []
    planted = replace(tasks[1], pool=(), test=tasks[0].pool[:1])
    assert [each.test for each in overlaps({"train": tasks[:1], "held_out": [planted]})] == [1]


def test_a_task_follows_one_style_all_along() -> None:
    """Every digit as 0, so that numbers of a place with one style are of one form, and of two styles of two."""

    def forms(task: Task, place: str) -> set[str]:
        examples = [example for example in (*task.pool, *task.test) if f" +{place} " in str(example.prompt)]
        return {re.sub(r"\d", "0", example.answer) for example in examples}

    tasks = [task for task in tasks_of() if task.family == "phones"]
    for place in ("31 20", "1 212"):
        assert {len(forms(task, place)) for task in tasks} == {1}
        assert len({form for task in tasks for form in forms(task, place)}) >= 6
    mixed = replace(tasks[0], pool=tasks[0].pool + tasks[1].pool, test=())
    assert len(forms(mixed, "31 20")) == 2


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_prompts_and_answers_are_short_and_look_alike(difficulty: Difficulty) -> None:
    tokenizer = load_tokenizer("smollm2-135m-q4_1")
    tasks = tasks_of(difficulty, instances=12, pool=10)
    for example in (example for task in tasks for example in task.pool):
        assert re.fullmatch(r"in: \S+( \S+)*\nout:", str(example.prompt))
        assert re.fullmatch(r" \S(.*\S)?", example.answer)
    texts = [str(example.prompt) + example.answer for task in tasks for example in (*task.pool, *task.test)]
    lengths = [len(tokens) for tokens in tokenizer(texts)["input_ids"]]
    assert statistics.median(lengths) < 40
    assert max(lengths) <= 80


def test_too_many_styles_or_inputs_say_how_many_there_are() -> None:
    with pytest.raises(UserError, match=r"instances: too many\s+value:\s+129\s+expected: at most 128"):
        suite_task_names("house-styles", instances=129)
    with pytest.raises(UserError) as caught:
        build_suite("house-styles", seed=7, examples_per_task=190, test_examples=60, instances=1)
    short = {fault.where.split("/")[0]: fault.expected for fault in caught.value.faults}
    assert short == {"task times": "at most 211", "task units": "at most 220", "task lists": "at most 210"}
