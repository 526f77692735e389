"""In-context prompts hold the support as it is written, and are examples like any other."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from helpers import lora_space
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask, encode, encode_all
from innerloop.data.tasks import Example, Message, Task
from innerloop.evaluation.generation import SPARE, answers, end_of, prompt_of
from innerloop.evaluation.in_context import in_context_task, too_long
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


def test_a_task_with_its_support_in_the_prompt_is_scored_like_any_other() -> None:
    task = encoded(Task("sums", SUPPORT, TEST))
    support = draw_support(task, 2, seed=1)
    shown = in_context_task(task, support, ENCODER)
    assert shown.test == ENCODER.in_context(task).behind(support).test
    assert (shown.task, shown.pool, shown.in_context) == (task.task, task.pool, None)
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
    encoder = replace(ENCODER, tokenizer=tokenizer)
    (task,) = encoder.tasks([Task("t", tuple(support[:2]), tuple(support[2:]))])
    (found,) = in_context_task(task, task.pool, encoder).test
    blocks = "".join(f"{each.prompt}{each.answer}\n\n" for each in support) + "in: gh"
    whole = tuple(tokenizer(blocks)["input_ids"])
    assert found.tokens == whole[: len(found.tokens)]
    assert tokenizer.decode(found.tokens) == blocks.removesuffix("in: gh")
    assert tokenizer.decode(found.tokens[-found.end :]) == "\n\n"
    alone = encode(Example(" " + support[2].prompt, support[2].answer), tokenizer, separator="\n\n")
    assert (found.end, alone.end) == (2, 1), "a blank line that white space may follow is another token"


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
