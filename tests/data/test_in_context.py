"""In-context prompts hold a task's examples as they are encoded; each answer of one is scored as if asked alone."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import lora_space
from innerloop.data.batches import collate, in_context_batch
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask, encode_all
from innerloop.data.in_context import LEFT_OUT, InContext, separator_of
from innerloop.data.sampler import Draw
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.token_ids import Encoded, End
from innerloop.errors import UserError
from innerloop.numerics.tensors import per_task
from reference import naive
from tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ENCODER = Encoder(TOKENIZER, max_length=200, on_too_long="error", asks="in-context")
SUMS = Task(
    "sums",
    (Example("1+1=", "2"), Example("question: 2+1\nanswer:", " 3"), Example("5+1=", "6"), Example("7+2=", " 9")),
    (Example("3+1=", "4"), Example("4+4=", "8")),
)


def talk(question: str, answer: str, *before: Message) -> Example:
    return Example((*before, Message("user", question)), answer)


TALKS = Task("talks", (talk("1+1", "2"), talk("2+1", "3"), talk("5+1", "6")), (talk("3+1", "4"),))


def encoded(task: Task, tokenizer: Any = TOKENIZER) -> EncodedTask:
    (found,) = replace(ENCODER, tokenizer=tokenizer).tasks([task])
    return found


def shown(task: EncodedTask) -> InContext:
    assert task.in_context is not None
    return task.in_context


def text(tokens: Any, tokenizer: Any = TOKENIZER) -> str:
    return tokenizer.decode(list(tokens))


def scored(prompt: Encoded) -> list[str]:
    return [text(prompt.tokens[place.start : place.stop]) for place in prompt.answers]


def test_texts_follow_blocks_of_prompt_and_answer() -> None:
    task = encoded(SUMS)
    before = "1+1=2\n\nquestion: 2+1\nanswer: 3\n\n"
    found = task.behind(task.pool[:2]).test
    assert [text(each.tokens) for each in found] == [f"{before}3+1=4\n\n", f"{before}4+4=8\n\n"]
    assert [scored(each) for each in found] == [["4\n\n"], ["8\n\n"]]
    assert {(each.stop, each.end) for each in found} == {(End((TOKENIZER.eos_token_id,), "\n\n"), 2)}
    assert [each.id for each in found] == [each.id for each in task.test], "who is asked, behind whomever"
    turned = shown(task).asked(task.test[0], task.pool[1::-1])
    assert text(turned.tokens) == "question: 2+1\nanswer: 3\n\n1+1=2\n\n3+1=4\n\n"
    assert replace(task, in_context=None).behind(task.pool).test == task.test


def test_every_answer_of_a_prompt_can_be_scored() -> None:
    task = encoded(SUMS)
    found = shown(task).every(task.pool[:3])
    assert text(found.tokens) == "1+1=2\n\nquestion: 2+1\nanswer: 3\n\n5+1=6\n\n"
    assert scored(found) == ["2\n\n", " 3\n\n", "6\n\n"]
    assert text(found.scored) == "2\n\n 3\n\n6\n\n"
    assert text(found.tokens[found.asked :]) == "6\n\n"
    alone = shown(task).asked(task.pool[2], task.pool[:2])
    assert alone == found._replace(prompt=found.asked, between=()), "the last answer, asked behind the others"


def test_a_begin_token_stands_before_the_first_block_alone() -> None:
    tokenizer = begins(tiny_tokenizer())
    task = encoded(SUMS, tokenizer)
    found = shown(task).every(task.pool[:3])
    assert [place for place, token in enumerate(found.tokens) if token == tokenizer.bos_token_id] == [0]
    assert scored(found) == ["2\n\n", " 3\n\n", "6\n\n"]


def begins(tokenizer: Any) -> Any:
    from tokenizers.processors import TemplateProcessing

    processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = processor
    return tokenizer


def test_conversations_are_earlier_turns() -> None:
    task = encoded(TALKS)
    found = shown(task).every(task.pool)
    turns = "<bos>user: 1+1<eos>assistant: 2<eos>user: 2+1<eos>assistant: 3<eos>user: 5+1<eos>assistant: 6<eos>"
    assert text(found.tokens) == turns
    assert scored(found) == ["2<eos>", "3<eos>", "6<eos>"]
    assert found.id == task.pool[2].id
    assert shown(task).asked(task.pool[2], task.pool[:2]) == found._replace(prompt=found.asked, between=())


def test_a_system_message_that_all_begin_with_is_said_once() -> None:
    system, other = Message("system", "add"), Message("system", "subtract")
    examples = talk("1+1", "2", system), talk("3+1", "4", system), talk("1-1", "0", other), talk("2+2", "4")
    first, second, third, plain = encoded(Task("t", examples)).pool
    prompts = shown(encoded(Task("t", examples)))
    once = "<bos>system: add<eos>user: {}<eos>assistant: {}<eos>user: 3+1<eos>assistant: 4<eos>"
    assert text(prompts.asked(second, [first]).tokens) == once.format("1+1", "2")
    assert text(prompts.asked(second, [plain]).tokens) == once.format("2+2", "4")
    assert text(prompts.asked(second, [third]).tokens) == (
        "<bos>system: add<eos>system: subtract<eos>user: 1-1<eos>assistant: 0<eos>user: 3+1<eos>assistant: 4<eos>"
    )


def test_an_example_of_many_turns_keeps_them_all() -> None:
    long = Example((Message("user", "hi"), Message("assistant", "yes?"), Message("user", "1+1")), "2")
    task = encoded(Task("t", (long, talk("3+1", "4"))))
    found = shown(task).every(task.pool)
    begun = "<bos>user: hi<eos>assistant: yes?<eos>user: 1+1<eos>assistant: 2<eos>"
    assert text(found.tokens) == f"{begun}user: 3+1<eos>assistant: 4<eos>"
    assert scored(found) == ["2<eos>", "4<eos>"], "what the record's own assistant said is no answer"


LAST_ONLY = (
    "{% for m in messages %}{{ m.role + ': ' }}{% if m.role == 'assistant' and loop.last %}{{ 'so: ' }}{% endif %}"
    "{{ m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def test_a_template_that_rewrites_earlier_answers_can_be_used_and_not_learned_in_context() -> None:
    """As those that keep a model's thoughts in the last turn alone."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = LAST_ONLY
    task = encoded(TALKS, tokenizer)
    asked = shown(task).asked(task.test[0], task.pool[:1])
    assert text(asked.tokens).endswith("assistant: 2<eos>user: 3+1<eos>assistant: so: 4<eos>")
    with pytest.raises(UserError, match=rf"example {TALKS.pool[0].id}.*otherwise when more turns follow"):
        shown(task).every(task.pool)


def test_a_task_is_of_texts_or_of_conversations() -> None:
    with pytest.raises(UserError, match="can't stand in one prompt") as caught:
        ENCODER.tasks([Task("a", (talk("1", "1"), SUMS.pool[0])), SUMS, Task("b", (talk("1", "1"), SUMS.pool[1]))])
    assert [SUMS.pool[place].id in fault.where for place, fault in enumerate(caught.value.faults)] == [True, True]


def test_answers_with_a_blank_line_get_another_separator_or_are_a_fault() -> None:
    def task(*answers: str) -> Task:
        return Task("t", tuple(Example(f"{n}=", answer) for n, answer in enumerate(answers)), SUMS.test)

    assert separator_of(task("a\nb", "c\n\n")) == "\n\n"
    found = encoded(task("a\n\nb", "c"))
    assert text(shown(found).every(found.pool).tokens) == "0=a\n\nb\n\n###\n\n1=c\n\n###\n\n"
    with pytest.raises(UserError, match=r"task t.*separator"):
        encoded(task("a\n\n###\n\nb"))


def test_a_cut_prompt_stays_cut_between_others() -> None:
    cutting = replace(ENCODER, max_length=12, on_too_long="truncate")
    (task,) = cutting.tasks([Task("t", (Example("a long question: 1+1=", "2"), Example("3+1=", "4")))])
    assert text(shown(task).every(task.pool).tokens) == "stion: 1+1=2\n\n3+1=4\n\n"[1:]


# training scores each answer as if it were asked alone


@pytest.mark.parametrize("given", [SUMS, TALKS])
def test_the_loss_of_a_prompts_answers_is_that_of_each_asked_behind_its_predecessors(given: Task) -> None:
    """A twin by other code: one answer at a time, on plain logits."""
    task = encoded(given)
    examples = task.pool[2::-1]
    model = tiny_model("llama", layers=2)
    space = lora_space(model)
    zero = per_task({name: value * (not name.endswith("lora_B")) for name, value in space.shared.items()}, 1)
    whole = shown(task).every(examples)
    each = [shown(task).asked(example, examples[:place]) for place, example in enumerate(examples)]
    with torch.no_grad():
        nats = [naive.loss(model, [one]) for one in each]
        expected = sum(float(one) * len(own.scored) for one, own in zip(nats, each, strict=True)) / len(whole.scored)
    for packed in (False, True):
        batch = collate([[whole, each[0]]], packed=packed)
        loss, _ = space.loss_and_gradient(zero, collate([[whole]], packed=packed))
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        with space.installed(zero):
            found = space.loss.score(batch)
        assert found.nats[0, 0].item() == pytest.approx(naive.answer_nats(model, each[-1]), rel=1e-4)
        assert found.stop_nats[0, 0].item() == pytest.approx(
            naive.answer_nats(model, each[-1], stopping=True), rel=1e-4
        )
    assert float(nats[-1]) != pytest.approx(expected, rel=1e-3), "of the last alone"
    with torch.no_grad():
        alone = float(naive.loss(model, [shown(task).asked(example) for example in examples]))
    assert alone != pytest.approx(expected, rel=1e-3), "without predecessors"


# which examples stand in a prompt


def blocks(prompt: Encoded) -> list[str]:
    return text(prompt.tokens).removesuffix("\n\n").split("\n\n")


NUMBERS = encoded(Task("n", tuple(Example(f"{n}=", f"{n}") for n in range(9))))


@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_prompt_that_leaves_one_out_asks_it_behind_all_the_others(k: int, size: int, steps: int, seed: int) -> None:
    support = NUMBERS.pool[:k]
    found = shown(NUMBERS).left_out(support, steps=steps, batch_size=size, chance=[seed])
    assert [len(step) for step in found] == [min(size, k)] * steps
    asked = [blocks(prompt)[-1] for step in found for prompt in step]
    assert asked == [f"{n % k}={n % k}" for n in range(len(asked))], "they take turns"
    for prompt in (prompt for step in found for prompt in step):
        assert sorted(blocks(prompt)) == [f"{n}={n}" for n in range(k)]
        assert scored(prompt) == [blocks(prompt)[-1][2:] + "\n\n"], "the answer that is asked, and no other"
    again = shown(NUMBERS).left_out(support, steps=steps + 1, batch_size=size, chance=[seed])
    assert again[:steps] == found, "a step's prompts are a function of its number"


def test_orders_are_drawn_anew_and_from_every_part_of_what_they_are_drawn_from() -> None:
    support = NUMBERS.pool[:7]

    def orders(chance: int, examples: Any = support) -> list[list[str]]:
        steps = shown(NUMBERS).left_out(examples, steps=3, chance=[chance])
        return [blocks(prompt)[:-1] for step in steps for prompt in step]

    assert len(orders(1)) == 3 * LEFT_OUT
    assert orders(1) == orders(1) != orders(2)
    assert orders(1, support[::-1])[0] != orders(1)[0]
    assert all(one != other for one, other in pairwise(orders(1)))


def test_a_query_stands_behind_none_to_all_of_the_support() -> None:
    support, query = NUMBERS.pool[:3], NUMBERS.pool[3:]
    drawn = [shown(NUMBERS).drawn(query, support, chance=[seed]) for seed in range(30)]
    prompts = [blocks(prompt) for each in drawn for prompt in each]
    assert {len(prompt) - 1 for prompt in prompts} == {0, 1, 2, 3}
    assert all(len(set(prompt)) == len(prompt) for prompt in prompts)
    assert all(set(prompt[:-1]) <= {"0=0", "1=1", "2=2"} for prompt in prompts)
    assert [prompt[-1] for prompt in prompts[:6]] == [f"{n}={n}" for n in range(3, 9)]
    assert len({tuple(prompt[:-1]) for prompt in prompts if len(prompt) == 4}) == 6, "in every order"


def test_a_batch_of_such_prompts_is_drawn_for_each_task_by_itself() -> None:
    """So neither the other tasks of a step nor their order in it changes a task's prompts."""
    other = encoded(Task("m", tuple(Example(f"{n}+", f"{n}") for n in range(9))))
    pools = [task.pool for task in (NUMBERS, other)]
    prompts = [shown(NUMBERS), shown(other)]
    options: Any = {"inner_steps": 2, "batch_size": 3}
    both = Draw([0, 1], [[0, 1, 2], [3, 4, 5]], [[6, 7], [8, 0]])
    found = in_context_batch(prompts, pools, ["n", "m"], both, chance=(7, 5), **options)
    assert [batch.tokens.shape[:2] for batch in found.batches] == [(2, 3), (2, 3), (2, 2)]
    turned = Draw([1, 0], both.support[::-1], both.query[::-1])
    mirrored = in_context_batch(prompts, pools, ["n", "m"], turned, chance=(7, 5), **options)
    for one, same in zip(found.batches, mirrored.batches, strict=True):
        assert one.examples == same.examples[::-1]
    later = in_context_batch(prompts, pools, ["n", "m"], both, chance=(7, 6), **options)
    assert [batch.examples for batch in later.batches] != [batch.examples for batch in found.batches]
    joint = in_context_batch(
        prompts, pools, ["n", "m"], Draw([0], [[]], [[4, 2, 0]]), chance=(), inner_steps=0, batch_size=0
    )
    assert joint.support == []
    assert joint.query is not None
    assert [blocks(prompt) for (prompt,) in joint.query.examples] == [["4=4", "2=2", "0=0"]]
    assert joint.query.token_count == 3 * 5


def test_without_a_tokenizer_examples_count_as_they_are_encoded() -> None:
    """What a plan for a machine elsewhere knows: their lengths."""
    rows = [Encoded(example.id, (1,) * 10, 0) for example in SUMS.pool]
    found = InContext(SUMS.pool, rows, None).every(rows[:3])
    assert (len(found.tokens), len(found.scored)) == (30, 30)
    batch = collate([[found]])
    assert len(batch.scored_rows) == 29, "the first token stands behind none"
    talks = [Encoded(example.id, (1,) * 10, 0) for example in TALKS.pool]
    assert len(InContext(TALKS.pool, talks, None).every(talks).tokens) == 30
    assert len(InContext(TALKS.pool, talks, None).asked(talks[2], talks[:2]).scored) == 10


def test_an_encoder_that_asks_alone_makes_no_prompts() -> None:
    (task,) = encode_all([SUMS], TOKENIZER, max_length=200, on_too_long="error")
    assert task.in_context is None
    assert replace(ENCODER, asks="alone").tasks([SUMS]) == [task]
