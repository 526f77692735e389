"""In-context learning: the support examples stand in the prompt, and nothing is trained.

Legend: k = support examples.

A text's blocks end with a blank line, and so does the answer that is asked for: in generation and in nats the separator
stands where the end token stands elsewhere, since that is the end that the model was shown.

in_context_prompts   test examples with k examples before each, encoded like any other example
in_context_task      the same for an encoded task, whose verifier and test examples stay
separator_of         what divides the blocks, which no answer may hold
too_long             the faults of tasks whose prompts the model has no positions for
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import Example, Message, Task
from innerloop.data.token_ids import Encoded
from innerloop.data.tokens import Separator
from innerloop.errors import Fault, UserError
from innerloop.evaluation.generation import allowance, prompt_of

SYSTEM = ("system", "developer")
BLANK_LINE = "\n\n"
SEPARATORS = (BLANK_LINE, "\n\n###\n\n")  # the first that no answer holds
SEEN_BEHIND = 8  # characters of the next block that a tokenizer sees behind a separator


def in_context_prompts(
    support: Sequence[Example], test: Sequence[Example], encoder: Encoder, *, separator: str = BLANK_LINE
) -> list[Encoded]:
    """Each test example, its prompt behind the support's prompts and answers.

    A text follows blocks of prompt and answer, with a separator behind each, which ends its own answer too; a
    conversation follows the others' turns, where a system message that all begin with is said once, and ends as its
    template has it. The ids are not the test examples' own, since these are other tokens.
    Raises UserError where text and conversations would mix, or the chat template refuses the turns.
    """
    return [
        encoder.encode(_behind(support, example, separator), separator=_between(example, separator)) for example in test
    ]


def separator_of(task: Task) -> str:
    """Raises UserError where an answer holds each of those that there are: it would be cut there."""
    answers = [example.answer.strip() for example in (*task.pool, *task.test)]
    for separator in SEPARATORS:
        if not any(separator in answer for answer in answers):
            return separator
    right = f"answers without one of {', '.join(map(repr, SEPARATORS))}, or no in-context arm"
    raise UserError(Fault("answers hold every separator of an in-context prompt", f"task {task.name}", expected=right))


def in_context_task(task: EncodedTask, support: Sequence[Encoded], encoder: Encoder) -> EncodedTask:
    """The task with in-context prompts as the encodings of its test examples, in the same order.

    support  encodings from the task's pool; without any, the prompts stay, and an answer to a text ends at a blank line
             or an end token, where no answer holds one: a model that nothing trained isn't asked for an end token
    Raises UserError as `separator_of` does.
    """
    if not support:
        return replace(task, test=tuple(map(partial(_ended, encoder=encoder), task.task.test, task.test)))
    known = {example.id: example for example in task.task.pool}
    examples, separator = [known[encoded.id] for encoded in support], separator_of(task.task)
    return replace(task, test=tuple(in_context_prompts(examples, task.task.test, encoder, separator=separator)))


def too_long(
    tasks: Iterable[EncodedTask], k: int, *, positions: int | None, max_new_tokens: int | None = None
) -> list[Fault]:
    """A fault for each task of `in_context_task` whose longest prompt and answer need more than `positions` tokens.

    positions       `positions_of` the model; None: it has no limit of its own
    max_new_tokens  of an answer; None: the task's `allowance`
    """
    faults: list[Fault] = []
    for task in tasks:
        needed = max(len(prompt_of(example)) for example in task.test) + (max_new_tokens or allowance(task))
        if positions is not None and needed > positions:
            where = f"task {task.task.name}: k = {k}"
            right = f"at most {positions}, the model's max_position_embeddings: a smaller k, or no in-context arm"
            faults.append(Fault("the examples and an answer are too long for the model", where, needed, right))
    return faults


def _between(test: Example, separator: str) -> Separator | None:
    if not isinstance(test.prompt, str):
        return None
    # White space at its beginning could become one token with the separator.
    return Separator(separator, "" if test.prompt[:1].isspace() else test.prompt[:SEEN_BEHIND])


def _ended(test: Example, encoded: Encoded, *, encoder: Encoder) -> Encoded:
    """The encoding, whose prompt may have been cut, with a blank line as its answer's end."""
    between = _between(test, BLANK_LINE)
    if between is None or BLANK_LINE in test.answer.strip():
        return encoded
    other, prompt = encoder.encode(test, separator=between), prompt_of(encoded)
    return other._replace(tokens=prompt + other.scored, prompt=len(prompt))


def _behind(support: Sequence[Example], test: Example, separator: str) -> Example:
    if isinstance(test.prompt, str):
        blocks = [f"{_text(example)}{example.answer}{separator}" for example in support]
        return Example("".join(blocks) + test.prompt, test.answer)
    opening = _opening(test.prompt)
    turns: list[Message] = list(opening)
    for example in support:
        earlier = _turns(example)
        same = _opening(earlier) == opening
        turns += [*earlier[len(opening) if same else 0 :], Message("assistant", example.answer)]
    return Example((*turns, *test.prompt[len(opening) :]), test.answer, template=test.template)


def _opening(prompt: Sequence[Message]) -> tuple[Message, ...]:
    """The messages before anyone speaks: what a chat template takes at the beginning alone."""
    first = next((index for index, message in enumerate(prompt) if message.role not in SYSTEM), len(prompt))
    return tuple(prompt[:first])


def _text(example: Example) -> str:
    if not isinstance(example.prompt, str):
        raise UserError(Fault("a conversation can't stand before a text", f"example {example.id}", example.prompt))
    return example.prompt


def _turns(example: Example) -> tuple[Message, ...]:
    if isinstance(example.prompt, str):
        raise UserError(Fault("a text can't stand before a conversation", f"example {example.id}", example.prompt))
    return example.prompt
