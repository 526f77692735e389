"""Records as ShareGPT, Alpaca, TRL, BIG-bench and others write them, and the fields that shape a prompt."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.encoder import Encoder, form_of
from innerloop.data.encoding import encode
from innerloop.data.examples import read_examples, read_tasks
from innerloop.data.forms import FORMS, KNOWN_FIELDS
from innerloop.data.tasks import Example, Message
from innerloop.errors import UserError
from record_files import faults_of, the_example, write

TOOL = {"type": "function", "function": {"name": "lookup", "parameters": {}}}
ASKED = [{"role": "user", "content": "2+2"}]
SAID = [{"role": "assistant", "content": "4"}]
WITH_TOOLS = (
    "{% for tool in tools or [] %}<{{ tool.function.name }}>{% endfor %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def one(record: dict[str, Any]) -> Example:
    (example,) = read_examples([record])
    return example


def faults(record: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as error:
        read_examples([record])
    return [f"{fault.where}: {fault.problem}" for fault in error.value.faults]


# accepted answers


@pytest.mark.parametrize(
    ("value", "answer", "accepted"),
    [
        (["Paris"], " Paris", ()),
        (["4", "four", "4"], " 4", (" four",)),
        ([4], " [4]", ()),
        ([1, "b"], " [1, 'b']", ()),
    ],
)
def test_a_list_of_texts_is_what_is_accepted(value: Any, answer: str, accepted: tuple[str, ...]) -> None:
    assert one({"question": "q", "answer": value}) == Example("Question: q\nAnswer:", answer, accepted=accepted)


def test_completions_and_outputs_may_be_several_too() -> None:
    assert one({"prompt": "p", "completion": [" a", " b"]}) == Example("p", " a", accepted=(" b",))
    assert one({"instruction": "i", "output": ["a", "b"]}).answers == ("\na", "\nb")
    assert faults({"question": "q", "answer": []}) == ["examples[0]: answer: is an empty list"]


# forms


def test_sharegpt_is_a_conversation() -> None:
    turns = [{"from": "human", "value": "2+2"}, {"from": "gpt", "value": "4"}]
    assert one({"conversations": turns, "id": 3}) == Example((Message("user", "2+2"),), "4")
    opened = one({"conversations": turns, "system": "Be brief.", "tools": json.dumps([TOOL])})
    assert opened.prompt == (Message("system", "Be brief."), Message("user", "2+2"))
    assert opened.template_arguments == {"tools": [TOOL]}
    assert one({"conversations": [*ASKED, *SAID]}) == Example((Message("user", "2+2"),), "4")
    assert faults({"conversations": [turns[0], {"from": "function_call", "value": "x"}]}) == [
        "examples[0]: conversations[1].from: no such role"
    ]
    assert faults({"conversations": turns[:1] * 2}) == [
        "examples[0]: conversations[1].role: the last message is not the assistant's"
    ]


def test_alpaca_is_its_own_frame_with_and_without_input() -> None:
    bare = one({"instruction": "Add.", "input": "", "output": "4"})
    asked = one({"instruction": "Add.", "input": "2, 2", "output": "4"})
    assert bare.answer == asked.answer == "\n4"
    assert str(bare.prompt).endswith("completes the request.\n\n### Instruction:\nAdd.\n\n### Response:")
    assert str(asked.prompt).endswith("further context. Write a response that appropriately completes the request.\n\n"
                                      "### Instruction:\nAdd.\n\n### Input:\n2, 2\n\n### Response:")  # fmt: skip
    told = one({"instruction": "Add.", "output": "4", "system": "Be brief."})
    assert str(told.prompt).startswith("Be brief.\n\n### Instruction:")


def test_trl_has_messages_before_and_behind() -> None:
    read = one({"prompt": ASKED, "completion": SAID, "tools": [TOOL], "documents": [{"text": "d"}]})
    assert (read.prompt, read.answer) == ((Message("user", "2+2"),), "4")
    assert read.template_arguments == {"tools": [TOOL], "documents": [{"text": "d"}]}
    assert faults({"prompt": ASKED, "completion": ASKED}) == [
        "examples[0]: completion[1].role: the last message is not the assistant's"
    ]
    assert faults({"prompt": ASKED, "completion": SAID * 2}) == ["examples[0]: completion: several messages"]
    assert faults({"prompt": ASKED, "completion": "4"}) == ["examples[0]: completion: not a conversation"]


# what shapes a prompt


@pytest.mark.parametrize("field", ["tools", "documents", "system", "input", "history", "chat_template_kwargs"])
def test_a_field_that_shapes_a_prompt_is_read_or_named(field: str) -> None:
    for form in ({"question": "q", "answer": "a"}, {"prompt": "p", "completion": "c"}):
        (said,) = faults({**form, field: ["x"]})
        assert said.startswith(f"examples[0]: {field}: shapes the prompt")
        for nothing in (None, "", [], {}):
            assert one({**form, field: nothing}) == one(form)
    assert one({"question": "q", "answer": "a", "source": ["x"]}) == one({"question": "q", "answer": "a"})


def test_it_is_said_once_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"question": f"{n}", "answer": "a", "input": "x"} for n in range(9)))
    assert faults_of(path) == ["a.jsonl:1: input: shapes the prompt, and isn't read with question and answer"]
    assert the_example(write(tmp_path / "a.jsonl", {"input": "x", "output": "y"}),
                       columns={"question": "input", "answer": "output"}).answer == " y"  # fmt: skip


def test_a_column_that_the_form_does_not_read_is_not_mapped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "q", "answer": "a", "context": "c"})
    columns = {"question": "question", "input": "context"}
    assert faults_of(path, columns=columns) == ["tasks.columns.input: not read with question and answer"]
    (warning,) = read_tasks(path, test=0).warnings
    assert "'context' is not read" in warning


def test_tools_and_a_system_text_reach_the_chat_template(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(chat_template=WITH_TOOLS)
    plain = one({"messages": [*ASKED, *SAID]})
    told = one({"messages": [*ASKED, *SAID], "tools": [TOOL], "system": "Be brief."})
    assert told.id != plain.id
    texts = [tokenizer.decode(encode(example, tokenizer).tokens) for example in (plain, told)]
    assert texts[1] == "<lookup><|im_start|>system\nBe brief.<|im_end|>\n" + texts[0]


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"conversations": [{"from": "human", "value": "2+2"}, {"from": "gpt", "value": "4"}]}, "conversations"),
        ({"prompt": ASKED, "completion": SAID, "tools": [TOOL]}, "completion"),
        ({"instruction": "Add.", "input": "2, 2", "output": "4"}, "output"),
    ],
)
def test_a_record_without_its_answer_is_asked_as_it_was_trained(
    record: dict[str, Any], prompt: str, make_tokenizer: Any
) -> None:
    encoder = Encoder(make_tokenizer(chat_template=WITH_TOOLS), 999, "error")
    trained = encoder.encode(one(record)).tokens
    asked = {name: value for name, value in record.items() if name != prompt}
    if prompt == "conversations":
        asked = {prompt: record[prompt][:-1]}
    (start,) = encoder.starts([asked], form_of([one(record)]))
    assert trained[: len(start.tokens)] == start.tokens
    assert len(start.tokens) < len(trained)


def test_a_text_is_an_instruction_in_a_run_of_instructions(make_tokenizer: Any) -> None:
    encoder, example = Encoder(make_tokenizer(), 999, "error"), one({"instruction": "Add 2 and 2.", "output": "4"})
    starts = encoder.starts(["Add 2 and 2.", example.prompt], form_of([example]))
    assert starts[0].tokens == starts[1].tokens == encoder.encode(example).tokens[: len(starts[0].tokens)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tools": 3}, "tools: is of type int"),
        ({"tools": "no JSON"}, "tools: is of type str"),
        ({"chat_template_kwargs": []}, ""),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs: is of type list"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs: set by innerloop"),
        ({"system": 3}, "system: is of type int"),
    ],
)
def test_what_a_template_cannot_be_handed_is_a_fault(more: dict[str, Any], said: str) -> None:
    record = {"messages": [*ASKED, *SAID], **more}
    assert [each.removeprefix("examples[0]: ") for each in faults(record)] == [said] if said else one(record)


# any records of any form

TEXTS = st.text(min_size=1, max_size=5)
ODD = st.none() | st.integers() | st.lists(TEXTS, max_size=2) | st.dictionaries(TEXTS, TEXTS, max_size=1)
TURNS = st.lists(
    st.fixed_dictionaries({}, optional={
        "from": st.sampled_from(["human", "gpt", "x"]), "value": TEXTS | ODD,
        "role": st.sampled_from(["user", "assistant", "system"]), "content": TEXTS | ODD,
    }),
    max_size=3,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMS), st.data())
def test_any_record_of_any_form_is_read_or_refused(form: Any, data: st.DataObject) -> None:
    values = {field: data.draw(TEXTS | TURNS | ODD, label=field) for field in form.fields}
    more = data.draw(st.dictionaries(st.sampled_from(KNOWN_FIELDS), TEXTS | ODD, max_size=2))
    try:
        (example,) = read_examples([{**more, **values}])
    except UserError:
        return
    assert example.prompt
    assert all(answer.strip() for answer in example.answers)
    assert json.loads(example.template or "{}") == example.template_arguments
