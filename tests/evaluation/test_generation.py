"""Generated answers are those of the adapted weights, decoded greedily one token at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import all_space, lora_space, of_task, perturbed, untouched
from innerloop.config.loading import load_config
from innerloop.data.batches import collate
from innerloop.data.encoding import EncodedTask, encode_all
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.token_ids import Encoded, End
from innerloop.engine.session import prepare
from innerloop.evaluation.generation import (
    KEYS_AND_VALUES,
    NO_END,
    SPARE,
    Answer,
    allowance,
    answers,
    cap_fault,
    continued,
    generate,
    prompt_of,
)
from innerloop.evaluation.kshot import tokens_per_forward
from innerloop.evaluation.scoring import verified
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW
from innerloop.numerics.tensors import per_task
from innerloop.spaces.loss import AnswerLoss
from innerloop.spaces.space import ParameterSpace
from small_runs import World, settings
from tiny import FAMILIES, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
EOS = TOKENIZER.eos_token_id
BY_HEART = InnerLoop(steps=30, optimizer=AdamW(lr=0.01))
PROMPTS = [[5], [9, 20, 31, 7, 12, 40, 8, 8, 11], [17, 6, 33, 25]]


def encoded(*examples: Example, name: str = "task", pool: Sequence[Example] = ()) -> EncodedTask:
    (task,) = encode_all([Task(name, tuple(pool), examples)], TOKENIZER, max_length=400, on_too_long="error")
    return task


@torch.no_grad()
def greedy(model: nn.Module, prompt: Sequence[int], count: int, end: int = -1) -> tuple[int, ...]:
    """The definition: the most likely token, again and again, of one prompt without padding or cache."""
    written: list[int] = []
    while len(written) < count and end not in written:
        tokens = torch.tensor([[*prompt, *written]])
        written.append(int(model(input_ids=tokens, use_cache=False).logits[0, -1].argmax()))
    return tuple(written)


def texts_alone(space: ParameterSpace, values: Mapping[str, Tensor], task: EncodedTask) -> list[str]:
    """One example after the other, by the definition."""
    with space.installed(values) as model:
        rows = [greedy(model, prompt_of(e), allowance(task), e.stop.tokens[0]) for e in task.test]
    return [TOKENIZER.decode([token for token in row if token != EOS]) for row in rows]


def texts_of(found: Sequence[Sequence[Answer]]) -> list[list[str]]:
    return [[answer.text for answer in own] for own in found]


# generation


def test_a_text_ends_a_generation_as_a_token_does() -> None:
    model = tiny_model("llama")
    for prompt in PROMPTS:
        whole = greedy(model, prompt, 12)
        text = TOKENIZER.decode(whole[4:6])
        end = next(count for count in range(1, 13) if text in TOKENIZER.decode(whole[:count]))
        asked = {"max_new_tokens": 12, "tokenizer": TOKENIZER}
        assert continued(model, [prompt], ends=[End(text=text)], **asked) == [whole[:end]]
        (written,) = generate(model, TOKENIZER, [prompt], ends=[End(text=text)], max_new_tokens=12)
        assert written == TOKENIZER.decode(whole[:end]).removesuffix(text)
        first = whole.index(whole[1]) + 1  # whichever comes first
        assert continued(model, [prompt], ends=[End((whole[1],), text)], **asked) == [whole[: min(first, end)]]
        assert continued(model, [prompt], ends=[End(whole[4:6])], **asked) == [whole[:end]]  # a token a character
        assert end < 12


def test_what_a_template_writes_before_an_answer_is_left_out_of_it() -> None:
    model = tiny_model("llama")
    whole = TOKENIZER.decode(greedy(model, PROMPTS[0], 12))
    asked = {"ends": [NO_END], "max_new_tokens": 12}
    assert generate(model, TOKENIZER, PROMPTS[:1], openings=[whole[:3]], **asked) == [whole[3:]]
    assert generate(model, TOKENIZER, PROMPTS[:1], openings=[f" {whole[:3]} "], **asked) == [whole[3:]]
    other = "#" + whole[:3]
    assert generate(model, TOKENIZER, PROMPTS[:1], openings=[other], **asked) == [whole]  # control


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_of_a_ragged_batch_is_its_prompt_alone(family: str) -> None:
    model = tiny_model(family, layers=2)
    with untouched(model):
        together = continued(model, PROMPTS, ends=[NO_END] * 3, max_new_tokens=20)
    assert together == [greedy(model, prompt, 20) for prompt in PROMPTS]
    assert len(set(together)) == 3


def test_each_row_stops_at_its_own_end_and_its_own_length() -> None:
    model = tiny_model("llama")
    whole = [greedy(model, prompt, 12) for prompt in PROMPTS]
    ends = [row[4] for row in whole]
    stopped = [row[: row.index(end) + 1] for row, end in zip(whole, ends, strict=True)]
    assert continued(model, PROMPTS, ends=[End((end,)) for end in ends], max_new_tokens=12) == stopped
    assert continued(model, PROMPTS, ends=[End((ends[0],)), NO_END, End((ends[2],))], max_new_tokens=[12, 12, 1]) == [
        stopped[0],
        whole[1],
        whole[2][:1],
    ]
    texts = generate(model, TOKENIZER, PROMPTS, ends=[End((end,)) for end in ends], max_new_tokens=12)
    assert texts == [TOKENIZER.decode(row[:-1]) for row in stopped]
    assert generate(model, TOKENIZER, PROMPTS, ends=[NO_END] * 3, max_new_tokens=12) != texts


def test_a_generation_is_over_when_every_row_is_and_not_before() -> None:
    model, forwards = tiny_model("llama"), list[int]()
    whole = greedy(model, PROMPTS[1], 12)
    end = whole[4]
    stop = whole.index(end) + 1
    handle = model.model.register_forward_hook(lambda *_: forwards.append(1))
    twice = [PROMPTS[1], PROMPTS[1]]
    assert continued(model, twice, ends=[End((end,)), NO_END], max_new_tokens=12) == [whole[:stop], whole]
    assert len(forwards) == 12
    forwards.clear()
    assert continued(model, twice, ends=[End((end,)), NO_END], max_new_tokens=[12, 2]) == [whole[:stop], whole[:2]]
    assert len(forwards) == stop < 12
    handle.remove()


def test_the_models_own_generation_settings_play_no_part_and_stay(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    model = tiny_model("llama")
    expected = [greedy(model, prompt, 12) for prompt in PROMPTS]
    odd = {"do_sample": True, "temperature": 9.0, "top_k": 3, "repetition_penalty": 5.0, "max_length": 4}
    for name, value in {**odd, "eos_token_id": [row[2] for row in expected], "pad_token_id": None}.items():
        setattr(model.generation_config, name, value)
    before = model.generation_config
    capfd.readouterr()
    assert continued(model, PROMPTS, ends=[NO_END] * 3, max_new_tokens=12) == expected
    assert model.generation_config is before
    assert before.temperature == 9.0
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    sampled = model.generate(torch.tensor([PROMPTS[1]]), max_length=21, attention_mask=torch.ones(1, 9))
    assert tuple(sampled[0, 9:].tolist()) != expected[1], "those settings do change what is generated"


def test_a_text_ends_with_the_end_token_and_a_turn_with_the_templates() -> None:
    template = "{% for m in messages %}{{ m['content'] }}<unk>{% endfor %}"
    chatting = tiny_tokenizer()
    chatting.chat_template = template
    examples = (Example("say a:", "a"), Example((Message("user", "say b"),), "b"))
    (task,) = encode_all([Task("t", (), examples)], chatting, max_length=99, on_too_long="error")
    assert [example.tokens[-1] for example in task.test] == [EOS, chatting.unk_token_id]
    space = lora_space(tiny_model("llama"))
    adapted = BY_HEART.adapt(space, per_task(space.shared, 1), [collate([task.test])])
    assert answers(space, adapted.values, [task], tokenizer=chatting) == [
        [Answer("a", cut=False), Answer("b", cut=False)]
    ]


# answers of adapted values


def tasks_of_unequal_size() -> list[EncodedTask]:
    sizes = {"one": 1, "two": 3, "three": 2}
    return [
        encoded(*(Example(f"{name}{'+' * (5 * row)}:", f" {name[row:]}") for row in range(size)), name=name)
        for name, size in sizes.items()
    ]


@pytest.mark.parametrize("rows", [1, 2, 4, 100])
def test_tasks_answer_together_as_they_do_alone(rows: int) -> None:
    """Ragged prompts, unequal numbers of examples and allowances: token for token what each task's values write."""
    space, tasks = lora_space(tiny_model("llama", layers=2)), tasks_of_unequal_size()
    values = perturbed(space.shared, len(tasks), scale=3.0)
    with untouched(space.model):
        together = answers(space, values, tasks, tokenizer=TOKENIZER, rows=rows)
    assert texts_of(together) == [texts_alone(space, of_task(values, t), task) for t, task in enumerate(tasks)]
    others = {name: value.roll(1, 0) for name, value in values.items()}
    for one, other in zip(together, answers(space, others, tasks, tokenizer=TOKENIZER, rows=rows), strict=True):
        assert one != other


def test_all_parameters_answer_one_task_after_the_other() -> None:
    space, tasks = all_space(tiny_model("llama", layers=2)), tasks_of_unequal_size()
    values = perturbed(space.shared, len(tasks), scale=1.0)
    found = answers(space, values, tasks, tokenizer=TOKENIZER)
    assert texts_of(found) == [texts_alone(space, of_task(values, t), task) for t, task in enumerate(tasks)]
    assert found != answers(space, per_task(space.shared, len(tasks)), tasks, tokenizer=TOKENIZER)


def test_values_of_another_number_of_tasks_are_refused() -> None:
    space, tasks = lora_space(tiny_model("llama", layers=2)), tasks_of_unequal_size()
    with pytest.raises(ValueError, match="other than 3 tasks"):
        answers(space, per_task(space.shared, 1), tasks, tokenizer=TOKENIZER)


def test_an_answer_may_be_a_few_tokens_longer_than_the_longest_right_one() -> None:
    task = encoded(Example("a:", "12345"), Example("b:", "1"))
    assert allowance(task) == len("12345") + 1 + SPARE
    space = lora_space(tiny_model("llama", layers=2))
    values = per_task(space.shared, 1)
    for options, length in (({}, 6 + SPARE), ({"max_new_tokens": 3}, 3), ({"max_new_tokens": 20}, 20)):
        for (text, cut), example in zip(
            answers(space, values, [task], tokenizer=TOKENIZER, **options)[0], task.test, strict=True
        ):
            with space.installed(values) as model:
                assert TOKENIZER.encode(text) == list(greedy(model, prompt_of(example), length))
                assert cut


def test_an_answer_as_long_as_the_longest_right_one_is_written_whole() -> None:
    """Of any length: 300 tokens are more than any cap there was."""
    space = lora_space(tiny_model("llama", layers=2))
    values, task = per_task(space.shared, 1), encoded(Example("a:", "1" * 300), Example("b:", "no"))
    task = replace(task, test=tuple(example._replace(stop=NO_END) for example in task.test))
    with space.installed(values) as model:
        whole = [greedy(model, prompt_of(example), 301 + SPARE) for example in task.test]
    ((first, second),) = answers(space, values, [task], tokenizer=TOKENIZER)
    assert [first.text, second.text] == [TOKENIZER.decode(row) for row in whole]
    ((short, _),) = answers(space, values, [task], tokenizer=TOKENIZER, max_new_tokens=64)
    assert short == Answer(TOKENIZER.decode(whole[0][:64]), cut=True)


def test_a_cap_below_a_right_answer_is_a_fault_that_names_what_would_do() -> None:
    tasks = [encoded(Example("a:", "12345"), name="five"), encoded(Example("a:", "1"), name="one")]
    assert cap_fault(tasks, None, "cap") == cap_fault(tasks, 6, "cap") == []
    (fault,) = cap_fault(tasks, 5, "cap")
    assert (fault.where, fault.value) == ("cap", 5)
    assert "1 tasks, five" in fault.problem
    assert "at least 6" in fault.expected


def test_generations_together_hold_a_bounded_number_of_tokens() -> None:
    model, held = tiny_model("llama", layers=2), list[int]()
    layer: Any = model.get_submodule("model.layers.0")
    layer.register_forward_pre_hook(lambda _, args: held.append(args[0].shape[0]))
    prompts = [[5 + n % 50, 9, *[7] * (n % 3)] for n in range(40)]
    ends = [NO_END] * len(prompts)
    together = generate(model, TOKENIZER, prompts, ends=ends, max_new_tokens=500)
    assert max(held) * (500 + 5) <= KEYS_AND_VALUES * tokens_per_forward(model.device)
    assert 1 < max(held) < len(prompts)
    alone = [generate(model, TOKENIZER, [prompt], ends=[NO_END], max_new_tokens=500)[0] for prompt in prompts[::13]]
    assert together[::13] == alone


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml"])
def test_an_answer_learned_by_heart_is_right_and_was_wrong_before(world: World, method: str) -> None:
    session = prepare(load_config(settings(world, method, Path("unused"))), model=world.model)
    space, task = session.space(), encoded(Example("say it:", " yes"))
    before = per_task(space.shared, 1)
    after = BY_HEART.adapt(space, before, [collate([task.test])]).values
    for values, score in ((before, 0.0), (after, 1.0), (per_task(space.shared, 1), 0.0)):
        (texts,) = texts_of(answers(space, values, [task], tokenizer=session.model.tokenizer))
        assert verified(task.task, texts) == [score]
        with space.installed(values):
            assert isinstance(space.loss, AnswerLoss)
            assert space.loss.score(collate([task.test])).exact.tolist() == [[bool(score)]]


# against the forward of prompt and answer (docs/design/0004)


def random_task(model: nn.Module, seed: int, count: int = 6) -> EncodedTask:
    """Answers that greedy decoding gives, and the same with one token changed; each ends with its last token."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    examples: list[Example] = []
    rows: list[Encoded] = []
    while len(rows) < count:
        prompt = [number(6, 60) for _ in range(number(1, 9))]
        answer = list(greedy(model, prompt, number(2, 6)))
        if len(rows) % 2:
            place = number(0, len(answer) - 1)
            answer[place] = 6 + (answer[place] + number(1, 50)) % 55
        if answer[-1] in answer[:-1]:
            continue
        example = Example(TOKENIZER.decode(prompt), TOKENIZER.decode(answer[:-1]))
        examples.append(example)
        rows.append(Encoded(example.id, (*prompt, *answer), len(prompt), stop=End((answer[-1],))))
    return EncodedTask(Task(f"{seed}", (), tuple(examples)), (), tuple(rows), dropped=0, truncated=0)


@pytest.mark.parametrize("seed", range(6))
def test_generated_exact_match_is_that_of_one_forward(seed: int) -> None:
    space = lora_space(tiny_model("llama", layers=2, seed=seed))
    values = perturbed(space.shared, 3, seed=seed, scale=2.0)
    tasks: list[EncodedTask] = []
    for t in range(3):
        with space.installed(of_task(values, t)) as model:
            tasks.append(random_task(model, 10 * seed + t))
    assert isinstance(space.loss, AnswerLoss)
    with space.installed(values):
        exact = space.loss.score(collate([task.test for task in tasks])).exact
    texts = texts_of(answers(space, values, tasks, tokenizer=TOKENIZER))
    scores = [verified(task.task, own) for task, own in zip(tasks, texts, strict=True)]
    assert torch.tensor(scores).bool().equal(exact)
    assert 0 < exact.sum() < exact.numel()
    wrong = {name: value.roll(1, 0) for name, value in values.items()}
    rolled = texts_of(answers(space, wrong, tasks, tokenizer=TOKENIZER))
    assert [verified(task.task, own) for task, own in zip(tasks, rolled, strict=True)] != scores
