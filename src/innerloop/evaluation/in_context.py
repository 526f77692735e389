"""In-context learning of a model as it stands: the support examples stand in the prompt, and nothing is trained.

Legend: k = support examples.

in_context_task      an encoded task with k examples before each test example
too_long             the faults of tasks whose prompts the model has no positions for
prompt_faults        the same of tasks in context, for all that a protocol draws
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask
from innerloop.data.in_context import BLANK_LINE
from innerloop.data.tasks import Example
from innerloop.data.token_ids import Encoded
from innerloop.errors import Fault
from innerloop.evaluation.generation import allowance, prompt_of
from innerloop.evaluation.kshot import draw_support
from innerloop.evaluation.protocol import Protocol


def in_context_task(task: EncodedTask, support: Sequence[Encoded], encoder: Encoder) -> EncodedTask:
    """The task with in-context prompts as the encodings of its test examples, in the same order.

    support  encodings from the task's pool; without any, the prompts stay, and an answer to a text ends at a blank line
             or an end token, where no answer holds one: a model that nothing trained isn't asked for an end token
    Raises UserError as `Encoder.in_context` does.
    """
    if support:
        return replace(encoder.in_context(task).behind(support), in_context=None)
    ended = [_ended(test, encoded, encoder) for test, encoded in zip(task.task.test, task.test, strict=True)]
    return replace(task, test=tuple(ended), in_context=None)


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
            right = f"at most {positions}, the model's max_position_embeddings: a smaller k, or no examples in prompts"
            faults.append(Fault("the examples and an answer are too long for the model", where, needed, right))
    return faults


def prompt_faults(tasks: Sequence[EncodedTask], protocol: Protocol, *, positions: int | None) -> list[Fault]:
    """Of the largest k; none of tasks whose examples stand alone."""
    found, k = dict[str, Fault](), max(protocol.k)
    fitting = [task for task in tasks if task.in_context and len(task.pool) >= k]
    for draw in range(protocol.draws):
        drawn = [draw_support(task, k, seed=protocol.seed, draw=draw) for task in fitting]
        shown = [task.behind(support) for task, support in zip(fitting, drawn, strict=True)]
        most = {"positions": positions, "max_new_tokens": protocol.max_new_tokens}
        found = {fault.where: fault for fault in too_long(shown, k, **most)} | found
    return list(found.values())


def _ended(test: Example, encoded: Encoded, encoder: Encoder) -> Encoded:
    """The encoding, whose prompt may have been cut, with a blank line as its answer's end."""
    if not isinstance(test.prompt, str) or BLANK_LINE in test.answer.strip():
        return encoded
    other, prompt = encoder.encode(test, separator=BLANK_LINE), prompt_of(encoded)
    return other._replace(tokens=prompt + other.scored, prompt=len(prompt))
