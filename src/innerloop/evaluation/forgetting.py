"""What adapting costs elsewhere: how far the adapted model is from the base on text that has nothing to do with it.

Legend: T = tasks, R = continuation tokens of all prompts, D = width of the model, C = rows of a chunk, V = vocabulary.

shipped_prompts   200 short beginnings of texts, mixed: general knowledge, small talk, code, stories, several languages
Continuations     the base's own greedy continuations of prompts, and its hidden states at their tokens
continuations     computes them, once for a base model
forgetting        (T,) mean KL(base || adapted) per continuation token (nats)

What is stored of the base is R x D; logits exist for C rows of one task at a time.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, nn

from innerloop.data.batches import collate
from innerloop.data.encoding import encode_prompt
from innerloop.data.token_ids import Encoded
from innerloop.evaluation.generation import ROWS, continued, end_of
from innerloop.loading.architecture import packs
from innerloop.numerics.loss import Head
from innerloop.spaces.loss import AnswerLoss
from innerloop.spaces.space import ParameterSpace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK_ROWS = 256
Item = TypeVar("Item")


def shipped_prompts() -> list[str]:
    return files("innerloop.evaluation").joinpath("prompts.txt").read_text(encoding="utf-8").splitlines()


@dataclass(frozen=True)
class Continuations:
    """examples: prompt and continuation, which is what is scored; hidden (R, D): the base's; head: its output layer."""

    examples: tuple[Encoded, ...]
    hidden: Tensor
    head: Head


@torch.no_grad()
def continuations(
    model: nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    prompts: Sequence[str] | None = None,
    new_tokens: int = 24,
) -> Continuations:
    """Each prompt continued by the base, up to `new_tokens` tokens or the end token. None: the shipped prompts.

    model  the base. Its output layer is not copied: a model that is trained in place later is no base any more.
    """
    starts = [encode_prompt(prompt, tokenizer) for prompt in (shipped_prompts() if prompts is None else prompts)]
    loss, end = AnswerLoss(model), end_of(tokenizer)
    examples: list[Encoded] = []
    hidden: list[Tensor] = []
    for chunk in _parts(starts, ROWS):
        written = continued(model, chunk, ends=[end] * len(chunk), max_new_tokens=new_tokens)
        part = [_example(start, tokens) for start, tokens in zip(chunk, written, strict=True)]
        hidden.append(loss.scored_hidden(collate([part], packed=packs(model)).to(cast(torch.device, model.device))))
        examples += part
    # Detached: a Parameter reads what a space puts in its place, this reads the base.
    weight, bias, softcap = loss.head
    head = Head(weight.detach(), None if bias is None else bias.detach(), softcap)
    return Continuations(tuple(examples), torch.cat(hidden), head)


@torch.no_grad()
def forgetting(space: ParameterSpace, values: Mapping[str, Tensor], base: Continuations) -> Tensor:
    """(T,) KL(base || adapted) with `values` (T, ...), the mean over all continuation tokens, in float32 nats."""
    tasks = len(next(iter(values.values())))
    size = min(space.limit or tasks, ROWS)
    parts = [{name: value[first : first + size] for name, value in values.items()} for first in range(0, tasks, size)]
    return torch.cat([_total(space, part, base) for part in parts]).clamp_min(0).float() / len(base.hidden)


def _total(space: ParameterSpace, values: Mapping[str, Tensor], base: Continuations) -> Tensor:
    """(T,) summed over the tokens, in float64."""
    assert isinstance(space.loss, AnswerLoss)
    tasks, device = len(next(iter(values.values()))), base.hidden.device
    total, first = torch.zeros(tasks, dtype=torch.float64, device=device), 0
    with space.installed(values):
        for part in _parts(base.examples, max(1, ROWS // tasks)):
            batch = collate([part] * tasks, packed=packs(space.model)).to(device)
            hidden_TRD = space.loss.scored_hidden(batch).unflatten(0, (tasks, -1))
            rows = hidden_TRD.shape[1]
            base_RD = base.hidden[first : first + rows]
            for chunk in (slice(start, start + CHUNK_ROWS) for start in range(0, rows, CHUNK_ROWS)):
                base_CV = base.head.logits(base_RD[chunk]).log_softmax(-1)
                for t in range(tasks):
                    adapted_CV = space.loss.head.logits(hidden_TRD[t, chunk]).log_softmax(-1)
                    total[t] += _divergence(base_CV, adapted_CV)
            first += rows
    return total


def _divergence(base_CV: Tensor, adapted_CV: Tensor) -> Tensor:
    """Sum over the rows of sum_v p (log p - log q)."""
    return torch.nn.functional.kl_div(adapted_CV, base_CV, reduction="sum", log_target=True).double()


def _example(prompt: Sequence[int], continuation: Sequence[int]) -> Encoded:
    """Its id is a digest of the tokens: hidden states are kept by id where a trunk is cached."""
    tokens = (*prompt, *continuation)
    digest = hashlib.sha256(repr((len(prompt), tokens)).encode()).hexdigest()[:16]
    return Encoded(f"continued-{digest}", tokens, len(prompt))


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[first : first + size] for first in range(0, len(items), size))
