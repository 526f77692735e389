"""Generated answers, and what the tasks' own verifiers make of them.

Legend: T = tasks, E = test examples a task, N = rows of a generation, S = tokens of the longest prompt.

prompt_of   the ids that stand before an encoded example's answer; its last token ends a generation
end_of      the token that ends the answer to a text
allowance   tokens that a task's answers may take
continued   greedy continuations of prompts, as token ids, each up to its own end token
generate    the same as text
answers     every task's test examples, answered with its own adapted values
verified    how right each answer is, in [0, 1], by the task's verifier
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from innerloop.data.encoding import NOT_SCORED, Encoded, EncodedTask
from innerloop.data.tasks import Task
from innerloop.spaces.space import ParameterSpace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_END = -1  # no token has this id: a generation that only its length ends
SPARE = 8  # tokens beyond the longest right answer: a longer one is seen to be longer
MOST_TOKENS = 256
ROWS = 128  # of one generation


def prompt_of(example: Encoded) -> tuple[int, ...]:
    return example.tokens[: example.labels.count(NOT_SCORED)]


def end_of(tokenizer: "PreTrainedTokenizerBase") -> int:
    return NO_END if tokenizer.eos_token_id is None else cast(int, tokenizer.eos_token_id)


def allowance(task: EncodedTask, *, most: int = MOST_TOKENS) -> int:
    """New tokens an answer of the task may have: its longest right one and a few, at most `most`."""
    longest = max(len(example.tokens) - len(prompt_of(example)) for example in task.test)
    return min(longest + SPARE, most)


@torch.no_grad()
def continued(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    max_new_tokens: int | Sequence[int],
) -> list[tuple[int, ...]]:
    """Greedy continuations of N prompts, together; each stops behind its own end token or at its own length.

    ends            N ids, since what ends a text and what ends a turn of a conversation differ; NO_END for none
    max_new_tokens  one number, or N of them
    The model's own generation settings (sampling, penalties, end tokens) play no part. A row's continuation is
    that of its prompt alone.
    """
    from transformers import GenerationConfig, StoppingCriteriaList

    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    device = cast(torch.device, model.device)
    length = max(map(len, prompts))
    tokens_NS = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask_NS = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    ends_N, limits_N = torch.tensor(ends, device=device), torch.tensor(limits, device=device)

    def is_done(ids: Tensor, scores: object, **_: object) -> Tensor:
        return (ids[:, -1] == ends_N) | (ids.shape[1] - length >= limits_N)

    with _own_settings_only(model):
        written: Any = cast(Any, model).generate(
            input_ids=tokens_NS,
            attention_mask=mask_NS,
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=max(limits)),
            stopping_criteria=StoppingCriteriaList([is_done]),
        )
    new = written[:, length:].tolist()
    return [_up_to(end, row[:limit]) for row, end, limit in zip(new, ends, limits, strict=True)]


def generate(
    model: nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    max_new_tokens: int | Sequence[int],
) -> list[str]:
    """What `continued` gives, as text without the end token. Other special tokens show as they are written."""
    rows = continued(model, prompts, ends=ends, max_new_tokens=max_new_tokens)
    bare = [row[:-1] if row[-1:] == (end,) else row for row, end in zip(rows, ends, strict=True)]
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    return [str(tokenizer.decode(list(row), **options)) for row in bare]


def answers(
    space: ParameterSpace,
    values: Mapping[str, Tensor],
    tasks: Sequence[EncodedTask],
    *,
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int | None = None,
    most: int = MOST_TOKENS,
    rows: int = ROWS,
) -> list[list[str]]:
    """The texts generated for every task's test examples, with its slice of `values` (T, ...) installed.

    max_new_tokens  of an answer; None: the task's `allowance`, at most `most`
    rows            prompts that go through the model together; at least one of each task does
    As many tasks as the space takes and the rows allow share a generation; the texts are those of each task alone.
    """
    if any(len(value) != len(tasks) for value in values.values()):
        raise ValueError(f"values of other than {len(tasks)} tasks")
    widest = max(len(task.test) for task in tasks)
    size = space.limit or max(1, rows // widest)
    texts: list[list[str]] = []
    for first in range(0, len(tasks), size):
        chunk = tasks[first : first + size]
        limits = [max_new_tokens or allowance(task, most=most) for task in chunk]
        width = max(1, rows // len(chunk))
        found: list[list[str]] = [[] for _ in chunk]
        with space.installed({name: value[first : first + size] for name, value in values.items()}) as model:
            for start in range(0, max(len(task.test) for task in chunk), width):
                part = _part(chunk, start, width)
                examples = [example for row in part for example in row]
                written = generate(
                    model,
                    tokenizer,
                    [prompt_of(example) for example in examples],
                    ends=[example.tokens[-1] for example in examples],
                    max_new_tokens=[limit for limit, row in zip(limits, part, strict=True) for _ in row],
                )
                for t, own in enumerate(found):
                    own += written[t * len(part[t]) : (t + 1) * len(part[t])]
        texts += [own[: len(task.test)] for own, task in zip(found, chunk, strict=True)]
    return texts


def verified(
    task: Task, generated: Sequence[str], *, on_failure: Callable[[str], None] = lambda problem: None
) -> list[float]:
    """The verifier's score of each test example's answer, in [0, 1].

    on_failure  told of each answer that the verifier raised at, or gave no number for: such an answer scores 0
    """
    scores: list[float] = []
    for example, text in zip(task.test, generated, strict=True):
        try:
            score = float(task.verifier(example, text))
            if score != score:
                raise ValueError("the score is not a number")
        except Exception as error:  # a verifier may be anyone's code, and the text may be anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            on_failure(f"task {task.name}: example {example.id}: {reason}")
            score = 0.0
        scores.append(min(max(score, 0.0), 1.0))
    return scores


def _part(tasks: Sequence[EncodedTask], start: int, width: int) -> list[list[Encoded]]:
    """Equally many test examples of each task, from `start` on: rows of a model are grouped by task.

    A task with fewer than the others repeats its last one.
    """
    stop = min(start + width, max(len(task.test) for task in tasks))
    return [[task.test[min(row, len(task.test) - 1)] for row in range(start, stop)] for task in tasks]


def _up_to(end: int, row: Sequence[int]) -> tuple[int, ...]:
    return tuple(row[: row.index(end) + 1] if end in row else row)


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
