"""Examples become token ids and labels; training and generation see the same ids of a prompt.

Encoded        token ids and labels of one example
EncodedTask    a task's examples that fit, beside their encodings
encode         one example -> Encoded
encode_prompt  the ids a generation starts from
encode_all     every example of every task, fitted to a length
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from innerloop.data.examples import raise_first
from innerloop.data.tasks import Example, Message, Task
from innerloop.errors import Fault, Faults, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_SCORED = -100
OnTooLong = Literal["error", "drop", "truncate"]


class Encoded(NamedTuple):
    """One example's token ids, and as many labels: the token itself where it is scored, -100 elsewhere.

    At least one prompt token, then the answer, all of it scored; its last token ends a generation.
    """

    id: str
    tokens: tuple[int, ...]
    labels: tuple[int, ...]


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
    text = prompt if isinstance(prompt, str) else _render(prompt, tokenizer, add_generation_prompt=True)
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
    return Encoded(encoded.id, begin + encoded.tokens[first:], encoded.labels[prompt - room :])


class _Reader:
    """A tokenizer and what is asked of it once: a call takes longer than a short text in it, so texts go together."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer

    def encoded(self, examples: Sequence[Example]) -> list[Encoded | UserError]:
        """Each example's encoding, or why it has none."""
        texts = [self._texts(example) for example in examples]
        whole = iter(self.ids([text for each in texts if not isinstance(each, UserError) for text in each[:2]]))
        return [
            each if isinstance(each, UserError) else self._joined(example, each, next(whole), next(whole))
            for example, each in zip(examples, texts, strict=True)
        ]

    def ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return cast(
            list[list[int]], self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        )

    def begun(self, prompt: str | tuple[Message, ...], ids: list[int]) -> tuple[int, ...]:
        """A text prompt's ids with the begin token; a conversation's template has written it."""
        begin = cast(int, self.tokenizer.bos_token_id)
        lacks_begin = isinstance(prompt, str) and self._adds_begin and ids[:1] != [begin]
        return tuple([begin, *ids] if lacks_begin else ids)

    def _texts(self, example: Example) -> tuple[str, str, bool] | UserError:
        """The prompt, the answer behind a newline, and whether the end token is still to be appended to it.

        A template's white space after the end token is cut: a generation stops before it.
        """
        prompt, answer, ends = example.prompt, example.answer, self._text_ends
        try:
            if not isinstance(prompt, str):
                text, ends = _render(prompt, self.tokenizer, add_generation_prompt=True), self._turn_ends
                prompt, answer = text, _last_turn(text, prompt, answer, self.tokenizer)
        except UserError as error:
            return error
        closed = answer.rstrip().endswith(ends)
        if not closed and self.tokenizer.eos_token is None:
            right = "a tokenizer with eos_token set"
            return UserError(Fault("names no end token", _named(self.tokenizer), expected=right))
        return prompt, "\n" + (answer.rstrip() if closed else answer), not closed

    def _joined(
        self, example: Example, texts: tuple[str, str, bool], prompt_ids: list[int], answer_ids: list[int]
    ) -> Encoded | UserError:
        """Behind a newline, because by itself some tokenizers would put a space before an answer."""
        _, text, endless = texts
        newline = self._newline
        behind = answer_ids[: len(newline)] == newline
        ids = answer_ids[len(newline) :] if behind else self.ids([text[1:]])[0]
        prompt = self.begun(example.prompt, prompt_ids)
        answer = (*ids, cast(int, self.tokenizer.eos_token_id)) if endless else tuple(ids)
        if not prompt:
            return UserError(Fault("no token comes before the answer", value=example.prompt, expected="a prompt"))
        if len(answer) < 2:
            return UserError(Fault("the tokenizer leaves nothing of the answer", value=example.answer))
        return Encoded(example.id, prompt + answer, (NOT_SCORED,) * len(prompt) + answer)

    @cached_property
    def _newline(self) -> list[int]:
        return self.ids(["\n"])[0]

    @cached_property
    def _adds_begin(self) -> bool:
        probe = self.ids(["x"])[0]
        return self.tokenizer.encode("x")[: len(probe) + 1] == [self.tokenizer.bos_token_id, *probe]

    @cached_property
    def _text_ends(self) -> tuple[str, ...]:
        end = self.tokenizer.eos_token
        return (end,) if isinstance(end, str) else ()

    @cached_property
    def _turn_ends(self) -> tuple[str, ...]:
        return tuple(str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)


def _last_turn(before: str, prompt: tuple[Message, ...], answer: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    """What the chat template writes behind the prompt, `before`, when the answer is known."""
    whole = _render((*prompt, Message("assistant", answer)), tokenizer, add_generation_prompt=False)
    if not whole.startswith(before):
        raise UserError(
            Fault(
                "the chat template's generation prompt is not how the conversation with its answer begins",
                value=before[-60:],
                expected="a template whose prompt is a prefix of the whole",
            )
        )
    return whole[len(before) :]


def _render(messages: tuple[Message, ...], tokenizer: "PreTrainedTokenizerBase", *, add_generation_prompt: bool) -> str:
    import jinja2

    if tokenizer.chat_template is None:
        hint = "an instruction-tuned model's tokenizer, or prompt and completion instead of messages"
        raise UserError(Fault("has no chat template", _named(tokenizer), expected=hint))
    turns = [message._asdict() for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    except (
        jinja2.TemplateError,
        ArithmeticError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(Fault(f"the chat template refuses the conversation: {error}", value=turns)) from None
    # A template comes with a model and may write without end.
    limit = 100_000 + 10 * sum(len(message.content) for message in messages)
    if len(text) > limit:
        raise UserError(Fault(f"the chat template writes {len(text)} characters", expected=f"at most {limit}"))
    return str(text)


def _named(tokenizer: "PreTrainedTokenizerBase") -> str:
    return f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}"
