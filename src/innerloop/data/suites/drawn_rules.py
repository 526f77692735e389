"""How inputs and rules are drawn: each function returns a drawer, which takes a random generator.

Input, Rule                     an input's items, and what a rule makes of them
each, sample, one_of_a_kind     drawers of inputs
affine ... ordered              drawers of rules; what is hidden is drawn with the rule, never in an input
"""

from collections.abc import Callable, Sequence
from itertools import cycle
from random import Random

from innerloop.data.suites.words import LABELS, MEASURES, WORD_KINDS

Input = tuple[str, ...]
Rule = Callable[[Input], str]
DrawInput = Callable[[Random], Input]
DrawRule = Callable[[Random], Rule]


def each(*columns: Sequence[str]) -> DrawInput:
    """One item of every column."""
    return lambda rng: tuple(rng.choice(column) for column in columns)


def sample(words: Sequence[str], size: int) -> DrawInput:
    """Different items of one list."""
    return lambda rng: tuple(rng.sample(words, size))


def one_of_a_kind(size: int, kinds: int) -> DrawInput:
    """Words of different kinds, out of the first `kinds` kinds."""
    names = list(WORD_KINDS)[:kinds]
    return lambda rng: tuple(rng.choice(WORD_KINDS[name]) for name in rng.sample(names, size))


def numbers(low: int, high: int) -> Sequence[str]:
    return [str(number) for number in range(low, high + 1)]


def affine(slopes: Sequence[int], largest_offset: int) -> DrawRule:
    """A number times a hidden slope plus a hidden offset."""

    def draw(rng: Random) -> Rule:
        slope, offset = rng.choice(slopes), rng.randint(1, largest_offset)
        return lambda items: str(slope * int(items[0]) + offset)

    return draw


def measured(factors: Sequence[int], largest_offset: int) -> DrawRule:
    """An amount under a hidden affine map, its unit under a hidden permutation."""

    def draw(rng: Random) -> Rule:
        factor, offset = rng.choice(factors), rng.randint(0, largest_offset)
        unit_of = dict(zip(MEASURES, rng.sample(MEASURES, len(MEASURES)), strict=True))
        return lambda items: f"{factor * int(items[0]) + offset} {unit_of[items[1]]}"

    return draw


OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "largest": max,
    "smallest": min,
    "sum": sum,
    "middle": lambda values: sorted(values)[len(values) // 2],
    "spread": lambda values: max(values) - min(values),
}


def operated(names: Sequence[str], largest_offset: int) -> DrawRule:
    """A hidden operation on a list of numbers, plus a hidden offset."""

    def draw(rng: Random) -> Rule:
        operation, offset = OPERATIONS[rng.choice(names)], rng.randint(0, largest_offset)
        return lambda items: str(operation([int(item) for item in items]) + offset)

    return draw


def labelled(feature: Callable[[Input], str], values: Sequence[str], groups: int) -> DrawRule:
    """A hidden partition of a feature's values into equal groups, and a hidden label for each."""

    def draw(rng: Random) -> Rule:
        labels = rng.sample(LABELS, groups)
        order = rng.sample(values, len(values))
        label_of = {value: labels[place % groups] for place, value in enumerate(order)}
        return lambda items: label_of[feature(items)]

    return draw


def cut(top: int, groups: int) -> DrawRule:
    """Hidden thresholds on a number below `top`, near its quantiles, and a hidden label for each range."""

    def draw(rng: Random) -> Rule:
        labels = rng.sample(LABELS, groups)
        slack = top // (8 * groups)
        cuts = [top * part // groups + rng.randint(-slack, slack) for part in range(1, groups)]
        return lambda items: labels[sum(int(items[0]) >= place for place in cuts)]

    return draw


RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "greater": lambda left, right: left > right,
    "greater last digit": lambda left, right: left % 10 > right % 10,
    "sum of 100 or more": lambda left, right: left + right >= 100,
    "same parity": lambda left, right: (left + right) % 2 == 0,
}


def related(names: Sequence[str]) -> DrawRule:
    """A hidden relation between two numbers, and hidden labels for where it holds and where it does not."""

    def draw(rng: Random) -> Rule:
        relation, labels = RELATIONS[rng.choice(names)], rng.sample(LABELS, 2)
        return lambda items: labels[relation(int(items[0]), int(items[1]))]

    return draw


def replaced(symbols: Sequence[str], targets: Sequence[str]) -> DrawRule:
    """A hidden one-to-one map, item by item."""

    def draw(rng: Random) -> Rule:
        target_of = dict(zip(symbols, rng.sample(targets, len(symbols)), strict=True))
        return lambda items: " ".join(target_of[item] for item in items)

    return draw


def shifted(*cycles: Sequence[str], most: int) -> DrawRule:
    """Every item moved a hidden number of steps along its cycle; the cycles repeat over the items."""

    def draw(rng: Random) -> Rule:
        moved: list[dict[str, str]] = []
        for symbols in cycles:
            step = rng.randint(1, min(most, len(symbols) - 1))
            moved.append(dict(zip(symbols, [*symbols[step:], *symbols[:step]], strict=True)))
        return lambda items: " ".join(move[item] for item, move in zip(items, cycle(moved), strict=False))

    return draw


def picked(size: int, picks: int) -> DrawRule:
    """The items at hidden places, in a hidden order; never all of them as they stand."""

    def draw(rng: Random) -> Rule:
        places = rng.sample(range(size), picks)
        while places == list(range(size)):
            places = rng.sample(range(size), picks)
        return lambda items: " ".join(items[place] for place in places)

    return draw


def spelled(places: Sequence[int], picks: int) -> DrawRule:
    """The letters at hidden places of a word."""

    def draw(rng: Random) -> Rule:
        chosen = rng.sample(places, picks)
        return lambda items: " ".join(items[0][place] for place in chosen)

    return draw


def inserted(size: int) -> DrawRule:
    """A hidden word put in at a hidden place."""

    def draw(rng: Random) -> Rule:
        place, word = rng.randint(0, size), rng.choice(LABELS)
        return lambda items: " ".join((*items[:place], word, *items[place:]))

    return draw


def ordered(symbols: Sequence[str], feature: Callable[[str], str], keep: int) -> DrawRule:
    """The first `keep` items in a hidden order of their feature."""

    def draw(rng: Random) -> Rule:
        rank = {symbol: place for place, symbol in enumerate(rng.sample(symbols, len(symbols)))}
        return lambda items: " ".join(sorted(items, key=lambda item: rank[feature(item)])[:keep])

    return draw
