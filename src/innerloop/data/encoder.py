"""One reader of examples and prompts for all of a run: in training, evaluation and use.

Encoder   a tokenizer, and how a run's config has its examples read
Form      what an example asks with: a conversation, a question, or a text as it stands
Prompt    what an answer is asked for: a text, a record without its answer, or a conversation
form_of   the form of examples
without_gaps   a record of Arrow's -> the record
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from innerloop.data.arrow_values import dataset_rows, is_dataset
from innerloop.data.encoding import EncodedTask, OnTooLong, encode, encode_all
from innerloop.data.examples import read_examples
from innerloop.data.forms import FORMS, alpaca
from innerloop.data.in_context import Asks, InContext, separator_of
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.token_ids import Encoded, Start
from innerloop.data.tokens import Reader
from innerloop.errors import Fault, Faults, UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Examples: TypeAlias = "Path | str | Sequence[Example | Mapping[str, Any]] | Dataset"
Prompt = str | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
Form = Literal["messages", "question", "instruction", "prompt"]

QUESTION = "Question: ", "\nAnswer:"  # around a question
INSTRUCTION = "### Instruction:\n", "### Response:"  # around an instruction
SAID = {"role": "assistant", "content": "x"}  # a stand-in for an answer
PROMPTS = 'a text, a record without its answer, or a list of messages: [{"role": "user", "content": ...}]'


@dataclass(frozen=True)
class Encoder:
    """columns: our field names -> those of the files; date: YYYY-MM-DD, told to a chat template that writes it.

    asks  whether a task's examples stand alone in their prompts, or behind others of the task
    """

    tokenizer: "PreTrainedTokenizerBase"
    max_length: int
    on_too_long: OnTooLong
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    date: str | None = None
    asks: Asks = "alone"

    def examples(self, source: Examples, *, columns: Mapping[str, str] | None = None) -> list[Example]:
        """The examples of one task, from a file or from records.

        columns  in place of the run's own, which are taken where the records have them
        Raises UserError with all that is wrong.
        """
        source = Path(source) if isinstance(source, str) else source
        if is_dataset(source):
            source = [without_gaps(record) for record in dataset_rows(source)]
        if not isinstance(source, Path | Sequence) or isinstance(source, bytes):
            raise UserError(Fault("not examples", "examples", source, "a file, a list of records or a Dataset"))
        if columns is not None and not isinstance(columns, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(Fault("not a map of names to names", "columns", columns, '{"question": "Question"}'))
        return read_examples(source, columns=self.columns if columns is None else columns, required=columns is not None)

    def encode(self, example: Example, *, separator: str | None = None) -> Encoded:
        """Of any length; separator: of an in-context prompt. Raises UserError where it can't be encoded."""
        return encode(example, self.tokenizer, date=self.date, separator=separator)

    def tasks(self, tasks: Iterable[Task]) -> list[EncodedTask]:
        """As `encode_all` does. Raises UserError, too, for tasks whose examples can't stand in one prompt."""
        options = {"max_length": self.max_length, "on_too_long": self.on_too_long}
        found = encode_all(tasks, self.tokenizer, date=self.date, **options)
        if self.asks == "alone":
            return found
        faults, shown = Faults(), list[EncodedTask]()
        for task in found:
            with faults.collecting():
                shown.append(self.in_context(task))
        faults.raise_if_any()
        return shown

    def in_context(self, task: EncodedTask) -> EncodedTask:
        """The task, with what makes prompts of its examples. Raises UserError where they can't stand in one."""
        reader = Reader(self.tokenizer, date=self.date, separator=separator_of(task.task))
        examples, encoded = (*task.task.pool, *task.task.test), (*task.pool, *task.test)
        return replace(task, in_context=InContext(examples, encoded, reader))

    def behind(self, kept: EncodedTask, examples: EncodedTask) -> list[Encoded]:
        """The pool's examples, each behind those of a task in context that don't ask the same."""
        assert kept.in_context is not None
        both = Task(kept.task.name, tuple({e.id: e for e in (*kept.task.pool, *examples.task.pool)}.values()))
        known = {e.id: e for e in (*kept.pool, *examples.pool)}
        pool = tuple(known[example.id] for example in both.pool)
        prompts = InContext(both.pool, pool, kept.in_context.reader)
        keys = {example.id: example.prompt_key for example in both.pool}
        others = [[each for each in kept.pool if keys[each.id] != keys[asked.id]] for asked in examples.pool]
        return list(map(prompts.asked, examples.pool, others))

    def starts(self, prompts: Sequence[Prompt], form: Form | None, *, kept: EncodedTask | None = None) -> list[Start]:
        """What generations of answers start from.

        form  that of the examples that were learned from: a text is a user's turn, a question, an instruction, or
              stands for itself; None: they were of several, and a text could be any
        kept  examples in context, which stand before each prompt
        Raises UserError with what is wrong with any prompt.
        """
        if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Sequence):
            raise UserError(Fault("not a list of prompts", "prompts", prompts, "[prompt, ...]"))
        reader, faults = Reader(self.tokenizer, date=self.date), Faults()
        found: list[Start] = []
        for index, prompt in enumerate(prompts):
            where = f"prompts[{index}]"
            try:
                asked = self._asked(prompt, form)
                start = kept.in_context.start(asked, kept.pool) if kept and kept.in_context else reader.start(asked)
                if not start.tokens:
                    faults.add("no token to start from", where, prompt, "text")
                found.append(start)
            except UserError as error:
                told = (fault.where.replace("examples[0]", where) or where for fault in error.faults)
                faults.extend(replace(fault, where=place) for fault, place in zip(error.faults, told, strict=True))
        faults.raise_if_any()
        return found

    def _asked(self, prompt: Any, form: Form | None) -> Example:
        if isinstance(prompt, str):
            return Example(_in_form(prompt, form), "")
        if isinstance(prompt, Mapping):
            record: dict[str, Any] = dict(prompt)
        elif isinstance(prompt, Sequence) and prompt and not isinstance(prompt, bytes):
            turns = [turn._asdict() if isinstance(turn, Message) else turn for turn in prompt]
            record = {"messages": turns}
        else:
            raise UserError(Fault("not a prompt", value=prompt, expected=PROMPTS))
        columns = self.columns if any(name in record for name in self.columns.values()) else {}
        (example,) = read_examples([_answered(record, columns)], columns=columns, required=True)
        return replace(example, answer="")


def without_gaps(record: Mapping[str, Any]) -> dict[str, Any]:
    """Arrow fills the fields that a record doesn't have with None."""
    return {key: value for key, value in record.items() if value is not None}


def form_of(examples: Iterable[Example]) -> Form | None:
    """None where they are of several."""
    found: set[Form] = {_form(example.prompt) for example in examples}
    return found.pop() if len(found) == 1 else None


def _form(prompt: str | tuple[Message, ...]) -> Form:
    if not isinstance(prompt, str):
        return "messages"
    if prompt.endswith(INSTRUCTION[1]) and INSTRUCTION[0] in prompt:
        return "instruction"
    return "question" if prompt.startswith(QUESTION[0]) and prompt.endswith(QUESTION[1]) else "prompt"


def _in_form(text: str, form: Form | None) -> str | tuple[Message, ...]:
    if form is None:
        problem = "the examples are conversations and texts: a text alone could be either"
        raise UserError(Fault(problem, value=text, expected="a record without its answer, or a list of messages"))
    if form == "messages":
        return (Message("user", text),)
    if form == "prompt" or _form(text) == form:
        return text
    return alpaca(text) if form == "instruction" else QUESTION[0] + text + QUESTION[1]


def _answered(record: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The record with a stand-in for its answer, so that the reader of records reads it."""
    for form in FORMS:
        asked, answer = (columns.get(field, field) for field in (form.fields[0], form.fields[-1]))
        if asked not in record:
            continue
        turns = record[asked]
        last = turns[-1] if isinstance(turns, list | tuple) and turns else None
        said = {"from": "gpt", "value": "x"} if isinstance(last, Mapping) and "from" in last else dict(SAID)
        if len(form.fields) > 1:
            if answer in record:
                raise UserError(Fault("the answer stands in the prompt", value=record, expected=f"no {answer}"))
            return {**record, answer: [said] if isinstance(last, Mapping) else "x"}
        if last is None:
            return record
        if isinstance(last, Mapping) and last.get("role", last.get("from")) in ("assistant", "gpt"):
            raise UserError(Fault("the last message is the assistant's", value=turns, expected="the user's: no answer"))
        return {**record, asked: [*turns, said]}
    raise UserError(Fault("not a prompt", value=record, expected=PROMPTS))
