"""In-context learning: the support examples stand in the prompt, and nothing is trained.

Legend: k = support examples.

in_context_prompts   test examples with k examples before each, encoded like any other example
in_context_task      the same for an encoded task, whose verifier and test examples stay
too_long             the faults of tasks whose prompts the model has no positions for
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from innerloop.data.encoder import Encoder
from innerloop.data.encoding import Encoded, EncodedTask
from innerloop.data.tasks import Example, Message
from innerloop.errors import Fault, UserError
from innerloop.evaluation.scoring import MOST_TOKENS, allowance, prompt_of

SYSTEM = ("system", "developer")


def in_context_prompts(support: Sequence[Example], test: Sequence[Example], encoder: Encoder) -> list[Encoded]:
    """Each test example, its prompt behind the support's prompts and answers.

    A text follows blocks of prompt and answer, with a blank line behind each; a conversation follows the others'
    turns, where a system message that all begin with is said once. The ids are not the test examples' own: hidden
    states are kept by id, and these are other tokens.
    Raises UserError where text and conversations would mix, or the chat template refuses the turns.
    """
    return [encoder.encode(_behind(support, example)) for example in test]


def in_context_task(task: EncodedTask, support: Sequence[Encoded], encoder: Encoder) -> EncodedTask:
    """The task with in-context prompts as the encodings of its test examples, in the same order.

    support  encodings from the task's pool
    """
    known = {example.id: example for example in task.task.pool}
    examples = [known[encoded.id] for encoded in support]
    return replace(task, test=tuple(in_context_prompts(examples, task.task.test, encoder)))


def too_long(
    tasks: Iterable[EncodedTask], k: int, *, positions: int | None, most_new_tokens: int = MOST_TOKENS
) -> list[Fault]:
    """A fault for each task of `in_context_task` whose longest prompt and answer need more than `positions` tokens.

    positions  `positions_of` the model; None: it has no limit of its own
    """
    faults: list[Fault] = []
    for task in tasks:
        needed = max(len(prompt_of(example)) for example in task.test) + allowance(task, most=most_new_tokens)
        if positions is not None and needed > positions:
            where = f"task {task.task.name}: k = {k}"
            right = f"at most {positions}, the model's max_position_embeddings: a smaller k, or no in-context arm"
            faults.append(Fault("the examples and an answer are too long for the model", where, needed, right))
    return faults


def _behind(support: Sequence[Example], test: Example) -> Example:
    if isinstance(test.prompt, str):
        blocks = [f"{_text(example)}{example.answer}\n\n" for example in support]
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
