"""Examples, tasks and the batches an engine step reads.

Legend: T = tasks, B = examples per task, S = tokens (right-padded), R = scored rows.

Message     one turn of a conversation: role and content
Example     a prompt (text or conversation) and the answer that is scored
Task        a name, a pool to draw support and query from, and test examples that training never sees
Batch       what one forward reads of T tasks: tokens (T, B, S), and which of them are scored
TaskBatch   what one outer step reads of T tasks: one support batch per inner step, and a query batch
token_key   a digest of token ids: what hidden states are looked up by
"""

import hashlib
import json
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerloop.data.packing import Packing, moved_to, pack
from innerloop.data.token_ids import Encoded


class Message(NamedTuple):
    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A prompt and its answer. A conversation's prompt is a tuple of messages, the answer its last turn.

    >>> Example("Which is the capital of the Netherlands?", " Amsterdam", accepted=(" Amsterdam, Netherlands",)).answers
    (' Amsterdam', ' Amsterdam, Netherlands')

    where     the file and line, or row, that it was read from
    accepted  other answers that are as right; the first, `answer`, is the one that is trained on
    template  what the chat template is handed beside the messages (tools, documents): a JSON object, or ""
    """

    prompt: str | tuple[Message, ...]
    answer: str
    where: str = field(default="", compare=False, repr=False)
    accepted: tuple[str, ...] = ()
    template: str = ""

    @cached_property
    def id(self) -> str:
        """A digest of the content: the same row read twice is the same example, so it can't be on both sides."""
        content: list[Any] = [self.prompt, self.answer]
        if self.accepted or self.template:
            content += [self.accepted, self.template]
        return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @cached_property
    def prompt_key(self) -> str:
        """The same for prompts that differ in case, white space or Unicode's ways to write a character alone."""
        turns = [self.prompt] if isinstance(self.prompt, str) else [part for turn in self.prompt for part in turn]
        content = json.dumps([type(self.prompt).__name__, *map(normalized, turns)])
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def asks(self) -> str:
        """The prompt as text; of a conversation, its last turn.

        >>> Example("2 ->", " 4").asks
        '2 ->'
        """
        return self.prompt if isinstance(self.prompt, str) else self.prompt[-1].content

    @property
    def answers(self) -> tuple[str, ...]:
        """Every right answer, the one that is trained on first."""
        return (self.answer, *self.accepted)

    @property
    def template_arguments(self) -> dict[str, Any]:
        return json.loads(self.template) if self.template else {}

    @property
    def named(self) -> str:
        """For messages: its id, and where it came from."""
        return f"example {self.id} ({self.where})" if self.where else f"example {self.id}"


def normalized(text: str) -> str:
    """Text without what case, white space and compatible characters (full width, ligatures) add to it."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


Verifier = Callable[[Example, str], float]  # (example, generated text) -> score in [0, 1]


def exact_match(example: Example, generated: str) -> float:
    """1.0 where the generated text equals a right answer, white space at the ends aside."""
    return float(any(generated.strip() == answer.strip() for answer in example.answers))


@dataclass(frozen=True)
class Task:
    """One task. `pool` feeds support and query; `test` is only for evaluation; no prompt is in both.

    >>> pool = (Example("2 ->", " 4"), Example("3 ->", " 6"))
    >>> doubles = Task("double", pool, test=(Example("5 ->", " 10"),))
    >>> Task("double", pool, test=(Example("3 ->", " six"),))
    Traceback (most recent call last):
    ValueError: task 'double': pool and test share a prompt

    Raises ValueError when pool and test share an example or a prompt (its key), or either repeats an example.
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
        tested = {example.prompt_key for example in self.test}
        if tested and any(example.prompt_key in tested for example in self.pool):
            raise ValueError(f"task {self.name!r}: pool and test share a prompt")


@dataclass(frozen=True)
class Batch:
    """What one forward reads of T tasks.

    tokens       (T, B, S) token ids, padded on the right (no mask is needed: a causal model never looks right)
    scored_rows  (R,) positions in the flattened (T*B*S) whose next token is scored
    row_task     (R,) the task of each scored row
    examples     T tuples of B, as encoded
    packed       whether the examples may lie side by side, in a model that admits it
    even         with fillers where tasks have unequally many tokens
    packing      how they do; None = one per row
    mask_seeds   T tuples of B seeds of an example's dropout masks; None = no dropout
    share        (T,) of a part of a larger batch: its share of the scored tokens, by which its loss is multiplied
    """

    tokens: Tensor
    scored_rows: Tensor
    row_task: Tensor
    examples: tuple[tuple[Encoded, ...], ...]
    packed: bool = False
    even: bool = True
    packing: Packing | None = None
    mask_seeds: tuple[tuple[int, ...], ...] | None = None
    share: Tensor | None = None

    @property
    def tasks(self) -> int:
        return self.tokens.shape[0]

    @property
    def targets(self) -> Tensor:
        """(R,) the tokens to predict."""
        return self.tokens.flatten()[self.scored_rows + 1]

    @cached_property
    def lengths(self) -> tuple[tuple[int, ...], ...]:
        """T tuples of B numbers of tokens."""
        return tuple(tuple(len(example.tokens) for example in task) for task in self.examples)

    @property
    def example_ids(self) -> tuple[tuple[str, ...], ...]:
        """T tuples of B."""
        return tuple(tuple(example.id for example in task) for task in self.examples)

    @property
    def keys(self) -> tuple[tuple[bytes, ...], ...]:
        """T tuples of B digests of an example's tokens: read where a trunk is cached, and made there alone."""
        return tuple(tuple(token_key(example.tokens) for example in task) for task in self.examples)

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
            scored_rows=scored,
            row_task=self.row_task[rows] - first,
            examples=self.examples[first:last],
            packed=self.packed,
            even=self.even,
            packing=pack(lengths, width=width, scored=scored, even=self.even) if self.packed else None,
            mask_seeds=self.mask_seeds and self.mask_seeds[first:last],
            share=None if self.share is None else self.share[first:last],
        )

    def parts(self, most: int) -> "list[Batch]":
        """The examples in turn, in parts of at most `most` tokens, and of at least one example of each task.

        Tokens are those of the layout that the batch has. A part of a packed batch that packing would save less than
        a tenth is padded, and so goes through at most `most` / packing.WORTH.
        Of a batch in host memory. The losses of the parts add up to the batch's, and so do their gradients: each has
        its `share`. A batch that is small enough is its only part.
        """
        starts, lengths = [0], list(zip(*self.lengths, strict=True))
        for place in range(1, len(lengths)):
            if self._room(starts[-1], place + 1) > most:
                starts.append(place)
        if len(starts) == 1:
            return [self]
        stops = [*starts[1:], len(lengths)]
        return [self._examples(start, stop) for start, stop in zip(starts, stops, strict=True)]

    def _room(self, first: int, last: int) -> int:
        """Tokens of a forward on the examples first..last-1, packed or padded as the batch is."""
        lengths = [task[first:last] for task in self.lengths]
        each = max(map(sum, lengths)) if self.packed else (last - first) * max(map(max, lengths))
        return self.tasks * each

    def _examples(self, first: int, last: int) -> "Batch":
        """The examples first..last-1 of each task."""
        lengths = tuple(task[first:last] for task in self.lengths)
        width = max(map(max, lengths))
        count, each = self.tokens.shape[1:]
        example, position = self.scored_rows // each % count, self.scored_rows % each
        chosen = (example >= first) & (example < last)
        row_task = self.row_task[chosen]
        scored = (row_task * (last - first) + example[chosen] - first) * width + position[chosen]
        rows, of = (torch.bincount(tasks, minlength=self.tasks) for tasks in (row_task, self.row_task))
        share = rows / of
        return replace(
            self,
            tokens=self.tokens[:, first:last, :width],
            scored_rows=scored,
            row_task=row_task,
            examples=tuple(task[first:last] for task in self.examples),
            packing=pack(lengths, width=width, scored=scored, even=self.even) if self.packed else None,
            mask_seeds=self.mask_seeds and tuple(task[first:last] for task in self.mask_seeds),
            share=share if self.share is None else share * self.share,
        )

    def to(self, device: torch.device | str) -> "Batch":
        names = ("tokens", "scored_rows", "row_task")
        moved = {name: moved_to(getattr(self, name), device) for name in names}
        share = None if self.share is None else moved_to(self.share, device)
        return replace(self, **moved, packing=self.packing and self.packing.to(device), share=share)


def token_key(tokens: Sequence[int]) -> bytes:
    """From tokens on the host: a step would wait for those on a GPU to be copied."""
    return hashlib.blake2b(array("q", tokens), digest_size=16).digest()


class TaskBatch(NamedTuple):
    """What one outer step reads of T tasks.

    support  one batch per inner step: the same one K times, or fresh ones; empty for a method without inner loop
    query    None for a method that reads none (Reptile)
    step     which outer step of the method's own it is, from 0, joint training before them left out
    """

    names: tuple[str, ...]
    support: Sequence[Batch]
    query: Batch | None
    step: int = 0

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
            step=self.step,
        )

    @property
    def batches(self) -> list[Batch]:
        """Every batch that an outer step reads, in order; a method may run one more than once (Method.forwards)."""
        return [*self.support, *([self.query] if self.query else [])]

    def to(self, device: torch.device | str) -> "TaskBatch":
        moved = {id(batch): batch.to(device) for batch in self.batches}
        query = self.query and moved[id(self.query)]
        return self._replace(support=[moved[id(batch)] for batch in self.support], query=query)
