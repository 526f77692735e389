"""What a chat template writes around an answer is found, and an answer that it changes is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from innerloop.data.encoding import encode, encode_all, encode_prompt
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.templates import Turn, turn, writes_date
from innerloop.errors import UserError

CHAT = Example((Message("user", "2 + 2"),), "4")
THINK = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and '</think>' not in m.content %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DATED = "today: {{ strftime_now('%d %b %Y') }}\n"


def message_of(example: Example, tokenizer: Any) -> str:
    with pytest.raises(UserError) as error:
        encode(example, tokenizer)
    return str(error.value)


def answered(answer: str) -> Example:
    return Example(CHAT.prompt, answer)


def test_a_turn_is_what_stands_around_the_answer(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(chat_template=THINK)
    before = "<|im_start|>user\n2 + 2<|im_end|>\n<|im_start|>assistant\n"
    found = turn(CHAT, tokenizer)
    assert found == Turn(before, "<think>\n\n</think>\n\n", "4", "<|im_end|>\n")
    assert turn(CHAT, tokenizer, known=False) == found._replace(answer="")
    whole = [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}]
    assert "".join(found) == tokenizer.apply_chat_template(whole, tokenize=False)


def test_a_conversation_is_what_the_chat_template_writes(tokenizer: Any) -> None:
    encoded = encode(CHAT, tokenizer)
    prompt = [{"role": "user", "content": "2 + 2"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    assert encode_prompt(CHAT.prompt, tokenizer) == tuple(ids)
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": "4"}])["input_ids"]
    newline = tokenizer.encode("\n", add_special_tokens=False)
    assert [*encoded.tokens, *newline] == whole
    assert tokenizer.decode(encoded.scored) == "4<|im_end|>"


def test_a_template_without_an_end_gets_the_end_token(make_tokenizer: Callable[..., Any]) -> None:
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    bare = make_tokenizer(chat_template=template)
    assert encode(CHAT, bare).tokens[-2:] == (*bare.encode("\n", add_special_tokens=False), bare.eos_token_id)


def test_a_tokenizer_without_chat_template_is_named(make_tokenizer: Callable[..., Any]) -> None:
    plain = make_tokenizer(chat_template=None, name_or_path="acme/base")
    assert "tokenizer acme/base: has no chat template" in message_of(CHAT, plain)
    assert encode(Example("2 + 2 =", " 4"), plain).tokens


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ 'new' if add_generation_prompt else 'old' }}", "is not how the conversation"),
        ("{{ raise_exception('roles must alternate') }}", "refuses the conversation: roles must alternate"),
        ("{{ messages[5].content }}", "refuses the conversation"),
        ("{{ messages[0].content + 1 }}", "refuses the conversation"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "refuses the conversation"),
        ("{{ ''.__class__.__mro__ }}", "refuses the conversation"),
        ("{% for", "refuses the conversation"),
        ("{% for i in range(2000) %}{{ 'x' * 100 }}{% endfor %}", "writes 200000 characters"),
    ],
)
def test_a_template_that_does_not_fit_is_a_fault(
    make_tokenizer: Callable[..., Any], template: str, problem: str
) -> None:
    assert problem in message_of(CHAT, make_tokenizer(chat_template=template))


# answers that a template looks into


def test_an_answer_that_writes_its_own_think_block_stands_whole(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(chat_template=THINK)
    answer = "<think>\n2 and 2\n</think>\n\n4"
    assert turn(answered(answer), tokenizer)[1:] == ("", answer, "<|im_end|>\n")


@pytest.mark.parametrize("answer", [" 4 ", "\n4", "4"])
def test_white_space_that_a_template_trims_is_no_part_of_the_answer(
    make_tokenizer: Callable[..., Any], answer: str
) -> None:
    tokenizer = make_tokenizer(chat_template=THINK.replace("m.content +", "m.content|trim +"))
    assert turn(answered(answer), tokenizer)[2:] == ("4", "<|im_end|>\n")


@pytest.mark.parametrize(
    "change", ["m.content[:2]", "m.content|upper", "m.content.split('</think>')[-1]", "m.content|replace('yes', 'no')"]
)
def test_an_answer_that_the_template_changes_is_a_fault(make_tokenizer: Callable[..., Any], change: str) -> None:
    tokenizer = make_tokenizer(chat_template=THINK.replace("m.content +", f"({change}) +"))
    example = Example(CHAT.prompt, "so </think> yes", "a.jsonl:3")
    with pytest.raises(UserError, match=r"a\.jsonl:3") as error:
        encode_all([Task("t", (example,))], tokenizer, max_length=99, on_too_long="error")
    assert "the chat template" in str(error.value)


# dates


def test_the_day_is_the_one_that_was_told(make_tokenizer: Callable[..., Any]) -> None:
    dated = make_tokenizer(chat_template=DATED + THINK)
    assert writes_date(dated)
    assert not writes_date(make_tokenizer(chat_template=THINK))
    day = turn(CHAT, dated, date="2026-12-01")
    assert day.before.startswith("today: 01 Dec 2026\n<|im_start|>user")
    assert turn(CHAT, dated, date="2026-12-02") != day
    plain = turn(CHAT, make_tokenizer(chat_template=THINK))
    assert day == plain._replace(before="today: 01 Dec 2026\n" + plain.before)
