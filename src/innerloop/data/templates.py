"""What a chat template makes of a conversation: where in it the answer stands, and what is written around it.

Turn         an answer and what the template writes before and behind it
turn         a conversation and its answer -> Turn
writes_date  whether the template asks what day it is

A template may write into the assistant's turn by itself (an empty think block, a channel's header), and ends the turn
in its own way; what it writes is found by having it write another answer.
"""

import json
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from innerloop.data.tasks import Example, Message
from innerloop.errors import Fault, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

READ = ("tools", "documents")  # a prompt without them is another prompt
PROBE = "Xq7Zanswer9Kw"  # an answer that no template writes by itself, and none has a reason to change


class Turn(NamedTuple):
    """before: up to the generation prompt's end; then opening, answer and closing, which a model learns to write."""

    before: str
    opening: str
    answer: str
    closing: str


def turn(
    example: Example, tokenizer: "PreTrainedTokenizerBase", *, date: str | None = None, known: bool = True
) -> Turn:
    """The turn of the answer to a conversation; with known=False that of an answer that isn't known yet.

    date  YYYY-MM-DD, for a template that writes the date; None: today
    An answer stands whole in what the template writes, white space at its ends aside. Raises UserError where it
    doesn't, and where the prompt is not how the conversation with its answer begins.
    """
    writer, answer = _Writer(example, tokenizer, date), example.answer
    opening, found, closing = writer.behind(PROBE).partition(PROBE)
    if not found or PROBE in closing:
        shown = (opening + found + closing)[:300]
        raise UserError(Fault("the chat template doesn't write the assistant's answer once", value=shown))
    if not known:
        return Turn(writer.before, opening, "", closing)
    whole = writer.behind(answer)
    inner = whole[len(opening) : len(whole) - len(closing)]
    if whole == opening + inner + closing and inner.strip() == answer.strip():
        return Turn(writer.before, opening, inner, closing)
    bare = answer.strip()  # a template may look into the answer, and write less around one that has its own think block
    if bare and whole.count(bare) == 1:
        opening, _, closing = whole.partition(bare)
        return Turn(writer.before, opening, bare, closing)
    problem = f"the chat template changes the answer: it writes {whole!r}"
    raise UserError(Fault(problem, value=answer, expected="an answer that stands in it whole"))


def writes_date(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the chat template asks what day it is."""
    return "strftime_now" in json.dumps(tokenizer.chat_template)


def named(tokenizer: "PreTrainedTokenizerBase") -> str:
    return f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}"


class _Writer:
    """before: the conversation up to the end of the generation prompt."""

    def __init__(self, example: Example, tokenizer: "PreTrainedTokenizerBase", date: str | None) -> None:
        assert not isinstance(example.prompt, str)
        self.prompt, self.tokenizer, self.date = example.prompt, tokenizer, date
        self.given = example.template_arguments
        self.before = self._rendered(self.prompt, add_generation_prompt=True)
        self._check_read()

    def behind(self, answer: str) -> str:
        """What the chat template writes behind the generation prompt when the answer is known."""
        whole = self._rendered((*self.prompt, Message("assistant", answer)), add_generation_prompt=False)
        if not whole.startswith(self.before):
            raise UserError(
                Fault(
                    "the chat template's generation prompt is not how the conversation with its answer begins",
                    value=self.before[-60:],
                    expected="a template whose prompt is a prefix of the whole",
                )
            )
        return whole[len(self.before) :]

    def _check_read(self) -> None:
        """Raises UserError for tools or documents without which the prompt would be the same."""
        for name in filter(self.given.get, READ):
            left = {key: value for key, value in self.given.items() if key != name}
            if self._rendered(self.prompt, add_generation_prompt=True, given=left) == self.before:
                problem = f"the chat template writes nothing of the record's {name}"
                right = f"a tokenizer whose template reads {name}, or records without that field"
                raise UserError(Fault(problem, value=self.given[name], expected=right))

    def _rendered(
        self, messages: tuple[Message, ...], *, add_generation_prompt: bool, given: dict[str, Any] | None = None
    ) -> str:
        """Raises UserError where there is no template, or it refuses the messages or writes without end."""
        import jinja2

        if self.tokenizer.chat_template is None:
            hint = "an instruction-tuned model's tokenizer, or prompt and completion instead of messages"
            raise UserError(Fault("has no chat template", named(self.tokenizer), expected=hint))
        turns: list[Any] = [message._asdict() for message in messages]
        options: dict[str, Any] = {
            **(self.given if given is None else given),
            "tokenize": False,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            if self.date and writes_date(self.tokenizer):
                options["chat_template"] = _dated(self.tokenizer.get_chat_template(), self.date)
            text = self.tokenizer.apply_chat_template(turns, **options)
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
        length = sum(len(message.content) for message in messages) + len(json.dumps(self.given))
        limit = 100_000 + 10 * length
        if len(text) > limit:
            raise UserError(Fault(f"the chat template writes {len(text)} characters", expected=f"at most {limit}"))
        return str(text)


@lru_cache(maxsize=32)
def _dated(template: str, date: str) -> str:
    """The template with a `strftime_now` of its own, which tells every time of that day as midnight.

    transformers passes no function on to a template, but a macro of the same name hides its own. The line break
    behind `endmacro` is taken away with the block, so the template begins as before.
    """
    day = datetime.fromisoformat(date)
    written = {f"%-{letter}": day.strftime(f"%{letter}").lstrip("0") or "0" for letter in "dmyHIMSj"}
    written |= {f"%{letter}": day.strftime(f"%{letter}") for letter in "aAbBdmyYHIMSfpjUWwuVGcxXFTRDe"}
    replaced = "".join(f"|replace({directive!r}, {text!r})" for directive, text in written.items())
    return "{% macro strftime_now(format) %}{{ format" + replaced + " }}{% endmacro %}\n" + template
