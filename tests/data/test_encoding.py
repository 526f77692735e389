"""Every example of every task is encoded, and fitted to a length as asked."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.encoding import OnTooLong, encode, encode_all
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.token_ids import Encoded
from innerloop.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def scored(encoded: Encoded, tokenizer: Any) -> str:
    return tokenizer.decode(encoded.scored)


def task(name: str, *lengths: int, test: int = 0) -> Task:
    """Examples of n prompt tokens, one answer token and the end token."""
    examples = [Example("abcdefghijklmnopqrstuvwxyz"[-n:], str(place)) for place, n in enumerate(lengths)]
    return Task(name, tuple(examples[test:]), tuple(examples[:test]))


def test_what_fits_is_encoded_side_by_side(tokenizer: Any) -> None:
    tasks = [task("x", 3, 4, 5, test=1), task("y", 6)]
    result = encode_all(tasks, tokenizer, max_length=8, on_too_long="error")
    assert [each.task for each in result] == tasks
    for each in result:
        assert [e.id for e in each.pool] == [e.id for e in each.task.pool]
        assert [e.id for e in each.test] == [e.id for e in each.task.test]
        assert each.dropped == each.truncated == 0
    assert result[0].pool[0] == encode(tasks[0].pool[0], tokenizer)


def test_too_long_is_an_error_with_every_example(tokenizer: Any) -> None:
    tasks = [task("x", 3, 7, test=1), task("y", 8)]
    with pytest.raises(UserError) as error:
        encode_all(tasks, tokenizer, max_length=8, on_too_long="error")
    ids = [tasks[0].pool[0].id, tasks[1].pool[0].id]
    assert [fault.where for fault in error.value.faults] == [
        f"task x: example {ids[0]}",
        f"task y: example {ids[1]}",
    ]
    assert error.value.faults[0].problem == "9 tokens, 2 of them the answer's"
    assert "tasks.on_too_long: drop or truncate" in error.value.faults[0].expected


def test_too_long_can_be_dropped(tokenizer: Any) -> None:
    tasks = [task("x", 9, 3, 7, 6, test=2), task("y", 2, 8)]
    result, other = encode_all(tasks, tokenizer, max_length=8, on_too_long="drop")
    assert [len(e.tokens) for e in result.pool] == [8]
    assert [len(e.tokens) for e in result.test] == [5]
    assert [e.id for e in result.pool] == [e.id for e in result.task.pool]
    assert [e.id for e in result.test] == [e.id for e in result.task.test]
    assert (result.dropped, result.truncated) == (2, 0)
    assert (other.dropped, other.truncated) == (1, 0)


def test_too_long_can_be_cut_on_the_left_of_the_prompt(tokenizer: Any) -> None:
    (result,) = encode_all([task("x", 9, 3)], tokenizer, max_length=8, on_too_long="truncate")
    assert [tokenizer.decode(e.tokens) for e in result.pool] == ["uvwxyz0</s>", "xyz1</s>"]
    assert [scored(e, tokenizer) for e in result.pool] == ["0</s>", "1</s>"]
    assert (result.dropped, result.truncated) == (0, 1)


@settings(max_examples=60, deadline=None)
@given(prompt=TEXTS, answer=TEXTS, max_length=st.integers(1, 30), begin=st.booleans())
def test_a_cut_keeps_the_begin_token_and_the_answer(
    tokenizer: Any, prompt: str, answer: str, max_length: int, begin: bool
) -> None:
    example = Example("<s>" + prompt if begin else prompt, answer)
    whole = encode(example, tokenizer)
    fits = whole.prompt > 0 and len(whole.scored) < max_length
    if not fits:
        with pytest.raises(UserError, match=f"an answer of at most {max_length - 1}"):
            encode_all([Task("t", (example,))], tokenizer, max_length=max_length, on_too_long="truncate")
        return
    (result,) = encode_all([Task("t", (example,))], tokenizer, max_length=max_length, on_too_long="truncate")
    (cut,) = result.pool
    assert len(cut.tokens) == min(max_length, len(whole.tokens))
    assert scored(cut, tokenizer) == scored(whole, tokenizer) == answer + "</s>"
    assert cut.prompt > 0
    kept = cut.tokens[1:] if begin else cut.tokens
    assert whole.tokens[len(whole.tokens) - len(kept) :] == kept
    assert (cut.tokens[0] == tokenizer.bos_token_id) == begin


@pytest.mark.parametrize("on_too_long", ["error", "truncate"])
def test_an_answer_too_long_alone_is_never_cut(tokenizer: Any, on_too_long: OnTooLong) -> None:
    long = Task("x", (Example("q", "a long answer"),))
    with pytest.raises(UserError, match="14 of them the answer's"):
        encode_all([long], tokenizer, max_length=14, on_too_long=on_too_long)
    (result,) = encode_all([long], tokenizer, max_length=15, on_too_long=on_too_long)
    assert (len(result.pool), result.truncated) == (1, 0)


def test_faults_of_the_tokenizer_are_said_once_those_of_examples_each(
    tokenizer: Any, make_tokenizer: Callable[..., Any]
) -> None:
    chats = Task("x", tuple(Example((Message("user", f"{i}"),), "a") for i in range(30)))
    with pytest.raises(UserError) as error:
        encode_all([chats], make_tokenizer(chat_template=None), max_length=99, on_too_long="drop")
    assert len(error.value.faults) == 1
    empty = [Task(name, tuple(Example("", f"{i}") for i in range(15))) for name in "xy"]
    with pytest.raises(UserError) as error:
        encode_all(empty, tokenizer, max_length=99, on_too_long="drop")
    assert len(error.value.faults) == 30
    assert error.value.faults[0].where == f"task x: example {empty[0].pool[0].id}"
