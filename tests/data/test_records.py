"""Every form of a record becomes the documented example; a bad field is named with its line."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from innerloop.data.examples import FileCount, read_tasks
from innerloop.data.tasks import Example, Message
from record_files import faults_of, rows, the_example, write

# forms of a record


def test_prompt_and_completion_are_taken_verbatim(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": " 1 +\n1 =", "completion": "  2 \n", "more": 5})
    assert the_example(path) == Example(" 1 +\n1 =", "  2 \n")


def test_question_and_answer_get_the_documented_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "1 + 1?", "answer": "two"})
    assert the_example(path) == Example("Question: 1 + 1?\nAnswer:", " two")


def test_the_last_message_is_the_answer(tmp_path: Path) -> None:
    turns = [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Yes?"),
        ("user", "2+2"),
        ("assistant", "4"),
    ]
    messages = [{"role": role, "content": content, "name": None} for role, content in turns]
    expected = Example(tuple(Message(*turn) for turn in turns[:-1]), "4")
    assert the_example(write(tmp_path / "a.jsonl", {"messages": messages})) == expected
    pq.write_table(pa.Table.from_pylist([{"messages": messages}]), tmp_path / "a.parquet")
    assert the_example(tmp_path / "a.parquet") == expected


def test_text_parts_of_a_message_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "2 +"}, {"type": "text", "text": " 2"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "4"}]
    path = write(tmp_path / "a.jsonl", {"messages": messages})
    assert the_example(path).prompt == (Message("user", "2 + 2"),)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (7, "7"),
        (2.0, "2.0"),
        (1e16, "1e+16"),
        (-0.5, "-0.5"),
        (True, "True"),
        ([1, 2], "[1, 2]"),
        ([1.0, False, "b"], "[1.0, False, 'b']"),
        ([[0, 1], []], "[[0, 1], []]"),
    ],
)
def test_answers_that_are_not_text(tmp_path: Path, value: Any, text: str) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "q", "answer": value})
    assert the_example(path).answer == " " + text


def test_several_forms_need_the_word_of_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "q", "answer": "a", "prompt": "p", "completion": "c"})
    assert faults_of(path) == ["a.jsonl: reads as prompt/completion or question/answer"]
    assert the_example(path, columns={"prompt": "prompt"}) == Example("p", "c")
    assert the_example(path, columns={"prompt": "question"}) == Example("q", "c")


# pictures


def test_records_with_pictures_are_dropped_and_counted(tmp_path: Path) -> None:
    seen = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": "x.png"}, {"type": "text", "text": "?"}],
    }
    unseen = {"role": "user", "content": "?"}
    answer = {"role": "assistant", "content": "a cat"}
    chats = write(tmp_path / "chats.jsonl", {"messages": [seen, answer]}, {"messages": [unseen, answer]})
    assert read_tasks(chats, test=0).files == [FileCount(str(chats), kept=1, pictures=1, duplicates=0)]
    asked = write(
        tmp_path / "asked.jsonl",
        {"prompt": [seen], "completion": [answer]},
        {"prompt": [unseen], "completion": [answer]},
    )
    assert read_tasks(asked, test=0).files == [FileCount(str(asked), kept=1, pictures=1, duplicates=0)]
    stored = [{"view": {"bytes": b"\x89PNG", "path": None}, **rows(1)[0]}, {"view": None, **rows(2)[1]}]
    pq.write_table(pa.Table.from_pylist(stored), tmp_path / "stored.parquet")
    assert read_tasks(tmp_path / "stored.parquet", test=0).files[0][1:] == (1, 1, 0)
    named = write(tmp_path / "named.jsonl", *rows(2, Picture="images/1.png"), *rows(3, Picture=None))
    assert read_tasks(named, test=0).files[0][1:] == (3, 2, 0)
    (tmp_path / "cells.csv").write_text("question,answer,image\n1,2,\n3,4,x.png\n")
    assert read_tasks(tmp_path / "cells.csv", test=0).files[0][1:] == (1, 1, 0)


def test_a_picture_column_that_is_the_question_is_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"image": "Describe a cat.", "answer": "It purrs."})
    assert the_example(path, columns={"question": "image"}).answer == " It purrs."


# faults


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"prompt": "p"}, "completion: is missing"),
        ({"prompt": "p", "completion": None}, "completion: is null"),
        ({"prompt": "p", "completion": " \n"}, "completion: is empty"),
        ({"prompt": "", "completion": "c"}, "prompt: is empty"),
        ({"prompt": 3, "completion": "c"}, "prompt: is of type int"),
        ({"prompt": "p", "completion": 3}, "completion: is of type int"),
        ({"prompt": "p", "completion": [3]}, "completion: is of type list"),
        ({"prompt": "p", "completion": ["c", 3]}, "completion: is of type list"),
        ({"prompt": "p", "completion": ["c", ""]}, "completion[1]: is empty"),
        ({"prompt": "p", "completion": []}, "completion: is an empty list"),
        ({"prompt": "p\ud800", "completion": "c"}, "prompt: holds a NUL character or half a surrogate pair"),
        ({"prompt": "p", "completion": "\0"}, "completion: holds a NUL character or half a surrogate pair"),
    ],
)
def test_a_bad_field_is_named_with_its_line(tmp_path: Path, record: dict[str, Any], fault: str) -> None:
    path = write(tmp_path / "a.jsonl", *rows(1), record)
    assert faults_of(path) == [f"a.jsonl:2: {fault}"]


@pytest.mark.parametrize("value", [{"x": 1}, [None], [{"x": 1}], [[[[[[[[[1]]]]]]]]]])
def test_an_answer_that_python_would_print_badly(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "q", "answer": value})
    assert faults_of(path)[0].startswith("a.jsonl:1: answer: is of type ")


def test_an_infinite_answer_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q", "answer": 1e999}\n')
    assert faults_of(path) == ["a.jsonl:1: answer: is of type float"]
    pq.write_table(pa.Table.from_pylist([{"question": "q", "answer": float("nan")}]), tmp_path / "a.parquet")
    assert faults_of(tmp_path / "a.parquet") == ["a.parquet: row 1: answer: is of type float"]


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ("hello", "messages: not a conversation"),
        ([{"role": "assistant", "content": "x"}], "messages: not a conversation"),
        ([{"role": "user", "content": "x"}] * 2, "messages[1].role: the last message is not the assistant's"),
        (
            [{"role": "usr", "content": "x"}, {"role": "assistant", "content": "x"}],
            "messages[0].role: no such role",
        ),
        ([{"role": "user"}, {"role": "assistant", "content": "x"}], "messages[0].content: is missing"),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}],
            "messages[1].content: is empty",
        ),
        (["x", {"role": "assistant", "content": "x"}], "messages[0]: not a message"),
        (
            [{"role": "user", "content": "x", "tool_calls": []}, {"role": "assistant", "content": "x"}],
            "messages[0]: only role and content of a message are read",
        ),
    ],
)
def test_a_bad_conversation_is_named_with_its_place(tmp_path: Path, messages: Any, fault: str) -> None:
    assert faults_of(write(tmp_path / "a.jsonl", {"messages": messages})) == [f"a.jsonl:1: {fault}"]
