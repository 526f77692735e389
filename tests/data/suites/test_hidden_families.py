"""What a level draws: inputs that its own rules can read, and rules that tell its tasks apart."""

from itertools import pairwise
from random import Random

import pytest

from innerloop.data.suites.drawing import DIFFICULTIES
from innerloop.data.suites.hidden_families import FAMILIES, Level

LEVELS = [(family, level) for family, levels in FAMILIES.items() for level in levels]


def drawn(level: Level, seed: int) -> tuple[list[tuple[str, ...]], list[str]]:
    """Inputs of a level, and what a rule of it makes of them."""
    rng = Random(seed)
    inputs = [level.draw_input(rng) for _ in range(60)]
    rule = level.draw_rule(rng)
    return inputs, [rule(items) for items in inputs]


def test_a_family_has_a_level_for_each_difficulty() -> None:
    assert {len(levels) for levels in FAMILIES.values()} == {len(DIFFICULTIES)}


@pytest.mark.parametrize(("family", "level"), LEVELS)
def test_a_rule_reads_every_input_of_its_level_and_says_one_line(family: str, level: Level) -> None:
    for seed in range(20):
        inputs, answers = drawn(level, seed)
        assert len({*inputs}) > 10
        assert all(item and item == item.strip() for items in inputs for item in items)
        assert all(answer and answer == answer.strip() and "\n" not in answer for answer in answers), family
        assert (inputs, answers) == drawn(level, seed), "all of it is the generator's"


@pytest.mark.parametrize(("family", "level"), LEVELS)
def test_another_rule_answers_the_same_inputs_in_another_way(family: str, level: Level) -> None:
    rng = Random(1)
    inputs = [level.draw_input(rng) for _ in range(60)]
    said = [tuple(map(level.draw_rule(rng), inputs)) for _ in range(12)]
    assert len({*said}) > 2, family
    assert all(len({*answers}) > 1 for answers in said), "no rule says one thing to all"


def test_a_harder_level_is_another() -> None:
    for family, levels in FAMILIES.items():
        for easier, harder in pairwise(levels):
            assert any(drawn(easier, seed) != drawn(harder, seed) for seed in range(20)), family
