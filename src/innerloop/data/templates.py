"""What a chat template makes of a conversation: where in it the answer stands, and what is written around it.

Turn      an answer and what the template writes before and behind it
turn      a conversation and its answer -> Turn
rendered  the text of a conversation

A template may write into the assistant's turn by itself (an empty think block, a channel's header), and ends the turn
in its own way; what it writes is found by having it write another answer.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from innerloop.data.tasks import Message
from innerloop.errors import Fault, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "Xq7Zanswer9Kw"  # an answer that no template writes by itself, and none has a reason to change


class Turn(NamedTuple):
    """before: up to the generation prompt's end; then opening, answer and closing, which a model learns to write."""

    before: str
    opening: str
    answer: str
    closing: str


def turn(prompt: tuple[Message, ...], answer: str | None, tokenizer: "PreTrainedTokenizerBase") -> Turn:
    """The turn of `answer`; with None that of an answer that isn't known yet.

    An answer stands whole in what the template writes, white space at its ends aside. Raises UserError where it
    doesn't, and where the prompt is not how the conversation with its answer begins.
    """
    before = rendered(prompt, tokenizer, add_generation_prompt=True)
    probed = _behind(before, prompt, PROBE, tokenizer)
    opening, found, closing = probed.partition(PROBE)
    if not found or PROBE in closing:
        raise UserError(Fault("the chat template doesn't write the assistant's answer once", value=probed[:300]))
    if answer is None:
        return Turn(before, opening, "", closing)
    whole = _behind(before, prompt, answer, tokenizer)
    inner = whole[len(opening) : len(whole) - len(closing)]
    if whole == opening + inner + closing and inner.strip() == answer.strip():
        return Turn(before, opening, inner, closing)
    bare = answer.strip()  # a template may look into the answer, and write less around one that has its own think block
    if bare and whole.count(bare) == 1:
        opening, _, closing = whole.partition(bare)
        return Turn(before, opening, bare, closing)
    problem = f"the chat template changes the answer: it writes {whole!r}"
    raise UserError(Fault(problem, value=answer, expected="an answer that stands in it whole"))


def rendered(
    messages: tuple[Message, ...], tokenizer: "PreTrainedTokenizerBase", *, add_generation_prompt: bool
) -> str:
    """Raises UserError where there is no template, or it refuses the messages or writes without end."""
    import jinja2

    if tokenizer.chat_template is None:
        hint = "an instruction-tuned model's tokenizer, or prompt and completion instead of messages"
        raise UserError(Fault("has no chat template", named(tokenizer), expected=hint))
    turns: list[Any] = [message._asdict() for message in messages]
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


def named(tokenizer: "PreTrainedTokenizerBase") -> str:
    return f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}"


def _behind(before: str, prompt: tuple[Message, ...], answer: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    """What the chat template writes behind the generation prompt when the answer is known."""
    whole = rendered((*prompt, Message("assistant", answer)), tokenizer, add_generation_prompt=False)
    if not whole.startswith(before):
        raise UserError(
            Fault(
                "the chat template's generation prompt is not how the conversation with its answer begins",
                value=before[-60:],
                expected="a template whose prompt is a prefix of the whole",
            )
        )
    return whole[len(before) :]
