"""Prompts with examples in them: earlier prompts with their answers, then one that asks.

Legend: k = examples before the one that is asked.

A text's blocks end with a blank line, and so does the answer that is asked for: in training, in generation and in nats
the separator stands where the end token stands elsewhere, since that is the end that the prompt shows. Conversations
stand as earlier turns, and end as their template has it.

InContext     one task's examples, and the prompts that are made of them
separator_of  what divides the blocks of a task, which no answer may hold
Asks          whether an example stands alone in its prompt, or behind others of its task
LEFT_OUT      prompts of an inner step on leave-one-out prompts, where nothing else is asked for
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from innerloop.data.tasks import Example, Message, Task
from innerloop.data.token_ids import Encoded, Start
from innerloop.data.tokens import Reader
from innerloop.errors import Fault, UserError

SYSTEM = ("system", "developer")
BLANK_LINE = "\n\n"
SEPARATORS = (BLANK_LINE, "\n\n###\n\n")  # the first that no answer holds
LEFT_OUT = 4

Asks = Literal["alone", "in-context"]


def separator_of(task: Task) -> str:
    """Raises UserError where an answer holds each of those that there are: it would be cut there."""
    answers = [example.answer.strip() for example in (*task.pool, *task.test)]
    for separator in SEPARATORS:
        if not any(separator in answer for answer in answers):
            return separator
    right = f"answers without one of {', '.join(map(repr, SEPARATORS))}, or each example alone in its prompt"
    raise UserError(Fault("answers hold every separator of an in-context prompt", f"task {task.name}", expected=right))


class InContext:
    """One task's examples, and the prompts that are made of them.

    A prompt of texts is put together from each example's own token ids, with the separator in place of the end token; a
    prompt of conversations is one conversation, as the chat template writes it, where a system message that all begin
    with is said once. So training and use read the same ids of the same examples.

    examples, encoded  of the task, in the same order; named by their ids below
    reader             with the task's separator; None where the tokenizer isn't here: ids stand as they are encoded
    Raises UserError for a task of both texts and conversations.
    """

    def __init__(self, examples: Sequence[Example], encoded: Sequence[Encoded], reader: Reader | None) -> None:
        self.reader = reader
        self.examples = {each.id: each for each in examples}
        self.encoded = {each.id: each for each in encoded}
        texts = [isinstance(each.prompt, str) for each in examples]
        self.of_texts = all(texts)
        if any(texts) and not self.of_texts:
            problem = "a text and a conversation can't stand in one prompt"
            right = "one form for all examples of a task, or each example alone in its prompt"
            raise UserError(Fault(problem, examples[texts.index(True)].named, expected=right))

    def asked(self, example: Encoded, behind: Sequence[Encoded] = ()) -> Encoded:
        """The prompt that asks the example behind others, whose answers aren't scored. Its id is the example's."""
        names = [each.id for each in (*behind, example)]
        if not self.of_texts:
            return self._talk(names)
        tokens, answers = self._joined(names)
        return self._blocks[example.id]._replace(tokens=tokens, prompt=answers[-1].start)

    def every(self, examples: Sequence[Encoded]) -> Encoded:
        """One prompt of all the examples: every answer is scored, given those before it."""
        names = [each.id for each in examples]
        if self.of_texts:
            last = self._blocks[names[-1]]
            tokens, answers = self._joined(names)
        else:
            last = self._talk(names)
            tokens, answers = last.tokens, list(self._turns(names, last))
        between = tuple((one.stop, other.start) for one, other in pairwise(answers))
        return last._replace(tokens=tokens, prompt=answers[0].start, between=between)

    def start(self, asked: Example, behind: Sequence[Encoded] = ()) -> Start:
        """What the generation of an answer that isn't known starts from, behind these examples.

        Raises UserError for a text behind conversations, and for a conversation behind texts.
        """
        assert self.reader is not None
        names = [each.id for each in behind]
        if isinstance(asked.prompt, str) != self.of_texts and names:
            right = "a text, since the examples are texts" if self.of_texts else "a conversation, as the examples are"
            raise UserError(Fault("can't stand behind the task's examples", value=asked.prompt, expected=right))
        if not isinstance(asked.prompt, str):
            return self.reader.start(_conversation([*(self.examples[name] for name in names), asked]))
        start = self.reader.start(asked)
        own = start.tokens[len(self._begin(start.tokens)) :] if names else start.tokens
        return start._replace(tokens=self._joined(names)[0] + own)

    def shown(self, examples: Sequence[Encoded]) -> dict[str, Any]:
        """For JSON: what other programs put before a prompt, and where they end its answer."""
        assert self.reader is not None
        own = [self.examples[each.id] for each in examples]
        if not self.of_texts:
            turns = [*_messages(_conversation(own).prompt), Message("assistant", own[-1].answer)]
            how = "messages, then the user's next turn, in the base model's chat template"
            return {"use": how, "messages": [turn._asdict() for turn in turns]}
        separator, records = self.reader.separator, [{"prompt": e.prompt, "completion": e.answer} for e in own]
        prefix = "".join(f"{each.prompt}{each.answer}{separator}" for each in own)
        how = "prefix, then a prompt like the examples'; the answer ends at the separator, or at the end token"
        tokens = list(self._joined([each.id for each in examples])[0])
        return {"use": how, "separator": separator, "prefix": prefix, "prefix_ids": tokens, "examples": records}

    def left_out(
        self, support: Sequence[Encoded], *, steps: int, batch_size: int | None = None, chance: Sequence[int] = ()
    ) -> list[list[Encoded]]:
        """The prompts of each inner step: each asks one support example behind the others, in an order drawn anew.

        Step after step goes round the support. An order is a function of `chance`, the support and the step.
        """
        known = zlib.crc32("".join(each.id for each in support).encode())
        size = min(batch_size or LEFT_OUT, len(support))
        found: list[list[Encoded]] = []
        for step in range(steps):
            random = np.random.default_rng([*chance, known, 1 + step])
            places = [(step * size + place) % len(support) for place in range(size)]
            orders = [[int(p) for p in random.permutation(len(support)) if p != place] for place in places]
            pairs = zip(places, orders, strict=True)
            found.append([self.asked(support[place], [support[p] for p in order]) for place, order in pairs])
        return found

    def drawn(self, query: Sequence[Encoded], support: Sequence[Encoded], *, chance: Sequence[int]) -> list[Encoded]:
        """Each query example behind 0 to all of the support examples, as many and in an order as `chance` has it."""
        random = np.random.default_rng([*chance, 0])
        found: list[Encoded] = []
        for example in query:
            count = int(random.integers(len(support) + 1))
            found.append(self.asked(example, [support[p] for p in random.permutation(len(support))[:count]]))
        return found

    @cached_property
    def _blocks(self) -> dict[str, Encoded]:
        """Each text's own ids, with the separator behind its answer."""
        if self.reader is None:
            return self.encoded
        found, examples = dict[str, Encoded](), list(self.examples.values())
        for example, other in zip(examples, self.reader.encoded(examples), strict=True):
            if isinstance(other, UserError):
                raise other
            own = self.encoded[example.id]  # its prompt may have been cut
            prompt = own.tokens[: own.prompt]
            found[example.id] = other._replace(tokens=prompt + other.scored, prompt=len(prompt))
        return found

    def _joined(self, names: Sequence[str]) -> tuple[tuple[int, ...], list[range]]:
        """The blocks one behind the other, and where their answers are. A begin token stands before the first alone."""
        tokens, answers = list[int](), list[range]()
        for name in names:
            block = self._blocks[name]
            cut = len(self._begin(block.tokens)) if tokens else 0
            start = len(tokens) + block.prompt - cut
            tokens += block.tokens[cut:]
            answers.append(range(start, len(tokens)))
        return tuple(tokens), answers

    def _begin(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        begins = self.reader is not None and tokens[:1] == (self.reader.tokenizer.bos_token_id,)
        return tokens[: int(begins)]

    def _talk(self, names: Sequence[str]) -> Encoded:
        """The conversation of these examples, in which the last answer is scored."""
        if self.reader is None:
            tokens, answers = self._joined(names)
            return self.encoded[names[-1]]._replace(tokens=tokens, prompt=answers[-1].start)
        (found,) = self.reader.encoded([_conversation([self.examples[name] for name in names])])
        if isinstance(found, UserError):
            raise found
        return found._replace(id=names[-1])

    def _turns(self, names: Sequence[str], whole: Encoded) -> Iterator[range]:
        """Where each answer is: the conversation up to there has to be how the whole begins."""
        for count in range(1, len(names)):
            part = self._talk(names[:count])
            if whole.tokens[: len(part.tokens)] != part.tokens:
                problem = "the chat template writes an answer otherwise when more turns follow, so it can't be learned"
                where = self.examples[names[count - 1]].named
                right = "another model, or tasks.prompt: alone"
                raise UserError(Fault(f"{problem} in context", where, expected=right))
            yield range(part.prompt, len(part.tokens))
        yield range(whole.prompt, len(whole.tokens))


def _conversation(examples: Sequence[Example]) -> Example:
    """The last example behind the turns of the others."""
    *earlier, asked = examples
    opening = _opening(asked.prompt)
    turns: list[Message] = list(opening)
    for example in earlier:
        same = _opening(example.prompt) == opening
        turns += [*_messages(example.prompt)[len(opening) if same else 0 :], Message("assistant", example.answer)]
    return Example((*turns, *_messages(asked.prompt)[len(opening) :]), asked.answer, template=asked.template)


def _messages(prompt: str | tuple[Message, ...]) -> tuple[Message, ...]:
    assert not isinstance(prompt, str)
    return prompt


def _opening(prompt: str | tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages before anyone speaks: what a chat template takes at the beginning alone."""
    turns = _messages(prompt)
    first = next((index for index, message in enumerate(turns) if message.role not in SYSTEM), len(turns))
    return turns[:first]
