"""Examples, tasks and the batches an engine step reads.

Legend: T = tasks, B = examples a task, S = tokens (right-padded), R = scored rows.

Message     one turn of a conversation: role and content
Example     a prompt (text or conversation) and the answer that is scored
Task        a name, a pool to draw support and query from, and test examples that training never sees
Batch       tokens and labels of T tasks, (T, B, S)
TaskBatch   what one outer step reads of T tasks: one support batch an inner step, and a query batch
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from innerloop.data.packing import Packing, moved_to, pack


class Message(NamedTuple):
    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A prompt and its answer. A conversation's prompt is a tuple of messages, the answer its last turn.

    where   the file and line, or row, that it was read from
    """

    prompt: str | tuple[Message, ...]
    answer: str
    where: str = field(default="", compare=False, repr=False)

    @cached_property
    def id(self) -> str:
        """A digest of the content: the same row read twice is the same example, so it can't be on both sides."""
        content = json.dumps([self.prompt, self.answer])
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def named(self) -> str:
        """For messages: its id, and where it came from."""
        return f"example {self.id} ({self.where})" if self.where else f"example {self.id}"


Verifier = Callable[[Example, str], float]  # (example, generated text) -> score in [0, 1]


def exact_match(example: Example, generated: str) -> float:
    """1.0 where the generated text equals the answer, white space at the ends aside."""
    return float(generated.strip() == example.answer.strip())


@dataclass(frozen=True)
class Task:
    """One task. `pool` feeds support and query; `test` is only for evaluation; no example is in both.

    Raises ValueError when pool and test share an example, or either repeats one.
    """

    name: str
    pool: tuple[Example, ...]
    test: tuple[Example, ...] = ()
    family: str = ""
    verifier: Verifier = exact_match

    def __post_init__(self) -> None:
        ids = [example.id for example in (*self.pool, *self.test)]
        if len(set(ids)) != len(ids):
            raise ValueError(f"task {self.name!r}: pool and test share or repeat an example")


@dataclass(frozen=True)
class Batch:
    """What one forward reads of T tasks.

    tokens       (T, B, S) token ids, padded on the right (no mask is needed: a causal model never looks right)
    labels       (T, B, S) the same tokens where they are scored, -100 elsewhere
    scored_rows  (R,) positions in the flattened (T*B*S) whose next token is scored
    row_task     (R,) the task of each scored row
    example_ids  T tuples of B ids
    keys         T tuples of B digests of an example's tokens, padding left out
    lengths      T tuples of B numbers of tokens
    packed       whether the examples may lie side by side, in a model that admits it
    even         with fillers where tasks have unequally many tokens
    packing      how they do; None = one a row
    mask_seeds   (T,) seeds of the dropout masks; None = no dropout
    """

    tokens: Tensor
    labels: Tensor
    scored_rows: Tensor
    row_task: Tensor
    example_ids: tuple[tuple[str, ...], ...]
    keys: tuple[tuple[bytes, ...], ...]
    lengths: tuple[tuple[int, ...], ...]
    packed: bool = False
    even: bool = True
    packing: Packing | None = None
    mask_seeds: tuple[int, ...] | None = None

    @property
    def tasks(self) -> int:
        return self.tokens.shape[0]

    @property
    def targets(self) -> Tensor:
        """(R,) the tokens to predict."""
        return self.labels.flatten()[self.scored_rows + 1]

    @property
    def token_count(self) -> int:
        """Tokens of the examples."""
        return sum(map(sum, self.lengths))

    @property
    def computed_tokens(self) -> int:
        """Tokens a forward goes through, padding included."""
        return self.packing.source.numel() if self.packing else self.tokens.numel()

    def select(self, first: int, last: int) -> "Batch":
        """The tasks first..last-1, of a batch in host memory: what is cut out is found by looking."""
        per_task = self.tokens[0].numel()
        rows = (self.row_task >= first) & (self.row_task < last)
        scored = self.scored_rows[rows] - first * per_task
        lengths, width = self.lengths[first:last], self.tokens.shape[-1]
        return Batch(
            tokens=self.tokens[first:last],
            labels=self.labels[first:last],
            scored_rows=scored,
            row_task=self.row_task[rows] - first,
            example_ids=self.example_ids[first:last],
            keys=self.keys[first:last],
            lengths=lengths,
            packed=self.packed,
            even=self.even,
            packing=pack(lengths, width=width, scored=scored, even=self.even) if self.packed else None,
            mask_seeds=self.mask_seeds and self.mask_seeds[first:last],
        )

    def to(self, device: torch.device | str) -> "Batch":
        names = ("tokens", "labels", "scored_rows", "row_task")
        moved = {name: moved_to(getattr(self, name), device) for name in names}
        return replace(self, **moved, packing=self.packing and self.packing.to(device))


class TaskBatch(NamedTuple):
    """What one outer step reads of T tasks.

    support  one batch an inner step: the same one K times, or fresh ones; empty for a method without inner loop
    query    None for a method that reads none (Reptile)
    """

    names: tuple[str, ...]
    support: Sequence[Batch]
    query: Batch | None

    def split(self, tasks_per_forward: int) -> "list[TaskBatch]":
        """Chunks of at most `tasks_per_forward` tasks; where one holds them all, this very batch."""
        if len(self.names) <= tasks_per_forward:
            return [self]
        starts = range(0, len(self.names), tasks_per_forward)
        return [self.select(first, min(first + tasks_per_forward, len(self.names))) for first in starts]

    def select(self, first: int, last: int) -> "TaskBatch":
        """The tasks first..last-1."""
        chosen: dict[int, Batch] = {}  # the same batch K times stays one object
        for batch in self.support:
            if id(batch) not in chosen:
                chosen[id(batch)] = batch.select(first, last)
        return TaskBatch(
            names=self.names[first:last],
            support=[chosen[id(batch)] for batch in self.support],
            query=self.query and self.query.select(first, last),
        )

    @property
    def batches(self) -> list[Batch]:
        """Every batch that goes through the model in one outer step, in order."""
        return [*self.support, *([self.query] if self.query else [])]

    @property
    def token_count(self) -> int:
        """Tokens of the examples that go through the model in one outer step."""
        return sum(batch.token_count for batch in self.batches)

    @property
    def computed_tokens(self) -> int:
        """The same, padding included."""
        return sum(batch.computed_tokens for batch in self.batches)

    def to(self, device: torch.device | str) -> "TaskBatch":
        moved = {id(batch): batch.to(device) for batch in self.batches}
        query = self.query and moved[id(self.query)]
        return TaskBatch(self.names, [moved[id(batch)] for batch in self.support], query)
