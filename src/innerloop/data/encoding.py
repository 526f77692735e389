"""Examples become token ids; training and generation see the same ids of a prompt.

EncodedTask    a task's examples that fit, beside their encodings
encode         one example -> Encoded
encode_prompt  the ids a generation starts from
encode_all     every example of every task, fitted to a length
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from innerloop.data.in_context import InContext
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.token_ids import Encoded
from innerloop.data.tokens import Reader
from innerloop.errors import Faults, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["EncodedTask", "OnTooLong", "encode", "encode_all", "encode_prompt"]

OnTooLong = Literal["error", "drop", "truncate"]


@dataclass(frozen=True)
class EncodedTask:
    """The task without its dropped examples; `pool` and `test` encode its own, in the same order.

    in_context  how its examples stand in prompts with others of the task; None: each stands alone
    """

    task: Task
    pool: tuple[Encoded, ...]
    test: tuple[Encoded, ...]
    dropped: int
    truncated: int
    in_context: InContext | None = None

    def behind(self, support: Sequence[Encoded]) -> "EncodedTask":
        """With these examples in the prompts of its test examples, where its examples stand in context."""
        if self.in_context is None:
            return self
        return replace(self, test=tuple(self.in_context.asked(each, support) for each in self.test))


def encode(
    example: Example,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    date: str | None = None,
    separator: str | None = None,
) -> Encoded:
    """Prompt and answer, tokenized apart.

    separator  ends the answer to a text in place of the end token, as in a prompt of such blocks

    A text prompt starts with the begin token where the tokenizer adds one by itself; its answer ends with the
    end token. A conversation is what the chat template makes of it, up to the end token of the answer's turn.
    Raises UserError where the tokenizer lacks what this needs, or nothing is left to score.
    """
    encoded = Reader(tokenizer, date=date, separator=separator).encoded([example])[0]
    if isinstance(encoded, UserError):
        raise encoded
    return encoded


def encode_prompt(
    prompt: str | tuple[Message, ...], tokenizer: "PreTrainedTokenizerBase", *, date: str | None = None
) -> tuple[int, ...]:
    """The ids that stand before the answer, in training and in generation."""
    return Reader(tokenizer, date=date).start(Example(prompt, "")).tokens


def encode_all(
    tasks: Iterable[Task],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    on_too_long: OnTooLong,
    date: str | None = None,
) -> list[EncodedTask]:
    """Every task, with examples of at most `max_length` tokens.

    error     a longer example is a fault
    drop      it is left out and counted
    truncate  its prompt is cut on the left and it is counted; an answer that is too long alone is a fault
    Raises UserError with the faults of all tasks.
    """
    fitting = _Fitting(Reader(tokenizer, date=date), max_length, on_too_long, Faults())
    encoded = [fitting.task(task) for task in tasks]
    fitting.faults.raise_if_any()
    return encoded


@dataclass
class _Fitting:
    """Encodes task by task; `dropped` and `truncated` count in the task at hand."""

    reader: Reader
    max_length: int
    on_too_long: OnTooLong
    faults: Faults
    dropped: int = 0
    truncated: int = 0

    def task(self, task: Task) -> EncodedTask:
        self.dropped = self.truncated = 0
        pool = self._side(task.pool, task.name)
        test = self._side(task.test, task.name)
        left = replace(task, pool=tuple(e for e, _ in pool), test=tuple(e for e, _ in test))
        encoded = (tuple(e for _, e in pool), tuple(e for _, e in test))
        return EncodedTask(left, *encoded, dropped=self.dropped, truncated=self.truncated)

    def _side(self, examples: Sequence[Example], task: str) -> list[tuple[Example, Encoded]]:
        both = zip(examples, self.reader.encoded(examples), strict=True)
        fitted = [(example, self._fit(example, found, f"task {task}: {example.named}")) for example, found in both]
        return [(example, encoded) for example, encoded in fitted if encoded is not None]

    def _fit(self, example: Example, encoded: Encoded | UserError, where: str) -> Encoded | None:
        if isinstance(encoded, UserError):
            self.faults.extend(fault if fault.where else replace(fault, where=where) for fault in encoded.faults)
            return None
        if len(encoded.tokens) <= self.max_length:
            return encoded
        if self.on_too_long == "drop":
            self.dropped += 1
            return None
        shorter = _cut(encoded, self.max_length, self.reader.tokenizer) if self.on_too_long == "truncate" else None
        if shorter is None:
            self._add_too_long(example, encoded, where)
        else:
            self.truncated += 1
        return shorter

    def _add_too_long(self, example: Example, encoded: Encoded, where: str) -> None:
        problem = f"{len(encoded.tokens)} tokens, {len(encoded.scored)} of them the answer's"
        if self.on_too_long == "truncate":
            expected = f"an answer of at most {self.max_length - 1} (tasks.max_length - 1), which is never cut"
        else:
            expected = f"at most {self.max_length} (tasks.max_length); or tasks.on_too_long: drop or truncate"
        self.faults.add(problem, where, example.prompt, expected)


def _cut(encoded: Encoded, max_length: int, tokenizer: "PreTrainedTokenizerBase") -> Encoded | None:
    """The prompt's begin token, if any, its end, and the whole answer; None where no prompt would be left."""
    room = max_length - len(encoded.scored)
    if room < 1:
        return None
    begin = encoded.tokens[:1] if encoded.tokens[0] == tokenizer.bos_token_id else ()
    first = encoded.prompt - room + len(begin)
    return encoded._replace(tokens=begin + encoded.tokens[first:], prompt=room)
