"""The forms of a record, and how each becomes an example: a row of FORMS, and a converter of a few lines.

RecordForm    the fields that make a record of it, those read where a record has them, and its converter
alpaca        an instruction as its form asks it
FORMS         messages, ShareGPT's conversations, prompt and completion, Alpaca's instruction, question and answer
KNOWN_FIELDS  every name that tasks.columns may map
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from innerloop.data.fields import Fields, is_empty
from innerloop.data.tasks import Example, Message

TEMPLATE = ("tools", "documents", "chat_template_kwargs")  # a chat template is handed these beside the messages
# The words of https://github.com/tatsu-lab/stanford_alpaca, which models trained in this form know.
ALPACA = "Below is an instruction that describes a task{}. Write a response that appropriately completes the request."
ALPACA_INPUT = ", paired with an input that provides further context"


class RecordForm(NamedTuple):
    """convert: None where it added faults."""

    fields: tuple[str, ...]
    optional: tuple[str, ...]
    convert: Callable[[Fields], Example | None]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.fields, *self.optional)


def _messages(fields: Fields) -> Example | None:
    return _conversation(fields, "messages", fields.messages("messages", fewest=2), TEMPLATE)


def _sharegpt(fields: Fields) -> Example | None:
    """Turns of `from` and `value`; the files of some others call them role and content here, too."""
    value = fields.value("conversations")
    first = value[0] if isinstance(value, list) and value else None
    keys = ("role", "content") if isinstance(first, dict) and "role" in first else ("from", "value")
    turns = fields.messages("conversations", fewest=2, keys=keys)
    return _conversation(fields, "conversations", turns, ("tools",))


def _conversation(fields: Fields, field: str, turns: Sequence[Message], template: Sequence[str]) -> Example | None:
    system = fields.optional_text("system")
    given = fields.template(template)
    if not turns:
        return None
    if turns[-1].role != "assistant":
        problem = "the last message is not the assistant's"
        fields.faults.add(problem, f"{fields.where(field)}[{len(turns) - 1}].role", turns[-1].role, "assistant")
        return None
    if system and any(turn.role in ("system", "developer") for turn in turns):
        fields.faults.add("a system message is in the conversation too", fields.where("system"), system, "one of them")
        return None
    opening = [Message("system", system)] if system else []
    return Example((*opening, *turns[:-1]), turns[-1].content, fields.row.where, template=given)


def _completion(fields: Fields) -> Example | None:
    """Text to go on with, or a conversation and the assistant's next message, as TRL has them."""
    asked = fields.value("prompt")
    if isinstance(asked, list) and asked and isinstance(asked[0], dict):
        turns = fields.messages("prompt", fewest=1)
        said = fields.messages("completion", fewest=1)
        if len(said) > 1:
            fields.faults.add("several messages", fields.where("completion"), len(said), "the assistant's next one")
        return _conversation(fields, "completion", (*turns, *said), TEMPLATE) if turns and said else None
    for field in ("system", *TEMPLATE):
        if not is_empty(fields.value(field)):
            problem = "shapes the prompt of a conversation, and this one is text"
            fields.faults.add(problem, fields.where(field), fields.value(field), "a prompt of messages")
    prompt, answers = fields.text("prompt"), fields.answers("completion")
    return _example(prompt, answers, fields)


def _alpaca(fields: Fields) -> Example | None:
    instruction, answers = fields.text("instruction"), fields.answers("output", scalars=True)
    given, system = fields.optional_text("input"), fields.optional_text("system")
    prompt = None if instruction is None else alpaca(instruction, given, system)
    return _example(prompt, [f"\n{answer}" for answer in answers], fields)


def alpaca(instruction: str, given: str = "", system: str = "") -> str:
    """An instruction in its frame; `system` in place of the frame's first sentences."""
    opening = system or ALPACA.format(ALPACA_INPUT if given else "")
    asked = f"{opening}\n\n### Instruction:\n{instruction}\n\n" + (f"### Input:\n{given}\n\n" if given else "")
    return f"{asked}### Response:"


def _question(fields: Fields) -> Example | None:
    question, answers = fields.text("question"), fields.answers("answer", scalars=True)
    prompt = None if question is None else f"Question: {question}\nAnswer:"
    return _example(prompt, [f" {answer}" for answer in answers], fields)


def _example(prompt: str | None, answers: Sequence[str], fields: Fields) -> Example | None:
    if prompt is None or not answers:
        return None
    return Example(prompt, answers[0], fields.row.where, accepted=tuple(answers[1:]))


FORMS = (
    RecordForm(("messages",), ("system", *TEMPLATE), _messages),
    RecordForm(("conversations",), ("system", "tools"), _sharegpt),
    RecordForm(("prompt", "completion"), ("system", *TEMPLATE), _completion),
    RecordForm(("instruction", "output"), ("input", "system"), _alpaca),
    RecordForm(("question", "answer"), (), _question),
)
KNOWN_FIELDS = tuple(dict.fromkeys(("task", *(field for form in FORMS for field in form.all))))
