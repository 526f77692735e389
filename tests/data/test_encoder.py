"""One reader for training and use: prompts of any kind become what the run's own examples ask with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.encoder import Encoder, Form, form_of
from innerloop.data.tasks import Example, Message
from innerloop.errors import UserError

CHAT = (Message("user", "2 + 2"),)
ODD: Any = ["fine", 7, {"prompt": ""}]
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text.strip()
)


@pytest.fixture(scope="module")
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer, 99, "error", {"question": "Frage", "answer": "Antwort"})


def prompt_ids(encoder: Encoder, example: Example) -> tuple[int, ...]:
    encoded = encoder.encode(example)
    return encoded.tokens[: encoded.prompt]


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_a_prompt_of_any_kind_is_read_as_training_reads_it(encoder: Encoder, text: str) -> None:
    chat, question, plain = (
        Example((Message("user", text),), "4"),
        Example(f"Question: {text}\nAnswer:", " 4"),
        Example(text, " 4"),
    )
    ways: list[tuple[Form, Example, list[Any]]] = [
        (
            "messages",
            chat,
            [text, chat.prompt, [{"role": "user", "content": text}], {"messages": [{"role": "user", "content": text}]}],
        ),
        ("question", question, [text, question.prompt, {"question": text}, {"Frage": text}]),
        ("prompt", plain, [text, {"prompt": text}]),
    ]
    for form, example, prompts in ways:
        assert form_of([example]) == form
        found = encoder.starts(prompts, form)
        assert {start.tokens for start in found} == {prompt_ids(encoder, example)}
        assert {start.stop for start in found} == {encoder.encode(example).stop}
    bare = encoder.starts([text], "prompt")[0].tokens
    assert bare != encoder.starts([text], "messages")[0].tokens  # the control


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("text", "not a list of prompts"),
        (b"text", "not a list of prompts"),
        ({"prompt": "text"}, "not a list of prompts"),
        (7, "not a list of prompts"),
        ([7], "not a prompt"),
        ([[]], "not a prompt"),
        ([b"x"], "not a prompt"),
        ([{}], "not a prompt"),
        ([{"other": "x"}], "not a prompt"),
        ([{"prompt": "x", "completion": "y"}], "the answer stands in the prompt"),
        ([{"prompt": 3}], r"prompts\[0\]"),
        ([{"messages": 3}], "not a conversation"),
        ([["user", "hi"]], "not a message"),
        ([[{"role": "nobody", "content": "hi"}]], "no such role"),
        ([[*CHAT, {"role": "assistant", "content": "4"}]], "the assistant's"),
        ([""], "no token to start from"),
    ],
)
def test_anything_else_is_refused(encoder: Encoder, prompts: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        encoder.starts(prompts, "prompt")


@settings(max_examples=100, deadline=None)
@given(
    prompts=st.recursive(
        st.none() | st.integers() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["messages", "prompt", "role", "content", "x"]), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    form=st.sampled_from(["messages", "question", "prompt", None]),
)
def test_prompts_are_read_or_refused_in_words(encoder: Encoder, prompts: Any, form: Any) -> None:
    try:
        found = encoder.starts(prompts, form)
    except UserError:
        return
    assert len(found) == len(prompts)
    assert all(start.tokens for start in found)


def test_every_fault_of_the_prompts_is_said_at_once(encoder: Encoder) -> None:
    with pytest.raises(UserError) as caught:
        encoder.starts(ODD, "prompt")
    assert [fault.where.partition(":")[0] for fault in caught.value.faults] == ["prompts[1]", "prompts[2]"]


def test_a_text_after_examples_of_two_forms_could_be_either(encoder: Encoder) -> None:
    form = form_of([Example(CHAT, "4"), Example("a", "b")])
    assert form is None
    with pytest.raises(UserError, match="could be either"):
        encoder.starts(["text"], form)
    assert encoder.starts([CHAT], form)[0].tokens == prompt_ids(encoder, Example(CHAT, "4"))


# columns


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_runs_own_columns_are_read_from_files_and_records(encoder: Encoder, tmp_path: Path) -> None:
    own = {"Frage": "2 + 2", "Antwort": "4", "question": "3 + 3", "answer": "6"}
    for source in (write(tmp_path, own), [own]):
        assert encoder.examples(source) == [Example("Question: 2 + 2\nAnswer:", " 4")]
        assert encoder.examples(source, columns={}) == [Example("Question: 3 + 3\nAnswer:", " 6")]
        other = {"question": "Antwort", "answer": "Frage"}
        assert encoder.examples(source, columns=other) == [Example("Question: 4\nAnswer:", " 2 + 2")]


def test_records_without_any_of_those_columns_are_read_by_our_names(encoder: Encoder, tmp_path: Path) -> None:
    plain = {"prompt": "2 + 2 =", "completion": " 4"}
    for source in (write(tmp_path, plain), [plain]):
        assert encoder.examples(source) == [Example("2 + 2 =", " 4")]


def test_a_column_that_is_missing_is_named(encoder: Encoder, tmp_path: Path) -> None:
    for source in (write(tmp_path, {"Frage": "a", "answer": "b"}), [{"Frage": "a", "answer": "b"}]):
        with pytest.raises(UserError, match=r"tasks\.columns\.answer: no file has this column"):
            encoder.examples(source)
        with pytest.raises(UserError, match="nowhere"):
            encoder.examples(source, columns={"question": "nowhere"})


def test_the_column_of_the_task_needs_no_place_in_one_tasks_file(tokenizer: Any, tmp_path: Path) -> None:
    encoder = Encoder(tokenizer, 99, "error", {"task": "subject", "question": "Frage"})
    assert encoder.examples(write(tmp_path, {"Frage": "a", "answer": "b"})) == [Example("Question: a\nAnswer:", " b")]


@pytest.mark.parametrize("source", [7, None, b"x", {"prompt": "a"}])
def test_what_is_no_examples_is_refused(encoder: Encoder, source: Any) -> None:
    with pytest.raises(UserError, match="not examples"):
        encoder.examples(source)


# dates

DATED = (
    "{%- set day = strftime_now('%d %b %Y') if strftime_now is defined else 'never' %}"
    "{{ day + ' (' + strftime_now(\"%-d/%m/%y %H:%M\") + ')\n' }}"
    "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def test_a_dated_template_is_told_the_runs_day(make_tokenizer: Callable[..., Any]) -> None:
    for lead in ("", "\n  ", "  "):
        tokenizer = make_tokenizer(chat_template=lead + DATED)
        days = [Encoder(tokenizer, 99, "error", date=day) for day in ("2026-12-01", "2026-12-12")]
        texts = [tokenizer.decode(list(prompt_ids(encoder, Example(CHAT, "4")))) for encoder in days]
        assert [text.strip().split("\n")[0] for text in texts] == [
            "01 Dec 2026 (1/12/26 00:00)",
            "12 Dec 2026 (12/12/26 00:00)",
        ]


def test_the_day_changes_nothing_else_of_what_a_template_writes(make_tokenizer: Callable[..., Any]) -> None:
    for lead in ("", "\n", "\n\n", "  ", "{# remark #}\n", "\n  {% if true %}{% endif %}"):
        text = lead + DATED.replace(" (' + strftime_now(\"%-d/%m/%y %H:%M\") + ')", "").replace("%d %b %Y", "%Y")
        tokenizer = make_tokenizer(chat_template=text)
        whole = tokenizer.apply_chat_template(
            [{"role": "user", "content": "2 + 2"}], tokenize=False, add_generation_prompt=True
        )
        this_year = whole.strip()[:4]
        encoder = Encoder(tokenizer, 99, "error", date=f"{this_year}-06-01")
        assert tokenizer.decode(list(prompt_ids(encoder, Example(CHAT, "4")))) == whole


def test_what_a_record_hands_to_the_template_is_in_its_prompt(make_tokenizer: Callable[..., Any]) -> None:
    template = "{{ tools|tojson if tools else 'none' }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    encoder = Encoder(make_tokenizer(chat_template=template), 99, "error")
    bare, given = Example(CHAT, "4"), Example(CHAT, "4", template='{"tools": [{"name": "add"}]}')
    texts = [encoder.tokenizer.decode(list(prompt_ids(encoder, example))) for example in (bare, given)]
    assert texts == ["none2 + 2</s>", '[{"name": "add"}]2 + 2</s>']


def test_columns_that_are_no_map_are_refused(encoder: Encoder) -> None:
    wrong: Any = "prompt=a"
    with pytest.raises(UserError, match="not a map of names"):
        encoder.examples([{"prompt": "a", "completion": "b"}], columns=wrong)


@pytest.mark.parametrize("field", ["tools", "documents"])
def test_a_template_that_writes_nothing_of_tools_or_documents_is_a_fault(make_tokenizer: Any, field: str) -> None:
    """Prompts at training would lack what prompts at use have."""
    example = Example(CHAT, "4", template=json.dumps({field: [{"name": "add"}]}))
    plain = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    with pytest.raises(UserError, match=f"writes nothing of the record's {field}"):
        Encoder(make_tokenizer(chat_template=plain), 99, "error").encode(example)
    reads = "{{ " + field + "|tojson if " + field + " else '' }}" + plain
    assert Encoder(make_tokenizer(chat_template=reads), 99, "error").encode(example).tokens
