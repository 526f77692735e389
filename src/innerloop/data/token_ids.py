"""An example as a model reads it: token ids, and what is scored of them.

Encoded   token ids of one example, and which of them are scored
Start     what a generation starts from
End       what ends one
"""

from typing import NamedTuple


class End(NamedTuple):
    """What ends a generation: these token ids in a row, or this text in what was written; empty = that doesn't."""

    tokens: tuple[int, ...] = ()
    text: str = ""


class Encoded(NamedTuple):
    """One example's token ids: `prompt` of them, at least one, and then what is scored.

    That is `prefix` tokens that the chat template writes before the answer, the answer's, and `end` tokens behind it.
    A token that reaches over a border is the answer's.

    stop     what ends a generation
    opening  the text before the answer that the `prefix` tokens belong to
    between  of a prompt with several scored answers: where, behind the first, one ends and the next begins. The last
             answer is the one that is asked: `prefix`, `end`, `stop` and `opening` are its own
    """

    id: str
    tokens: tuple[int, ...]
    prompt: int
    prefix: int = 0
    end: int = 1
    stop: End = End()
    opening: str = ""
    between: tuple[tuple[int, int], ...] = ()

    @property
    def answers(self) -> list[range]:
        """Where the tokens of each scored answer are."""
        starts = (self.prompt, *(stop for _, stop in self.between))
        stops = (*(start for start, _ in self.between), len(self.tokens))
        return [range(start, stop) for start, stop in zip(starts, stops, strict=True)]

    @property
    def asked(self) -> int:
        """Where the last answer begins: how many tokens it is asked with."""
        return self.between[-1][1] if self.between else self.prompt

    @property
    def scored(self) -> tuple[int, ...]:
        """The token ids that are scored."""
        return tuple(self.tokens[place] for answer in self.answers for place in answer)


class Start(NamedTuple):
    """The ids before an answer, the text that the chat template writes before it, and what ends it."""

    tokens: tuple[int, ...]
    opening: str
    stop: End
