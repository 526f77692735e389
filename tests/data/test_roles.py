"""Every task has one role, and a wrong name is never read past."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.roles import Roles, assign_roles
from innerloop.data.tasks import Task
from innerloop.errors import UserError

TASKS = [Task(f"{family}/{number}", (), family=family) for family in ("sums", "cuts") for number in range(3)]
TASKS.append(Task("alone", ()))
NAMES = [task.name for task in TASKS]


def names(roles: Roles) -> list[list[str]]:
    return [[task.name for task in group] for group in roles]


def faults_of(**lists: list[str]) -> list[tuple[str, object]]:
    with pytest.raises(UserError) as caught:
        assign_roles(TASKS, **lists)
    return [(fault.where, fault.value) for fault in caught.value.faults]


def test_without_names_every_task_is_trained_on() -> None:
    assert names(assign_roles(TASKS)) == [NAMES, [], []]


def test_a_task_or_a_family_can_be_named() -> None:
    roles = assign_roles(TASKS, validation=["sums/1"], held_out=["cuts", "alone"])
    assert names(roles) == [["sums/0", "sums/2"], ["sums/1"], ["cuts/0", "cuts/1", "cuts/2", "alone"]]


def test_only_narrows_every_role() -> None:
    """One config with `--set tasks.only=[...]` trains `lora` on some of the held-out tasks."""
    roles = assign_roles(TASKS, only=["sums", "cuts/0"], validation=["cuts"], held_out=["sums/2", "alone"])
    assert names(roles) == [["sums/0", "sums/1"], ["cuts/0"], ["sums/2"]]


def test_all_unknown_names_come_at_once_in_order_and_once() -> None:
    wrong = {"only": ["zork", "alnoe"], "validation": ["sums/9"], "held_out": ["sum", "alone"]}
    assert faults_of(**wrong) == [
        ("tasks.only", "zork"),
        ("tasks.only", "alnoe"),
        ("tasks.validation", "sums/9"),
        ("tasks.held_out", "sum"),
    ]
    with pytest.raises(UserError, match='did you mean "alone"'):
        assign_roles(TASKS, **wrong)


def test_the_empty_family_is_no_name() -> None:
    assert faults_of(held_out=[""]) == [("tasks.held_out", "")]


def test_a_task_in_both_lists_is_named() -> None:
    where = "tasks.validation, tasks.held_out"
    assert faults_of(validation=["sums"], held_out=["alone", "sums/1"]) == [(where, "sums/1")]
    assert faults_of(validation=["sums"], held_out=["sums"]) == [(where, f"sums/{n}") for n in range(3)]


def test_every_task_in_both_lists_is_a_fault() -> None:
    many = [Task(f"many/{n}", pool=(), family="many") for n in range(25)]
    with pytest.raises(UserError) as error:
        assign_roles(many, validation=["many"], held_out=["many"])
    assert [fault.value for fault in error.value.faults] == [task.name for task in many]


LISTS = st.lists(st.sampled_from([*NAMES, "sums", "cuts"]), unique=True, max_size=4)


@settings(max_examples=80, deadline=None)
@given(only=LISTS, validation=LISTS, held_out=LISTS)
def test_each_kept_task_has_exactly_one_role(only: list[str], validation: list[str], held_out: list[str]) -> None:
    def meant(task: Task, words: list[str]) -> bool:
        return bool({task.name, task.family} & set(words))

    kept = [task for task in TASKS if not only or meant(task, only)]
    both = [task.name for task in kept if meant(task, validation) and meant(task, held_out)]
    if both:
        assert [value for _, value in faults_of(only=only, validation=validation, held_out=held_out)] == both
        return
    roles = assign_roles(TASKS, only=only, validation=validation, held_out=held_out)
    given_roles = [task.name for group in roles for task in group]
    assert sorted(given_roles) == sorted(task.name for task in kept)
    for group, words in zip(roles[1:], (validation, held_out), strict=True):
        assert [task.name for task in group] == [task.name for task in kept if meant(task, words)]
