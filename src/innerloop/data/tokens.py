"""A text becomes token ids: the prompt, what a chat template writes, the answer, and what ends it.

Reader    examples -> Encoded, by one tokenizer
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from innerloop.data.tasks import Example
from innerloop.data.templates import Turn, named, turn
from innerloop.data.token_ids import Encoded, End, Start
from innerloop.errors import Fault, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEEN_BEHIND = 8  # characters of the next block that a tokenizer sees behind a separator

Spans = Sequence[tuple[int, int]]  # where tokens start and stop in a text


class _Text(NamedTuple):
    """What is scored of an example, as text: opening + answer + closing, and then the end token unless `closed`."""

    prompt: str
    opening: str
    answer: str
    closing: str
    closed: bool
    stop: End
    behind: str = ""  # read along, and not kept

    @property
    def scored(self) -> str:
        return self.opening + self.answer + self.closing


class Reader:
    """A tokenizer and what is asked of it once: a call takes longer than a short text in it, so texts go together.

    date       YYYY-MM-DD, what a chat template that writes the date is told; None: today
    separator  ends the answer to a text in place of the end token, in the tokens that it has before another text that
               begins like this one
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        date: str | None = None,
        separator: str | None = None,
    ) -> None:
        self.tokenizer, self.date, self.separator = tokenizer, date, separator

    def encoded(self, examples: Sequence[Example]) -> list[Encoded | UserError]:
        """Each example's encoding, or why it has none."""
        texts = [self._text(example) for example in examples]
        # Behind a newline, because by itself some tokenizers would put a space before an answer.
        known = [each for each in texts if isinstance(each, _Text)]
        prompts = iter(self.ids([each.prompt for each in known]))
        scored = iter(self._with_spans(["\n" + each.scored + each.behind for each in known]))
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

    def start(self, example: Example) -> Start:
        """Of the example's answer, whatever that is. Raises UserError as for an example that is encoded."""
        if isinstance(example.prompt, str):
            ids = self._begun(example, self.ids([example.prompt])[0])
            return Start(ids, "", End(self._end_token().tokens, self.separator or ""))
        written = turn(example, self.tokenizer, date=self.date, known=False)
        return Start(
            self._begun(example, self.ids([written.before])[0]), written.opening, self._stop_of(written.closing)
        )

    def _begun(self, example: Example, ids: list[int]) -> tuple[int, ...]:
        """A text prompt's ids with the begin token; a conversation's template has written it."""
        begin = cast(int, self.tokenizer.bos_token_id)
        lacks_begin = isinstance(example.prompt, str) and self._adds_begin and ids[:1] != [begin]
        return tuple([begin, *ids] if lacks_begin else ids)

    def _end_token(self) -> End:
        """What ends the answer to a text."""
        end = self.tokenizer.eos_token_id
        return End() if end is None else End((cast(int, end),))

    def _text(self, example: Example) -> _Text | UserError:
        prompt, answer, end = example.prompt, example.answer, self.tokenizer.eos_token
        if isinstance(prompt, str):
            closed = isinstance(end, str) and answer.rstrip().endswith(end)
            if closed:
                answer = answer.rstrip().removesuffix(cast(str, end))
            text = _Text(prompt, "", answer, cast(str, end) if closed else "", closed, self._end_token())
            if self.separator is not None:
                stop = End(self._end_token().tokens, self.separator)
                # White space at its beginning could become one token with the separator.
                cuts = self.tokenizer.is_fast and not prompt[:1].isspace()
                text = _Text(prompt, "", answer, self.separator, True, stop, prompt[:SEEN_BEHIND] if cuts else "")
        else:
            try:
                written = turn(example, self.tokenizer, date=self.date)
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
        return _Text(*written[:3], bare if closed else written.closing, closed, self._stop_of(written.closing))

    def _stop_of(self, closing: str) -> End:
        """The first that a template writes behind an answer: a special token, or a text that is none.

        A text stands for itself, with an end token that may come in its place.
        """
        places = [(closing.find(token), token) for token in self._turn_ends if token in closing]
        first, token = min(places, key=lambda place: (place[0], -len(place[1])), default=(len(closing), ""))
        if text := closing[:first].rstrip():
            return End(self._end_token().tokens, text)
        return End((cast(int, self.tokenizer.convert_tokens_to_ids(token)),)) if token else self._end_token()

    def _joined(
        self, example: Example, text: _Text, prompt_ids: list[int], ids: list[int], spans: Spans
    ) -> Encoded | UserError:
        newline = self._newline
        if ids[: len(newline)] == newline:
            ids, spans = ids[len(newline) :], [(start - 1, stop - 1) for start, stop in spans[len(newline) :]]
        else:
            ((ids, spans),) = self._with_spans([text.scored + text.behind])
        if text.behind:
            kept = sum(start < len(text.scored) for start, _ in spans)
            ids, spans = ids[:kept], spans[:kept]
        prompt = self._begun(example, prompt_ids)
        if not prompt:
            return UserError(Fault("no token comes before the answer", value=example.prompt, expected="a prompt"))
        prefix, end = self._around(text, ids, spans)
        if prefix + end >= len(ids):
            return UserError(Fault("the tokenizer leaves nothing of the answer", value=example.answer))
        if not text.closed:
            ids, end = [*ids, cast(int, self.tokenizer.eos_token_id)], end + 1
        return Encoded(example.id, prompt + tuple(ids), len(prompt), prefix, end, text.stop, text.opening)

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
