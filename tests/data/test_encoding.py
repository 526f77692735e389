"""Labels stand where the answer is, and generation sees the prompt ids that training saw."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.encoding import Encoded, End, OnTooLong, encode, encode_all, encode_prompt
from innerloop.data.tasks import Example, Message, Task
from innerloop.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PROMPTS = TEXTS | st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), TEXTS), min_size=1).map(tuple)
CHAT = Example((Message("user", "2 + 2"),), "4")
TEXT = Example("2 + 2 =", " 4")


def scored(encoded: Encoded, tokenizer: Any) -> str:
    return tokenizer.decode([label for label in encoded.labels if label != -100])


def message_of(example: Example, tokenizer: Any) -> str:
    with pytest.raises(UserError) as error:
        encode(example, tokenizer)
    return str(error.value)


# one example


@settings(max_examples=150, deadline=None)
@given(prompt=PROMPTS, answer=TEXTS)
def test_labels_are_the_answers_tokens(tokenizer: Any, prompt: Any, answer: str) -> None:
    encoded = encode(Example(prompt, answer), tokenizer)
    before = encode_prompt(prompt, tokenizer)
    assert encoded.tokens[: len(before)] == before
    assert encoded.labels == (-100,) * len(before) + encoded.tokens[len(before) :]
    end = "</s>" if isinstance(prompt, str) else "<|im_end|>"
    assert scored(encoded, tokenizer) == answer + end


def test_a_text_ends_with_the_end_token(tokenizer: Any) -> None:
    encoded = encode(TEXT, tokenizer)
    assert tokenizer.decode(encoded.tokens) == "2 + 2 = 4</s>"
    assert encoded.tokens[-1] == encoded.labels[-1] == tokenizer.eos_token_id
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


# conversations


def test_a_conversation_is_what_the_chat_template_writes(tokenizer: Any) -> None:
    encoded = encode(CHAT, tokenizer)
    prompt = [{"role": "user", "content": "2 + 2"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    assert encode_prompt(CHAT.prompt, tokenizer) == tuple(ids)
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": "4"}])["input_ids"]
    newline = tokenizer.encode("\n", add_special_tokens=False)
    assert [*encoded.tokens, *newline] == whole
    assert scored(encoded, tokenizer) == "4<|im_end|>"


def test_a_template_without_an_end_gets_the_end_token(make_tokenizer: Callable[..., Any]) -> None:
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    bare = make_tokenizer(chat_template=template)
    assert scored(encode(CHAT, bare), bare) == "4\n</s>"


def test_a_tokenizer_without_chat_template_is_named(make_tokenizer: Callable[..., Any]) -> None:
    plain = make_tokenizer(chat_template=None, name_or_path="acme/base")
    assert "tokenizer acme/base: has no chat template" in message_of(CHAT, plain)
    assert encode(TEXT, plain).tokens


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


# what a template writes around the answer

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


def parts(encoded: Encoded, tokenizer: Any) -> tuple[str, str, str]:
    """Prefix, answer and end."""
    tokens = [label for label in encoded.labels if label != -100]
    last = len(tokens) - encoded.end
    return tuple(
        tokenizer.decode(part) for part in (tokens[: encoded.prefix], tokens[encoded.prefix : last], tokens[last:])
    )


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


def test_an_answer_that_writes_its_own_think_block_stands_whole(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(chat_template=THINK)
    answer = "<think>\n2 and 2\n</think>\n\n4"
    assert parts(encode(Example(CHAT.prompt, answer), tokenizer), tokenizer) == ("", answer, "<|im_end|>")


def test_a_token_that_reaches_over_a_border_is_the_answers(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(
        chat_template=TYPED.replace("m.content", "(':' if m.role == 'assistant' else '') + m.content")
    )
    encoded = encode(Example(CHAT.prompt, " 7"), tokenizer)
    assert parts(encoded, tokenizer) == ("", ": 7", " ###\n</s>")
    assert encoded.opening == ":"
    assert parts(encode(Example(CHAT.prompt, "7"), tokenizer), tokenizer)[:2] == (":", "7")  # control


@pytest.mark.parametrize("answer", [" 4 ", "\n4", "4"])
def test_white_space_that_a_template_trims_is_no_part_of_the_answer(
    make_tokenizer: Callable[..., Any], answer: str
) -> None:
    tokenizer = make_tokenizer(chat_template=THINK.replace("m.content +", "m.content|trim +"))
    assert parts(encode(Example(CHAT.prompt, answer), tokenizer), tokenizer)[1:] == ("4", "<|im_end|>")


@pytest.mark.parametrize(
    "change", ["m.content[:2]", "m.content|upper", "m.content.split('</think>')[-1]", "m.content|replace('yes', 'no')"]
)
def test_an_answer_that_the_template_changes_is_a_fault(make_tokenizer: Callable[..., Any], change: str) -> None:
    tokenizer = make_tokenizer(chat_template=THINK.replace("m.content +", f"({change}) +"))
    example = Example(CHAT.prompt, "so </think> yes", "a.jsonl:3")
    with pytest.raises(UserError, match=r"a\.jsonl:3") as error:
        encode_all([Task("t", (example,))], tokenizer, max_length=99, on_too_long="error")
    assert "the chat template" in str(error.value)


# many examples


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
    fits = whole.labels.count(-100) > 0 and len(whole.tokens) - whole.labels.count(-100) < max_length
    if not fits:
        with pytest.raises(UserError, match=f"an answer of at most {max_length - 1}"):
            encode_all([Task("t", (example,))], tokenizer, max_length=max_length, on_too_long="truncate")
        return
    (result,) = encode_all([Task("t", (example,))], tokenizer, max_length=max_length, on_too_long="truncate")
    (cut,) = result.pool
    assert len(cut.tokens) == len(cut.labels) == min(max_length, len(whole.tokens))
    assert scored(cut, tokenizer) == scored(whole, tokenizer) == answer + "</s>"
    assert cut.labels[0] == -100
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
