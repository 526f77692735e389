"""What a kind of house style is made of: its inputs, the aspects that a customer decides, and how both become text.

Kind        inputs, aspects and the function that writes
Style       aspect -> the value that a customer chose
drawn       a style at a difficulty
locales     locale -> what is taken from CLDR
cased       a text in one of the CASES: as it is, upper or lower
framed      a text within what is written around it
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any, NamedTuple

from innerloop.data.suites.drawing import Difficulty

Items = tuple[Any, ...]
Style = Mapping[str, Any]
Groups = Sequence[Sequence[Any]]  # values in groups that are equally likely; the plain value comes first of all

# Aspects of a style that differ from the plain one: its first, which says most, and others
CHANGES: dict[Difficulty, int] = {"easy": 2, "default": 3, "hard": 5}
CASES: Groups = (("as is",), ("upper", "lower"))


class Kind(NamedTuple):
    """A kind of thing that customers write each in their own way.

    columns   an input has one item of each; no two combinations look alike, case and white space aside
    shown     an input's items -> the text that the prompt has
    aspects   name -> the values to choose from
    written   an input's items and a style -> the text that the customer would write
    """

    columns: tuple[Sequence[Any], ...]
    shown: Callable[..., str]
    aspects: dict[str, Groups]
    written: Callable[[Items, Style], str]

    @property
    def size(self) -> int:
        """How many inputs there are."""
        return math.prod(map(len, self.columns))

    def items(self, number: int) -> Items:
        """The input of a number below `size`."""
        chosen: list[Any] = []
        for column in reversed(self.columns):
            number, place = divmod(number, len(column))
            chosen.append(column[place])
        return tuple(reversed(chosen))


def drawn(kind: Kind, difficulty: Difficulty, rng: Random) -> Style:
    """A style that differs from the plain one in as many aspects as the difficulty says, the first among them."""
    first, *others = kind.aspects
    changed = {first, *rng.sample(others, CHANGES[difficulty] - 1)}
    return {name: _another(groups, rng) if name in changed else groups[0][0] for name, groups in kind.aspects.items()}


def _another(groups: Groups, rng: Random) -> Any:
    """A value that is not the plain one."""
    plain = groups[0][0]
    return rng.choice(
        rng.choice([others for group in groups if (others := [value for value in group if value != plain])])
    )


@cache
def locales() -> dict[str, dict[str, Any]]:
    """Patterns and names of CLDR, as they were when the file was written: a newer release would change tasks."""
    rows = json.loads(files("innerloop.data.suites").joinpath("cldr.json").read_text("utf-8"))
    return {name: row for name, row in rows.items() if isinstance(row, dict)}


def cased(text: str, case: str) -> str:
    return {"as is": text, "upper": text.upper(), "lower": text.lower()}[case]


def framed(text: str, around: str) -> str:
    """A text within what a customer writes around it; a full stop ends it once."""
    return around.replace("{}", text.removesuffix(".") if around == "{}." else text)
