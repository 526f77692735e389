"""Labels stand where the answer is, and generation sees the prompt ids that training saw."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.encoding import encode, encode_prompt
from innerloop.data.tasks import Example, Message
from innerloop.data.token_ids import Encoded, End
from innerloop.data.tokens import Reader
from innerloop.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PROMPTS = TEXTS | st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS), min_size=1).map(tuple)
CHAT = Example((Message("user", "2 + 2"),), "4")
TEXT = Example("2 + 2 =", " 4")
THINK = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and '</think>' not in m.content %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TYPED = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + ' ###\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
TWICE = TYPED.replace(" ###", "<|im_end|>").replace(
    "{% if add", "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}{% if add"
)


def scored(encoded: Encoded, tokenizer: Any) -> str:
    return tokenizer.decode(encoded.scored)


def parts(encoded: Encoded, tokenizer: Any) -> tuple[str, str, str]:
    """Prefix, answer and end."""
    tokens = list(encoded.scored)
    last = len(tokens) - encoded.end
    return tuple(
        tokenizer.decode(part) for part in (tokens[: encoded.prefix], tokens[encoded.prefix : last], tokens[last:])
    )


def message_of(example: Example, tokenizer: Any) -> str:
    with pytest.raises(UserError) as error:
        encode(example, tokenizer)
    return str(error.value)


@settings(max_examples=150, deadline=None)
@given(prompt=PROMPTS, answer=TEXTS)
def test_what_is_scored_are_the_answers_tokens(tokenizer: Any, prompt: Any, answer: str) -> None:
    encoded = encode(Example(prompt, answer), tokenizer)
    before = encode_prompt(prompt, tokenizer)
    assert encoded.tokens[: len(before)] == before
    assert encoded.prompt == len(before)
    end = "</s>" if isinstance(prompt, str) else "<|im_end|>"
    assert scored(encoded, tokenizer) == answer + end


def test_a_text_ends_with_the_end_token(tokenizer: Any) -> None:
    encoded = encode(TEXT, tokenizer)
    assert tokenizer.decode(encoded.tokens) == "2 + 2 = 4</s>"
    assert encoded.tokens[-1] == encoded.scored[-1] == tokenizer.eos_token_id
    assert encoded.id == TEXT.id


def test_an_end_token_in_the_answer_is_not_doubled(tokenizer: Any) -> None:
    assert scored(encode(Example("a", "b</s>"), tokenizer), tokenizer) == "b</s>"
    assert scored(encode(Example("a", "b</s>c"), tokenizer), tokenizer) == "b</s>c</s>"


def test_prompt_and_answer_are_tokenized_apart(tokenizer: Any) -> None:
    encoded = encode(Example("a:", " 7"), tokenizer)
    assert encoded.tokens == (*encode_prompt("a:", tokenizer), *encoded.tokens[-2:])
    joined = tokenizer.encode("a: 7", add_special_tokens=False)
    assert joined[: len(encode_prompt("a:", tokenizer))] != list(encode_prompt("a:", tokenizer))


@pytest.mark.parametrize(
    ("single", "prompt", "tokens"),
    [
        (None, "xy", "xy"),
        ("<s> $A", "xy", "<s>xy"),
        ("<s> $A", "<s>xy", "<s>xy"),
        ("<s> $A </s>", "xy", "<s>xy"),
        ("$A </s>", "xy", "xy"),
    ],
)
def test_a_begin_token_only_where_the_tokenizer_adds_one(
    make_tokenizer: Callable[..., Any], single: str | None, prompt: str, tokens: str
) -> None:
    from tokenizers import processors

    tokenizer = make_tokenizer()
    if single:
        special = [("<s>", 1), ("</s>", 0)]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=special
        )
    assert tokenizer.decode(encode_prompt(prompt, tokenizer)) == tokens
    assert tokenizer.decode(encode(Example(prompt, "z"), tokenizer).tokens) == tokens + "z</s>"


def test_no_space_comes_between_prompt_and_answer() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: index for index, token in enumerate(["<unk>", "</s>", "▁", "\n", *"ab7:"])}
    backend = Tokenizer(models.BPE(vocab, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    assert tokenizer.encode("7", add_special_tokens=False) == [vocab["▁"], vocab["7"]]
    for answer in ("7", " 7"):
        encoded = encode(Example("a:", answer), tokenizer)
        assert tokenizer.decode(encoded.tokens) == f"a:{answer}</s>"


def test_a_text_needs_an_end_token(make_tokenizer: Callable[..., Any]) -> None:
    endless = make_tokenizer(eos_token=None)
    assert "names no end token" in message_of(TEXT, endless)
    assert scored(encode(CHAT, endless), endless) == "4<|im_end|>"


def test_nothing_before_or_in_the_answer_is_a_fault(tokenizer: Any, make_tokenizer: Callable[..., Any]) -> None:
    assert "no token comes before the answer" in message_of(Example("", "x"), tokenizer)
    assert "nothing of the answer" in message_of(Example("x", ""), tokenizer)
    silent = make_tokenizer(chat_template="x{% if messages|length > 1 %}<|im_end|>{% endif %}")
    assert "doesn't write the assistant's answer" in message_of(CHAT, silent)


# what is written around the answer


@settings(max_examples=100, deadline=None)
@given(answer=TEXTS)
def test_prefix_answer_and_end_are_what_the_template_writes(make_tokenizer: Callable[..., Any], answer: str) -> None:
    eos, chat = make_tokenizer().eos_token_id, Example(CHAT.prompt, answer)
    for template, before, behind, stop in (
        (THINK, "<think>\n\n</think>\n\n", "<|im_end|>", End((3,))),
        (TYPED, "", " ###\n</s>", End((eos,), " ###")),
        (TWICE, "", "<|im_end|>\n</s>", End((3,))),
    ):
        tokenizer = make_tokenizer(chat_template=template)
        encoded = encode(chat, tokenizer)
        assert parts(encoded, tokenizer) == (before, answer, behind)
        assert (encoded.opening, encoded.stop) == (before, stop)


def test_a_text_has_no_prefix_and_ends_with_the_end_token(tokenizer: Any) -> None:
    for answer in (" 4", " 4</s>", " 4</s> "):
        encoded = encode(Example("2 + 2 =", answer), tokenizer)
        assert parts(encoded, tokenizer) == ("", " 4", "</s>")
        assert encoded.stop == End((tokenizer.eos_token_id,))


def test_a_token_that_reaches_over_a_border_is_the_answers(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(
        chat_template=TYPED.replace("m.content", "(':' if m.role == 'assistant' else '') + m.content")
    )
    encoded = encode(Example(CHAT.prompt, " 7"), tokenizer)
    assert parts(encoded, tokenizer) == ("", ": 7", " ###\n</s>")
    assert encoded.opening == ":"
    assert parts(encode(Example(CHAT.prompt, "7"), tokenizer), tokenizer)[:2] == (":", "7")  # control


# several at a time, and what a generation starts from


def test_examples_read_together_are_as_each_alone_and_a_fault_keeps_its_place(tokenizer: Any) -> None:
    examples = [TEXT, CHAT, Example("", "x"), Example("a:", " 7")]
    together = Reader(tokenizer).encoded(examples)
    assert isinstance(together[2], UserError)
    for example, found in zip(examples, together, strict=True):
        if found is not together[2]:
            assert found == encode(example, tokenizer)


def test_a_generation_starts_where_the_answer_would(tokenizer: Any, make_tokenizer: Callable[..., Any]) -> None:
    for reader in (Reader(tokenizer), Reader(make_tokenizer(chat_template=THINK))):
        for example in (TEXT, CHAT):
            start, encoded = reader.start(example), encode(example, reader.tokenizer)
            assert start == (encoded.tokens[: encoded.prompt], encoded.opening, encoded.stop)


def test_a_separator_ends_a_text_and_stops_its_generation(tokenizer: Any) -> None:
    blocks = Reader(tokenizer, separator="\n\n")
    encoded, chat = blocks.encoded([TEXT, CHAT])
    assert isinstance(encoded, Encoded)
    assert parts(encoded, tokenizer) == ("", " 4", "\n\n")
    assert encoded.stop == End((tokenizer.eos_token_id,), "\n\n")
    assert chat == encode(CHAT, tokenizer), "a conversation ends as its template has it"
