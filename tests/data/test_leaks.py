"""No prompt is on two sides of a task, and what tasks of different roles share is counted."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.leaks import SHOWN, Overlap, divided, overlap_lines, overlaps
from innerloop.data.tasks import Example, Message, Task

WAYS = ("p {}", "P  {}", " p\t{}\n", "\uff50 {}")


def written(prompt: int, way: int, answer: int) -> Example:
    return Example(WAYS[way].format(prompt), f"a{answer}")


EXAMPLES = st.lists(st.builds(written, st.integers(0, 7), st.integers(0, 3), st.integers(0, 9)), max_size=40)


def keys(examples: tuple[Example, ...]) -> set[str]:
    return {example.prompt_key for example in examples}


# within a task


@settings(max_examples=100, deadline=None)
@given(EXAMPLES, st.integers(0, 12), st.randoms())
def test_no_prompt_is_on_two_sides_and_nothing_is_lost_unseen(
    drawn: list[Example], test: int, rng: random.Random
) -> None:
    examples = list({example.id: example for example in drawn}.values())
    sides = divided(examples, test)
    assert not keys(sides.pool) & keys(sides.test)
    assert len(sides.test) == min(test, len(examples))
    assert len(sides.pool) + len(sides.test) + sides.left_out == len(examples)
    assert {*sides.pool, *sides.test} <= {*examples}
    rng.shuffle(examples)
    assert divided(examples, test) == sides


@settings(max_examples=50, deadline=None)
@given(EXAMPLES, EXAMPLES.filter(bool), st.integers(0, 12))
def test_what_a_test_split_brought_is_the_test_side_and_its_prompts_leave_the_pool(
    drawn: list[Example], kept: list[Example], test: int
) -> None:
    reserved = list({example.id: example for example in kept}.values())
    examples = [e for e in {example.id: example for example in drawn}.values() if e not in reserved]
    sides = divided(examples, test, reserved=reserved)
    assert {*sides.test} <= {*reserved}
    assert len(sides.test) == min(test, len(reserved))
    assert not keys(sides.pool) & keys(tuple(reserved))
    assert len(sides.pool) + sides.left_out == len(examples)


def test_different_prompts_go_to_the_sides_by_their_ids() -> None:
    examples = [Example(f"p{row}", "a") for row in range(30)]
    ordered = tuple(sorted(examples, key=lambda example: example.id))
    assert divided(examples, 10) == (ordered[10:], ordered[:10], 0)


def test_the_last_prompts_other_examples_are_on_neither_side() -> None:
    examples = [Example(f"p{prompt}", f"a{answer}") for prompt in range(10) for answer in range(4)]
    sides = divided(examples, 10)
    assert (len(sides.test), len(sides.pool), sides.left_out) == (10, 28, 2)


# across roles


def test_what_a_held_out_task_shares_with_training_is_counted_on_both_sides() -> None:
    shared = [Example(f"q{row}", f"a{row}") for row in range(6)]
    train = Task("all", (*shared, Example("other", "a")))
    again = tuple(Example(f" Q{row}", f"A{row} ") for row in range(6))
    held_out = Task("some", again[:4], (*again[4:], Example("new", "a")))
    found = overlaps({"train": [train], "validation": [], "held_out": [held_out]})
    assert found == [Overlap("some", "held_out", 2, 3, 4, 4, "train", 6, ("all",))]
    assert overlap_lines(found) == [
        "2 of 3 test and 4 of 4 pool examples of task some (held_out) are also in training tasks, which train on 6: all"
    ]
    kept = Task("all", tuple(shared[:1]), tuple(shared[1:]))
    (one,) = overlaps({"train": [kept], "held_out": [held_out]})
    assert (one.test + one.pool, one.used) == (6, 1)


def test_a_shared_prompt_with_another_answer_is_none_and_any_accepted_answer_is_one() -> None:
    train = Task("t", (Example("q", "a", accepted=("b",)),))
    other = Task("h", (), (Example("q", "c"),))
    same = Task("h", (), (Example("q", "x", accepted=(" B",)),))
    assert overlaps({"train": [train], "held_out": [other]}) == []
    assert [each.test for each in overlaps({"train": [train], "held_out": [same]})] == [1]


def test_a_test_example_is_used_where_settings_are_chosen_and_not_in_training() -> None:
    example = Example((Message("user", "q"),), "a")
    tested = Task("t", (), (example,))
    found = overlaps({"train": [tested], "validation": [tested], "held_out": [Task("h", (), (example,))]})
    assert [(each.role, each.role_of, each.used) for each in found] == [
        ("validation", "train", 0),
        ("held_out", "train", 0),
        ("held_out", "validation", 1),
    ]


def test_many_overlaps_are_a_few_lines_and_a_count() -> None:
    found = [Overlap(f"t{n}", "held_out", 1, 9, 1, 9, "train", 2, ("a", "b", "c", "d")) for n in range(SHOWN + 3)]
    lines = overlap_lines(found)
    assert len(lines) == SHOWN + 1
    assert lines[0].endswith("which train on 2: a, b, c, ...")
    assert lines[-1] == "and 6 of 3 more tasks"
    assert overlap_lines([]) == []
