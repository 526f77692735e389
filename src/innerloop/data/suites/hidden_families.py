"""The families of hidden rules: what their tasks ask, and how hard.

Level      how one difficulty of a family draws its inputs and its rules
FAMILIES   family -> its easy, default and hard level
"""

from typing import NamedTuple

from innerloop.data.suites.drawn_rules import (
    OPERATIONS,
    RELATIONS,
    DrawInput,
    DrawRule,
    Input,
    affine,
    cut,
    each,
    inserted,
    labelled,
    measured,
    numbers,
    one_of_a_kind,
    operated,
    ordered,
    picked,
    related,
    replaced,
    sample,
    shifted,
    spelled,
)
from innerloop.data.suites.words import (
    COLOURS,
    DAYS,
    DIGITS,
    DIRECTIONS,
    KIND_OF,
    LETTERS,
    MEASURES,
    MONTHS,
    WORD_KINDS,
    WORDS,
)


class Level(NamedTuple):
    """One difficulty of a family."""

    draw_input: DrawInput
    draw_rule: DrawRule


LONGER_WORDS = [word for word in WORDS if len(word) >= 4]
FIRST = ("first", "last", "largest", "smallest")
AMOUNTS = numbers(1, 28)


def _last_digit(items: Input) -> str:
    return items[0][-1]


def _kind(items: Input) -> str:
    return KIND_OF[items[0]]


def _itself(item: str) -> str:
    return item


FAMILIES: dict[str, tuple[Level, Level, Level]] = {
    "affine": (
        Level(each(numbers(0, 199)), affine((1,), 12)),
        Level(each(numbers(0, 199)), affine((1, 2), 12)),
        Level(each(numbers(0, 499)), affine((2, 3, 4, 5), 30)),
    ),
    "units": (
        Level(each(AMOUNTS, MEASURES), measured((1,), 0)),
        Level(each(AMOUNTS, MEASURES), measured((1,), 9)),
        Level(each(AMOUNTS, MEASURES), measured((2, 3, 4), 20)),
    ),
    "list_operation": (
        Level(each(*[DIGITS] * 3), operated(FIRST, 7)),
        Level(each(*[DIGITS] * 3), operated((*FIRST, "sum", "middle"), 9)),
        Level(each(*[numbers(0, 19)] * 4), operated(tuple(OPERATIONS), 9)),
    ),
    "last_digit": (
        Level(each(numbers(0, 999)), labelled(_last_digit, DIGITS, 2)),
        Level(each(numbers(0, 999)), labelled(_last_digit, DIGITS, 3)),
        Level(each(numbers(0, 9999)), labelled(_last_digit, DIGITS, 5)),
    ),
    "threshold": (
        Level(each(numbers(0, 199)), cut(200, 2)),
        Level(each(numbers(0, 999)), cut(1000, 3)),
        Level(each(numbers(0, 999)), cut(1000, 5)),
    ),
    "comparison": (
        Level(each(*[numbers(0, 99)] * 2), related(("greater",))),
        Level(each(*[numbers(0, 99)] * 2), related(("greater", "greater last digit"))),
        Level(each(*[numbers(0, 99)] * 2), related(tuple(RELATIONS))),
    ),
    "category": (
        Level(each(WORDS), labelled(_kind, tuple(WORD_KINDS), 2)),
        Level(each(WORDS), labelled(_kind, tuple(WORD_KINDS), 3)),
        Level(each(WORDS), labelled(_kind, tuple(WORD_KINDS), 6)),
    ),
    "digit_cipher": (
        Level(each(*[DIGITS[:6]] * 3), replaced(DIGITS[:6], DIGITS)),
        Level(each(*[DIGITS] * 3), replaced(DIGITS, DIGITS)),
        Level(each(*[DIGITS] * 4), replaced(DIGITS, DIGITS)),
    ),
    "word_map": (
        Level(each(*[WORDS[:6]] * 3), replaced(WORDS[:6], WORDS[:6])),
        Level(each(*[WORDS[:8]] * 3), replaced(WORDS[:8], WORDS[:8])),
        Level(each(*[WORDS[:16]] * 3), replaced(WORDS[:16], WORDS[:16])),
    ),
    "colour_direction": (
        Level(each(*[COLOURS[:4]] * 4), replaced(COLOURS[:4], DIRECTIONS[:4])),
        Level(each(*[COLOURS[:6]] * 3), replaced(COLOURS[:6], DIRECTIONS)),
        Level(each(*[COLOURS] * 4), replaced(COLOURS, DIRECTIONS)),
    ),
    "letter_shift": (
        Level(each(*[LETTERS] * 2), shifted(LETTERS, most=13)),
        Level(each(*[LETTERS] * 3), shifted(LETTERS, most=25)),
        Level(each(*[LETTERS] * 4), shifted(LETTERS, LETTERS, most=25)),
    ),
    "date_offset": (
        Level(each(DAYS, AMOUNTS), shifted(DAYS, AMOUNTS, most=4)),
        Level(each(DAYS, MONTHS, AMOUNTS), shifted(DAYS, MONTHS, AMOUNTS, most=6)),
        Level(each(DAYS, MONTHS, AMOUNTS), shifted(DAYS, MONTHS, AMOUNTS, most=11)),
    ),
    "index_pick": (
        Level(sample(WORDS, 4), picked(4, 2)),
        Level(sample(WORDS, 5), picked(5, 2)),
        Level(sample(WORDS, 6), picked(6, 3)),
    ),
    "reorder": (
        Level(sample(LETTERS, 4), picked(4, 4)),
        Level(sample(LETTERS, 5), picked(5, 5)),
        Level(sample(LETTERS, 6), picked(6, 6)),
    ),
    "letter_pick": (
        Level(each(LONGER_WORDS), spelled((0, 1, 2, -1), 2)),
        Level(each(LONGER_WORDS), spelled((0, 1, 2, -2, -1), 2)),
        Level(each(LONGER_WORDS), spelled((0, 1, 2, -2, -1), 3)),
    ),
    "insertion": (
        Level(sample(WORDS, 2), inserted(2)),
        Level(sample(WORDS, 3), inserted(3)),
        Level(sample(WORDS, 5), inserted(5)),
    ),
    "hidden_order": (
        Level(sample(LETTERS[:7], 3), ordered(LETTERS[:7], _itself, keep=3)),
        Level(sample(LETTERS[:8], 3), ordered(LETTERS[:8], _itself, keep=3)),
        Level(sample(LETTERS[:9], 4), ordered(LETTERS[:9], _itself, keep=4)),
    ),
    "kind_order": (
        Level(one_of_a_kind(3, 5), ordered(tuple(WORD_KINDS)[:5], KIND_OF.__getitem__, keep=2)),
        Level(one_of_a_kind(3, 6), ordered(tuple(WORD_KINDS), KIND_OF.__getitem__, keep=2)),
        Level(one_of_a_kind(4, 6), ordered(tuple(WORD_KINDS), KIND_OF.__getitem__, keep=3)),
    ),
}
