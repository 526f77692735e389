"""Examples become token ids and labels; training and generation see the same ids of a prompt.

Encoded        token ids and labels of one example
End            what ends a generation
EncodedTask    a task's examples that fit, beside their encodings
encode         one example -> Encoded
encode_prompt  the ids a generation starts from
encode_all     every example of every task, fitted to a length
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from innerloop.data.examples import raise_first
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.templates import Turn, named, rendered, turn
from innerloop.errors import Fault, Faults, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_SCORED = -100
OnTooLong = Literal["error", "drop", "truncate"]
Spans = Sequence[tuple[int, int]]  # where tokens start and stop in a text


class End(NamedTuple):
    """What ends a generation: these token ids in a row, or this text in what was written; empty = that doesn't."""

    tokens: tuple[int, ...] = ()
    text: str = ""


class Encoded(NamedTuple):
    """One example's token ids, and as many labels: the token itself where it is scored, -100 elsewhere.

    At least one prompt token, then what is scored: `prefix` tokens that the chat template writes before the answer,
    the answer's, and `end` tokens behind it. A token that reaches over a border is the answer's.

    stop     what ends a generation
    opening  the text before the answer that the `prefix` tokens belong to
    """

    id: str
    tokens: tuple[int, ...]
    labels: tuple[int, ...]
    prefix: int = 0
    end: int = 1
    stop: End = End()
    opening: str = ""


@dataclass(frozen=True)
class EncodedTask:
    """The task without its dropped examples; `pool` and `test` encode its own, in the same order."""

    task: Task
    pool: tuple[Encoded, ...]
    test: tuple[Encoded, ...]
    dropped: int
    truncated: int


def encode(example: Example, tokenizer: "PreTrainedTokenizerBase") -> Encoded:
    """Prompt and answer, tokenized apart.

    A text prompt starts with the begin token where the tokenizer adds one by itself; its answer ends with the
    end token. A conversation is what the chat template makes of it, up to the end token of the answer's turn.
    Raises UserError where the tokenizer lacks what this needs, or nothing is left to score.
    """
    encoded = _Reader(tokenizer).encoded([example])[0]
    if isinstance(encoded, UserError):
        raise encoded
    return encoded


def encode_prompt(prompt: str | tuple[Message, ...], tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """The ids that stand before the answer, in training and in generation."""
    text = prompt if isinstance(prompt, str) else rendered(prompt, tokenizer, add_generation_prompt=True)
    reader = _Reader(tokenizer)
    return reader.begun(prompt, reader.ids([text])[0])


def encode_all(
    tasks: Iterable[Task], tokenizer: "PreTrainedTokenizerBase", *, max_length: int, on_too_long: OnTooLong
) -> list[EncodedTask]:
    """Every task, with examples of at most `max_length` tokens.

    error     a longer example is a fault
    drop      it is left out and counted
    truncate  its prompt is cut on the left and it is counted; an answer that is too long alone is a fault
    Raises UserError with the faults of all tasks.
    """
    fitting = _Fitting(_Reader(tokenizer), max_length, on_too_long, Faults())
    encoded = [fitting.task(task) for task in tasks]
    raise_first(fitting.faults)
    return encoded


@dataclass
class _Fitting:
    """Encodes task by task; `dropped` and `truncated` count in the task at hand."""

    reader: "_Reader"
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
        answer = len(encoded.labels) - encoded.labels.count(NOT_SCORED)
        problem = f"{len(encoded.tokens)} tokens, {answer} of them the answer's"
        if self.on_too_long == "truncate":
            expected = f"an answer of at most {self.max_length - 1} (tasks.max_length - 1), which is never cut"
        else:
            expected = f"at most {self.max_length} (tasks.max_length); or tasks.on_too_long: drop or truncate"
        self.faults.add(problem, where, example.prompt, expected)


def _cut(encoded: Encoded, max_length: int, tokenizer: "PreTrainedTokenizerBase") -> Encoded | None:
    """The prompt's begin token, if any, its end, and the whole answer; None where no prompt would be left."""
    prompt = encoded.labels.count(NOT_SCORED)
    room = max_length - (len(encoded.tokens) - prompt)
    if room < 1:
        return None
    begin = encoded.tokens[:1] if encoded.tokens[0] == tokenizer.bos_token_id else ()
    first = prompt - room + len(begin)
    return encoded._replace(tokens=begin + encoded.tokens[first:], labels=encoded.labels[prompt - room :])


class _Text(NamedTuple):
    """What is scored of an example, as text: opening + answer + closing, and then the end token unless `closed`."""

    prompt: str
    opening: str
    answer: str
    closing: str
    closed: bool
    stop: End

    @property
    def scored(self) -> str:
        return self.opening + self.answer + self.closing


class _Reader:
    """A tokenizer and what is asked of it once: a call takes longer than a short text in it, so texts go together."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer

    def encoded(self, examples: Sequence[Example]) -> list[Encoded | UserError]:
        """Each example's encoding, or why it has none."""
        texts = [self._text(example) for example in examples]
        # Behind a newline, because by itself some tokenizers would put a space before an answer.
        known = [each for each in texts if isinstance(each, _Text)]
        prompts = iter(self.ids([each.prompt for each in known]))
        scored = iter(self._with_spans(["\n" + each.scored for each in known]))
        return [
            self._joined(example, each, next(prompts), *next(scored)) if isinstance(each, _Text) else each
            for example, each in zip(examples, texts, strict=True)
        ]

    def ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return cast(
            list[list[int]], self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        )

    def _with_spans(self, texts: list[str]) -> list[tuple[list[int], Spans]]:
        """The same with the place of each token in its text; without, where a tokenizer can't tell."""
        if not texts or not self.tokenizer.is_fast:
            return [(ids, []) for ids in self.ids(texts)]
        options: Any = {"add_special_tokens": False, "return_attention_mask": False, "return_offsets_mapping": True}
        found: Any = self.tokenizer(texts, **options)
        return list(zip(found["input_ids"], found["offset_mapping"], strict=True))

    def begun(self, prompt: str | tuple[Message, ...], ids: list[int]) -> tuple[int, ...]:
        """A text prompt's ids with the begin token; a conversation's template has written it."""
        begin = cast(int, self.tokenizer.bos_token_id)
        lacks_begin = isinstance(prompt, str) and self._adds_begin and ids[:1] != [begin]
        return tuple([begin, *ids] if lacks_begin else ids)

    def end_token(self) -> End:
        """What ends the answer to a text."""
        end = self.tokenizer.eos_token_id
        return End() if end is None else End((cast(int, end),))

    def _text(self, example: Example) -> _Text | UserError:
        prompt, answer, end = example.prompt, example.answer, self.tokenizer.eos_token
        if isinstance(prompt, str):
            closed = isinstance(end, str) and answer.rstrip().endswith(end)
            if closed:
                answer = answer.rstrip().removesuffix(cast(str, end))
            text = _Text(prompt, "", answer, cast(str, end) if closed else "", closed, self.end_token())
        else:
            try:
                written = turn(prompt, answer, self.tokenizer)
            except UserError as error:
                return error
            text = self._closed(written)
        if not text.closed and end is None:
            right = "a tokenizer with eos_token set"
            return UserError(Fault("names no end token", named(self.tokenizer), expected=right))
        return text

    def _closed(self, written: Turn) -> _Text:
        """White space behind a turn's end token is cut: a generation stops before it."""
        bare = written.closing.rstrip()
        closed = bare.endswith(self._turn_ends) and bool(bare)
        return _Text(*written[:3], bare if closed else written.closing, closed, self.stop_of(written.closing))

    def stop_of(self, closing: str) -> End:
        """The first that a template writes behind an answer: a special token, or a text that is none.

        A text stands for itself, with an end token that may come in its place.
        """
        places = [(closing.find(token), token) for token in self._turn_ends if token in closing]
        first, token = min(places, key=lambda place: (place[0], -len(place[1])), default=(len(closing), ""))
        if text := closing[:first].rstrip():
            return End(self.end_token().tokens, text)
        return End((cast(int, self.tokenizer.convert_tokens_to_ids(token)),)) if token else self.end_token()

    def _joined(
        self, example: Example, text: _Text, prompt_ids: list[int], ids: list[int], spans: Spans
    ) -> Encoded | UserError:
        newline = self._newline
        if ids[: len(newline)] == newline:
            ids, spans = ids[len(newline) :], [(start - 1, stop - 1) for start, stop in spans[len(newline) :]]
        else:
            ((ids, spans),) = self._with_spans([text.scored])
        prompt = self.begun(example.prompt, prompt_ids)
        if not prompt:
            return UserError(Fault("no token comes before the answer", value=example.prompt, expected="a prompt"))
        prefix, end = self._around(text, ids, spans)
        if prefix + end >= len(ids):
            return UserError(Fault("the tokenizer leaves nothing of the answer", value=example.answer))
        if not text.closed:
            ids, end = [*ids, cast(int, self.tokenizer.eos_token_id)], end + 1
        labels = (NOT_SCORED,) * len(prompt) + tuple(ids)
        return Encoded(example.id, prompt + tuple(ids), labels, prefix, end, text.stop, text.opening)

    def _around(self, text: _Text, ids: list[int], spans: Spans) -> tuple[int, int]:
        """How many of the ids are the opening's alone, and how many the closing's."""
        if spans:
            first, last = len(text.opening), len(text.opening) + len(text.answer)
            # A tokenizer may leave white space out of a span: an empty one lies where it ends.
            return sum(stop <= first for _, stop in spans), sum(start >= last < stop for start, stop in spans)
        opening, closing = self.ids(["\n" + text.opening, "\n" + text.closing])
        width = len(self._newline)
        return _alike(ids, opening[width:]), _alike(ids[::-1], closing[width:][::-1])

    @cached_property
    def _newline(self) -> list[int]:
        return self.ids(["\n"])[0]

    @cached_property
    def _adds_begin(self) -> bool:
        probe = self.ids(["x"])[0]
        return self.tokenizer.encode("x")[: len(probe) + 1] == [self.tokenizer.bos_token_id, *probe]

    @cached_property
    def _turn_ends(self) -> tuple[str, ...]:
        return tuple(str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)


def _alike(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many of the first are the same."""
    same = [one == other for one, other in zip(ids, others, strict=False)]
    return same.index(False) if False in same else len(same)
