"""In-context prompts hold the support as it is written, and are examples like any other."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from helpers import lora_space
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask, encode, encode_all
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.token_ids import End
from innerloop.data.tokens import Separator
from innerloop.errors import UserError
from innerloop.evaluation.generation import SPARE, answers, end_of, prompt_of
from innerloop.evaluation.in_context import in_context_prompts, in_context_task, separator_of, too_long
from innerloop.evaluation.kshot import draw_support, score
from innerloop.evaluation.scoring import verified
from innerloop.loading.architecture import positions_of
from innerloop.loading.models import LoadedModel
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
    return [(TOKENIZER.decode(prompt_of(each)), TOKENIZER.decode(each.scored)) for each in examples]


def test_texts_follow_blocks_of_prompt_and_answer() -> None:
    before = "1+1=2\n\nquestion: 2+1\nanswer: 3\n\n"
    found = in_context_prompts(SUPPORT, TEST, ENCODER)
    assert written(found) == [(before + "3+1=", "4\n\n"), (before + "4+4=", "8\n\n")]
    assert {(each.stop, each.end) for each in found} == {(End((TOKENIZER.eos_token_id,), "\n\n"), 2)}
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
    both = zip(found.nats, found.stop_nats, shown.test, strict=True)  # one token of answer, two of separator
    assert [(nats + 2 * stop) / 3 for nats, stop, _ in both] == pytest.approx(expected, rel=1e-4)
    assert found.nats != pytest.approx(score(space, per_task(zero, 1), [task])[0].nats, rel=1e-2)
    (found,) = answers(space, per_task(zero, 1), [shown], tokenizer=TOKENIZER)
    assert len(verified(shown.task, [answer.text for answer in found])) == 2


def test_prompts_too_long_for_the_model_are_named_before_anything_runs() -> None:
    short, long = encoded(Task("short", SUPPORT, TEST)), encoded(Task("long", (Example("x" * 90, "y"),), TEST))
    tasks = [in_context_task(task, task.pool, ENCODER) for task in (short, long)]
    needed = [max(len(prompt_of(example)) for example in task.test) + 3 + SPARE for task in tasks]
    assert needed[0] < needed[1]
    assert too_long(tasks, 2, positions=needed[1]) == too_long(tasks, 2, positions=None) == []
    (fault,) = too_long(tasks, 2, positions=needed[1] - 1)
    assert fault.where == "task long: k = 2"
    assert fault.value == needed[1]
    assert str(needed[1] - 1) in fault.expected
    assert [each.where for each in too_long(tasks, 2, positions=1)] == ["task short: k = 2", "task long: k = 2"]
    assert too_long(tasks, 2, positions=needed[1] - 1, max_new_tokens=3) == []
    assert positions_of(tiny_model("llama", layers=1)) == 512


# where an answer ends


def bpe_tokenizer() -> Any:
    """Byte pairs as GPT-2 has them: a blank line is one token at the end of a text, and two before a word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<eos>"], initial_alphabet=alphabet, vocab_size=300)
    backend.train_from_iterator(["in: a\nout: b", "\n\n", "\n\n"] * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def test_the_separator_is_scored_in_the_tokens_that_a_prompt_of_blocks_has() -> None:
    tokenizer = bpe_tokenizer()
    support = [Example(f"in: {word}\nout:", f" {word}") for word in ("ab", "cd", "ef")]
    (found,) = in_context_prompts(support[:2], support[2:], replace(ENCODER, tokenizer=tokenizer))
    blocks = "".join(f"{each.prompt}{each.answer}\n\n" for each in support) + "in: gh"
    whole = tuple(tokenizer(blocks)["input_ids"])
    assert found.tokens == whole[: len(found.tokens)]
    assert tokenizer.decode(found.tokens) == blocks.removesuffix("in: gh")
    assert tokenizer.decode(found.tokens[-found.end :]) == "\n\n"
    alone = encode(support[2], tokenizer, separator=Separator("\n\n"))
    assert (found.end, alone.end) == (2, 1), "a blank line that nothing follows is another token"


def test_answers_with_a_blank_line_get_another_separator_or_are_a_fault() -> None:
    def task(*answers: str) -> Task:
        return Task("t", tuple(Example(f"{n}=", answer) for n, answer in enumerate(answers)), TEST)

    assert separator_of(task("a\nb", "c\n\n")) == "\n\n"
    found = encoded(task("a\n\nb", "c"))
    (asked, _) = in_context_task(found, found.pool, ENCODER).test
    assert written([asked]) == [("0=a\n\nb\n\n###\n\n1=c\n\n###\n\n3+1=", "4\n\n###\n\n")]
    with pytest.raises(UserError, match=r"task t.*separator"):
        separator_of(task("a\n\n###\n\nb"))


def test_without_examples_a_text_ends_at_a_blank_line_and_its_prompt_stays() -> None:
    talked = talk("1+1", "2")
    (cut,) = encode_all(
        [Task("t", SUPPORT, (*TEST, Example("a long question: 1+1=", "2"), Example("b", "1\n\n2"), talked))],
        TOKENIZER,
        max_length=40,
        on_too_long="truncate",
    )
    cut = replace(
        cut,
        test=tuple(
            each._replace(tokens=each.tokens[-9:], prompt=len(each.tokens[-9:]) - len(each.scored)) for each in cut.test
        ),
    )
    found = in_context_task(cut, (), ENCODER).test
    assert [prompt_of(each) for each in found] == [prompt_of(each) for each in cut.test]
    assert [scored for _, scored in written(found)] == ["4\n\n", "8\n\n", "2\n\n", "1\n\n2<eos>", "2<eos>"]
    assert found[3:] == cut.test[3:], "an answer with a blank line, and a conversation, end as they did"


def test_a_model_that_solves_a_task_in_context_is_seen_to(smollm: LoadedModel) -> None:
    """With the end that the blocks have; asked for an end token that they don't have, it is never right."""
    words = [
        "cat",
        "house",
        "tree",
        "river",
        "book",
        "lamp",
        "stone",
        "cloud",
        "garden",
        "window",
        "apple",
        "bottle",
        "finger",
        "ticket",
    ]
    examples = [Example(f"Q: {word}\nA:", f" {word}") for word in words]
    task = Task("copying", tuple(examples[:8]), tuple(examples[8:]))
    (found,) = encode_all([task], smollm.tokenizer, max_length=100, on_too_long="error")
    shown = in_context_task(found, found.pool, replace(ENCODER, tokenizer=smollm.tokenizer))
    end = end_of(smollm.tokenizer)
    endless = replace(shown, test=tuple(each._replace(stop=end) for each in shown.test))
    space = lora_space(smollm.model, layers=(0,), target_modules=("q_proj",))
    zero = per_task({name: torch.zeros_like(value) for name, value in space.shared.items()}, 1)
    right, wrong = (
        verified(task, [answer.text for answer in answers(space, zero, [each], tokenizer=smollm.tokenizer)[0]])
        for each in (shown, endless)
    )
    assert right == [1.0] * 6
    assert wrong == [0.0] * 6
    (scores,) = score(space, zero, [shown])
    assert scores.correct == (1.0,) * 6
    assert max(scores.nats) < 1
    assert max(scores.stop_nats) < 1
