"""Answers that are generated: greedily, each up to its own end, as many together as a token budget admits.

Legend: T = tasks, E = test examples per task, N = rows of a generation, S = tokens of the longest prompt.

prompt_of   the ids that stand before what is scored of an encoded example
end_of      what ends the answer to a text
longest     tokens of a task's longest right answer, with what ends it
allowance   tokens that a task's answers may take
cap_fault   where a cap would cut a right answer
continued   greedy continuations of prompts, as token ids, each up to its own end token
generate    the same as text, a bounded number of tokens at a time
Answer      a generated text, and whether it was cut off
answers     every task's test examples, answered with its own adapted values
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from innerloop.data.encoding import EncodedTask
from innerloop.data.token_ids import Encoded, End
from innerloop.errors import Fault
from innerloop.evaluation.kshot import tokens_per_forward
from innerloop.spaces.space import ParameterSpace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_END = End()  # a generation that only its length ends
SPARE = 8  # tokens beyond the longest right answer: a longer one is seen to be longer
ROWS = 128  # of one generation
KEYS_AND_VALUES = 16  # a token that only its keys and values are kept of takes about this much less than in training


class Answer(NamedTuple):
    """cut: its length ended it, not its end."""

    text: str
    cut: bool


def prompt_of(example: Encoded) -> tuple[int, ...]:
    return example.tokens[: example.asked]


def end_of(tokenizer: "PreTrainedTokenizerBase") -> End:
    return NO_END if tokenizer.eos_token_id is None else End((cast(int, tokenizer.eos_token_id),))


def longest(task: EncodedTask) -> int:
    return max(len(example.tokens) - len(prompt_of(example)) for example in task.test)


def allowance(task: EncodedTask) -> int:
    """New tokens that an answer of the task may have: its longest right one and a few."""
    return longest(task) + SPARE


def cap_fault(tasks: Sequence[EncodedTask], cap: int | None, where: str) -> list[Fault]:
    """At most one: a cap on generated answers that is below the longest right one of some of the tasks."""
    if cap is None or not tasks or cap >= (needed := max(map(longest, tasks))):
        return []
    short = [task.task.name for task in tasks if longest(task) > cap]
    right = f"at least {needed}, or none: every task's own longest answer and {SPARE} tokens"
    return [Fault(f"cuts right answers of {len(short)} tasks, {short[0]} among them", where, cap, right)]


@torch.no_grad()
def continued(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[End],
    max_new_tokens: int | Sequence[int],
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> list[tuple[int, ...]]:
    """Greedy continuations of N prompts, together; each stops behind its own end or at its own length.

    ends            N of them, since what ends a text and what ends a turn of a conversation differ; NO_END for none
    max_new_tokens  one number, or N of them
    tokenizer       for ends that are a text
    The model's own generation settings (sampling, penalties, end tokens) play no part. A row's continuation is
    that of its prompt alone.
    """
    from transformers import GenerationConfig, StoppingCriteriaList

    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    device = cast(torch.device, model.device)
    length = max(map(len, prompts))
    tokens_NS = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask_NS = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    reaches = [_Reach(end, tokenizer) for end in ends]
    width = max(reach.width for reach in reaches)

    def is_done(ids: Tensor, scores: object, **_: object) -> Tensor:
        taken = ids.shape[1] - length
        tails = ids[:, length:][:, -width:].tolist()
        over = zip(reaches, tails, limits, strict=True)
        return torch.tensor([taken >= limit or reach.ends(tail) for reach, tail, limit in over], device=ids.device)

    with _own_settings_only(model):
        written: Any = cast(Any, model).generate(
            input_ids=tokens_NS,
            attention_mask=mask_NS,
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=max(limits)),
            stopping_criteria=StoppingCriteriaList([is_done]),
        )
    new = written[:, length:].tolist()
    return [reach.up_to(row[:limit]) for row, reach, limit in zip(new, reaches, limits, strict=True)]


def generate(
    model: nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[End],
    max_new_tokens: int | Sequence[int],
    openings: Sequence[str] | None = None,
) -> list[str]:
    """What `continued` gives, as text without its end. Other special tokens show as they are written.

    openings  N texts that a chat template writes before an answer: left out where a row begins with its own
    As many rows go together as a token budget admits.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    rows = list(zip(prompts, ends, limits, openings or [""] * len(prompts), strict=True))
    size = rows_that_fit(prompts, limits, cast(torch.device, model.device))
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    return [answer.text for part in parts for answer in _written(model, tokenizer, part)]


_Row = tuple[Sequence[int], End, int, str]  # prompt, what ends it, its length at most, opening


def rows_that_fit(prompts: Sequence[Sequence[int]], limits: Sequence[int], device: torch.device) -> int:
    """Rows of one generation, whose keys and values are kept for every token of the longest."""
    row = max(map(len, prompts)) + max(limits)
    return min(ROWS, max(1, KEYS_AND_VALUES * tokens_per_forward(device) // row))


def _written(model: nn.Module, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[_Row]) -> list[Answer]:
    """One generation. Rows of a model with several tasks' values in it are grouped by task."""
    prompts, ends, limits, openings = zip(*rows, strict=True)
    found = continued(model, prompts, ends=ends, max_new_tokens=limits, tokenizer=tokenizer)
    return [
        Answer(_bare(row, end, opening, tokenizer), cut=not _Reach(end, tokenizer).ends(row))
        for row, end, opening in zip(found, ends, openings, strict=True)
    ]


def answers(
    space: ParameterSpace,
    values: Mapping[str, Tensor],
    tasks: Sequence[EncodedTask],
    *,
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int | None = None,
    rows: int = ROWS,
) -> list[list[Answer]]:
    """What is generated for every task's test examples, with its slice of `values` (T, ...) installed.

    max_new_tokens  of an answer; None: the task's `allowance`
    rows            prompts that go through the model together at most; at least one of each task does
    As many tasks as the space takes and the rows allow share a generation; the texts are those of each task alone.
    """
    if any(len(value) != len(tasks) for value in values.values()):
        raise ValueError(f"values of other than {len(tasks)} tasks")
    widest = max(len(task.test) for task in tasks)
    prompts = [prompt_of(example) for task in tasks for example in task.test]
    most = [max_new_tokens or allowance(task) for task in tasks]
    rows = min(rows, rows_that_fit(prompts, most, space.device))
    size = space.limit or max(1, rows // widest)
    texts: list[list[Answer]] = []
    for first in range(0, len(tasks), size):
        chunk = tasks[first : first + size]
        limits = most[first : first + size]
        width = max(1, rows // len(chunk))
        found: list[list[Answer]] = [[] for _ in chunk]
        with space.installed({name: value[first : first + size] for name, value in values.items()}) as model:
            for start in range(0, max(len(task.test) for task in chunk), width):
                part = _part(chunk, start, width)
                asked = [
                    (prompt_of(example), example.stop, limit, example.opening)
                    for limit, own in zip(limits, part, strict=True)
                    for example in own
                ]
                written = _written(model, tokenizer, asked)
                for t, own in enumerate(found):
                    own += written[t * len(part[t]) : (t + 1) * len(part[t])]
        texts += [own[: len(task.test)] for own, task in zip(found, chunk, strict=True)]
    return texts


def _part(tasks: Sequence[EncodedTask], start: int, width: int) -> list[list[Encoded]]:
    """Equally many test examples of each task, from `start` on: rows of a model are grouped by task.

    A task with fewer than the others repeats its last one.
    """
    stop = min(start + width, max(len(task.test) for task in tasks))
    return [[task.test[min(row, len(task.test) - 1)] for row in range(start, stop)] for task in tasks]


class _Reach:
    """When a row has come to its end. width: as many tokens as can be of the end, or reach over its beginning."""

    def __init__(self, end: End, tokenizer: "PreTrainedTokenizerBase | None") -> None:
        assert tokenizer is not None or not end.text, "a text is looked for in a text"
        self.end, self.tokenizer = end, tokenizer
        self.width = max(
            1, len(end.tokens), len(end.text.encode()) + 2 if end.text else 0
        )  # no token is less than a byte

    def ends(self, row: Sequence[int]) -> bool:
        tokens, text = self.end
        if tokens and tuple(row[-len(tokens) :]) == tokens:
            return True
        return bool(text) and text in _decoded(row[-self.width :], cast("PreTrainedTokenizerBase", self.tokenizer))

    def up_to(self, row: Sequence[int]) -> tuple[int, ...]:
        over = (count for count in range(1, len(row) + 1) if self.ends(row[:count]))
        return tuple(row[: next(over, len(row))])


def _bare(row: Sequence[int], end: End, opening: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    if end.tokens and tuple(row[-len(end.tokens) :]) == end.tokens:
        row = row[: -len(end.tokens)]
    text = _decoded(row, tokenizer)
    if end.text:
        text = text.partition(end.text)[0]
    if text.startswith(opening):
        return text[len(opening) :]
    written, first = text.lstrip(), opening.strip()  # in other white space
    return written[len(first) :] if written.startswith(first) else text


def _decoded(row: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    return str(tokenizer.decode(list(row), skip_special_tokens=False, clean_up_tokenization_spaces=False))


@contextmanager
def _own_settings_only(model: Any) -> Generator[None]:
    """generate() takes what it isn't told from the model's generation_config, and talks about it."""
    from transformers import GenerationConfig
    from transformers.utils import logging

    theirs, verbosity = model.generation_config, logging.get_verbosity()
    model.generation_config = GenerationConfig()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        model.generation_config = theirs
