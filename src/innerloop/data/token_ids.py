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
    """

    id: str
    tokens: tuple[int, ...]
    prompt: int
    prefix: int = 0
    end: int = 1
    stop: End = End()
    opening: str = ""

    @property
    def scored(self) -> tuple[int, ...]:
        """The token ids that are scored."""
        return self.tokens[self.prompt :]


class Start(NamedTuple):
    """The ids before an answer, the text that the chat template writes before it, and what ends it."""

    tokens: tuple[int, ...]
    opening: str
    stop: End
