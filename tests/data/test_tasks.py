from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import Tasks
from innerloop.data.tasks import Example, Message, Task, exact_match, normalized

ROWS = [Example(f"question {i}", f"answer {i}") for i in range(4)]


def test_an_examples_id_is_its_content() -> None:
    assert Example("a", "b").id == Example("a", "b").id
    conversation = Example((Message("user", "a"),), "b")
    others = [Example("ab", ""), Example("a", "c"), Example("", "ab"), conversation]
    others.append(Example((Message("system", "a"),), "b"))
    assert len({Example("a", "b").id, *(other.id for other in others)}) == 6
    assert conversation.id == Example((Message("user", "a"),), "b").id


def test_a_lone_surrogate_has_an_id() -> None:
    assert Example("\ud800", "b").id != Example("\ud801", "b").id


@pytest.mark.parametrize(("pool", "test"), [((0, 1, 2), (2, 3)), ((0, 0), ()), ((0,), (1, 1))])
def test_a_task_refuses_an_example_on_two_sides_or_twice(pool: tuple[int, ...], test: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="'sums': pool and test share or repeat an example"):
        Task("sums", tuple(ROWS[i] for i in pool), tuple(ROWS[i] for i in test))


def test_a_task_with_disjoint_examples_is_accepted() -> None:
    task = Task("sums", tuple(ROWS[:2]), tuple(ROWS[2:]))
    with pytest.raises(ValueError, match="share or repeat"):
        replace(task, test=task.pool)


@pytest.mark.parametrize(
    "other",
    ["question 0", " Question\t0\n", "QUESTION 0", "\uff51uestion\u00a00"],
    ids=["same", "white", "case", "width"],
)
def test_a_task_refuses_a_prompt_on_two_sides_however_it_is_written(other: str) -> None:
    with pytest.raises(ValueError, match="share a prompt"):
        Task("sums", (ROWS[0],), (Example(other, "another answer"),))
    with pytest.raises(ValueError, match="share a prompt"):
        Task("sums", (Example((Message("user", "question 0"),), "a"),), (Example((Message("user", other),), "b"),))
    assert Task("sums", (ROWS[0], Example(other, "another answer")), (Example("question 00", "a"),)).test


def test_prompts_that_say_something_else_have_other_keys() -> None:
    prompts = ["a b", "ab", "a-b", "b a", "", (Message("user", "a b"),), (Message("system", "a b"),)]
    prompts += [(Message("user", "a"), Message("user", "b"))]
    assert len({Example(prompt, "x").prompt_key for prompt in prompts}) == len(prompts)
    assert Example("\ud800", "x").prompt_key != Example("\ud801", "x").prompt_key


@given(st.text(max_size=20))
def test_a_normalized_text_is_its_own_norm(text: str) -> None:
    once = normalized(text)
    assert normalized(once) == once == normalized(f" {text}\n ")


def test_every_accepted_answer_is_right_and_counts_in_the_id() -> None:
    example = Example("q", " one", accepted=("1", " uno"))
    assert [exact_match(example, text) for text in ("one", "1", " uno\n", "two")] == [1.0, 1.0, 1.0, 0.0]
    assert example.answers == (" one", "1", " uno")
    ids = {example.id, Example("q", " one").id, Example("q", " one", template='{"tools": []}').id}
    assert len(ids) == 3


def test_exact_match_ignores_white_space_at_the_ends_only() -> None:
    assert exact_match(ROWS[1], " answer 1\n") == 1.0
    assert exact_match(ROWS[1], "answer  1") == 0.0


@pytest.mark.parametrize("tasks_per_forward", [1, 2, 3, 4, 9])
def test_split_keeps_every_task_once_and_in_order(tasks_per_forward: int) -> None:
    whole = Tasks(tasks=4, steps=3).batch
    parts = whole.split(tasks_per_forward)
    assert [len(part.names) for part in parts[:-1]] == [tasks_per_forward] * (len(parts) - 1)
    assert sum((part.names for part in parts), ()) == whole.names
    assert whole.query is not None
    assert torch.cat([part.query.tokens for part in parts if part.query]).equal(whole.query.tokens)
    for k, step in enumerate(whole.support):
        assert torch.cat([part.support[k].tokens for part in parts]).equal(step.tokens)
        assert sum((part.support[k].example_ids for part in parts), ()) == step.example_ids
    tokens = [sum(batch.token_count for part in each for batch in part.batches) for each in (parts, [whole])]
    assert tokens[0] == tokens[1] > 0


def test_a_batch_that_needs_no_split_is_the_one_chunk_itself() -> None:
    whole = Tasks(tasks=4).batch
    assert whole.split(4)[0] is whole.split(9)[0] is whole
    assert whole.split(3)[0] is not whole


def test_split_keeps_a_shared_support_batch_one_object() -> None:
    whole = Tasks(steps=1).batch
    part = whole._replace(support=[whole.support[0]] * 3).split(2)[1]
    assert len({id(batch) for batch in part.support}) == 1


def test_a_batch_moves_with_its_rows() -> None:
    batch = Tasks().batch.support[0].to("meta")
    assert {tensor.device.type for tensor in (batch.tokens, batch.targets, batch.scored_rows, batch.row_task)} == {
        "meta"
    }
