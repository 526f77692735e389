"""In-context prompts hold the support as it is written, and are examples like any other."""

from typing import Any

import pytest

from helpers import lora_space
from innerloop.architecture import positions_of
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask, encode, encode_all
from innerloop.data.tasks import Example, Message, Task
from innerloop.errors import UserError
from innerloop.evaluation.in_context import in_context_prompts, in_context_task, too_long
from innerloop.evaluation.kshot import draw_support, score
from innerloop.evaluation.scoring import SPARE, answers, prompt_of, verified
from innerloop.numerics.tensors import per_task
from reference import naive
from tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ENCODER = Encoder(TOKENIZER, max_length=200, on_too_long="error")
SUPPORT = (Example("1+1=", "2"), Example("question: 2+1\nanswer:", " 3"))
TEST = (Example("3+1=", "4"), Example("4+4=", "8"))


def talk(question: str, answer: str, *before: Message) -> Example:
    return Example((*before, Message("user", question)), answer)


def encoded(task: Task) -> EncodedTask:
    (found,) = encode_all([task], TOKENIZER, max_length=200, on_too_long="error")
    return found


def written(examples: Any) -> list[tuple[str, str]]:
    """(what is read, what is scored) of each encoded example."""
    return [
        (TOKENIZER.decode(prompt_of(each)), TOKENIZER.decode([label for label in each.labels if label != -100]))
        for each in examples
    ]


def test_texts_follow_blocks_of_prompt_and_answer() -> None:
    before = "1+1=2\n\nquestion: 2+1\nanswer: 3\n\n"
    found = in_context_prompts(SUPPORT, TEST, ENCODER)
    assert written(found) == [(before + "3+1=", "4<eos>"), (before + "4+4=", "8<eos>")]
    assert in_context_prompts((), TEST, ENCODER) == [encode(example, TOKENIZER) for example in TEST]
    turned = in_context_prompts(SUPPORT[::-1], TEST[:1], ENCODER)
    assert written(turned)[0][0] == "question: 2+1\nanswer: 3\n\n1+1=2\n\n3+1="


def test_other_tokens_have_another_id() -> None:
    """Hidden states below a trunk's cut are kept by id."""
    asked = [in_context_prompts(SUPPORT[:k], TEST, ENCODER) for k in range(3)]
    assert len({example.id for examples in asked for example in examples}) == 6
    assert [example.id for example in asked[0]] == [example.id for example in TEST]


def test_conversations_follow_the_others_turns() -> None:
    found = in_context_prompts([talk("1+1", "2"), talk("2+1", "3")], [talk("3+1", "4")], ENCODER)
    turns = "<bos>user: 1+1<eos>assistant: 2<eos>user: 2+1<eos>assistant: 3<eos>user: 3+1<eos>assistant: "
    assert written(found) == [(turns, "4<eos>")]


def test_a_system_message_that_all_begin_with_is_said_once() -> None:
    system, other = Message("system", "add"), Message("system", "subtract")
    (found,) = in_context_prompts([talk("1+1", "2", system)], [talk("3+1", "4", system)], ENCODER)
    once = "<bos>system: add<eos>user: 1+1<eos>assistant: 2<eos>user: 3+1<eos>assistant: "
    assert written([found])[0][0] == once
    (mixed,) = in_context_prompts([talk("1-1", "0", other)], [talk("3+1", "4", system)], ENCODER)
    assert written([mixed])[0][0] == (
        "<bos>system: add<eos>system: subtract<eos>user: 1-1<eos>assistant: 0<eos>user: 3+1<eos>assistant: "
    )
    (plain,) = in_context_prompts([talk("1+1", "2")], [talk("3+1", "4", system)], ENCODER)
    assert written([plain])[0][0] == once


def test_an_example_of_many_turns_keeps_them_all() -> None:
    long = Example((Message("user", "hi"), Message("assistant", "yes?"), Message("user", "1+1")), "2")
    (found,) = in_context_prompts([long], [talk("3+1", "4")], ENCODER)
    assert written([found])[0][0] == (
        "<bos>user: hi<eos>assistant: yes?<eos>user: 1+1<eos>assistant: 2<eos>user: 3+1<eos>assistant: "
    )


@pytest.mark.parametrize(
    ("support", "test", "words"),
    [(talk("1", "1"), TEST[0], "before a text"), (TEST[0], talk("1", "1"), "before a conversation")],
)
def test_text_and_conversations_do_not_mix(support: Example, test: Example, words: str) -> None:
    with pytest.raises(UserError, match=rf"example {support.id}.*{words}"):
        in_context_prompts([support], [test], ENCODER)


def test_a_task_with_its_support_in_the_prompt_is_scored_like_any_other() -> None:
    task = encoded(Task("sums", SUPPORT, TEST))
    support = draw_support(task, 2, seed=1)
    shown = in_context_task(task, support, ENCODER)
    by_id = {example.id: example for example in SUPPORT}
    assert list(shown.test) == in_context_prompts([by_id[each.id] for each in support], TEST, ENCODER)
    assert (shown.task, shown.pool) == (task.task, task.pool)
    space = lora_space(tiny_model("llama", layers=2))
    zero = {name: value * (not name.endswith("lora_B")) for name, value in space.shared.items()}
    (found,) = score(space, per_task(zero, 1), [shown])
    expected = [float(naive.loss(space.model, [example])) for example in shown.test]
    assert found.nats == pytest.approx(expected, rel=1e-4)
    assert found.nats != pytest.approx([float(naive.loss(space.model, [each])) for each in task.test], rel=1e-2)
    (texts,) = answers(space, per_task(zero, 1), [shown], tokenizer=TOKENIZER)
    assert len(verified(shown.task, texts)) == 2


def test_prompts_too_long_for_the_model_are_named_before_anything_runs() -> None:
    short, long = encoded(Task("short", SUPPORT, TEST)), encoded(Task("long", (Example("x" * 90, "y"),), TEST))
    tasks = [in_context_task(task, task.pool, ENCODER) for task in (short, long)]
    needed = [max(len(prompt_of(example)) for example in task.test) + 2 + SPARE for task in tasks]
    assert needed[0] < needed[1]
    assert too_long(tasks, 2, positions=needed[1]) == too_long(tasks, 2, positions=None) == []
    (fault,) = too_long(tasks, 2, positions=needed[1] - 1)
    assert fault.where == "task long: k = 2"
    assert fault.value == needed[1]
    assert str(needed[1] - 1) in fault.expected
    assert [each.where for each in too_long(tasks, 2, positions=1)] == ["task short: k = 2", "task long: k = 2"]
    assert too_long(tasks, 2, positions=needed[1] - 1, most_new_tokens=3) == []
    assert positions_of(tiny_model("llama", layers=1)) == 512
