import functools
import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from innerloop.data.suites import science
from innerloop.data.suites.drawing import DIFFICULTIES, Difficulty
from innerloop.data.tasks import Example


@functools.cache
def drawn(family: str, difficulty: Difficulty = "default", size: int = 60) -> list[Example]:
    return list(islice(science.examples(family, difficulty, Random(3)), size))


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<![A-Za-z^\d.])\d+(?:\.\d+)?", text)]


def question(example: Example) -> str:
    return str(example.prompt).removeprefix("Question: ").removesuffix("\nAnswer:")


def answer(example: Example) -> float:
    return numbers(example.answer)[0]


def test_there_are_enough_families() -> None:
    assert len(science.FAMILIES) >= 9


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("family", science.FAMILIES)
def test_answers_are_short_and_their_verifier_tells_them_from_others(family: str, difficulty: Difficulty) -> None:
    verify = science.family_verifier(family)
    for example in drawn(family, difficulty, size=30):
        assert re.fullmatch(r" \d{1,7}(\.\d)?( [A-Za-z/^0-9]+)?", example.answer)
        assert answer(example) > 0
        assert verify(example, example.answer) == 1.0
        value, unit = answer(example), example.answer.strip().partition(" ")[2]
        assert verify(example, f"{value + max(1, value / 20):g} {unit}") == 0.0
        assert verify(example, f"{value:g} Pa*mol") == 0.0


@pytest.mark.parametrize("family", science.LAWS)
def test_a_product_law_multiplies_or_divides(family: str) -> None:
    asked = set()
    for example in drawn(family, "hard", size=80):
        left, right = numbers(question(example))
        unit = example.answer.split()[1]
        asked.add(unit)
        wanted = left * right if unit == science.LAWS[family].units[0] else left / right
        assert answer(example) == pytest.approx(max(wanted, 1 / wanted) if wanted < 1 else wanted), example
    assert asked == set(science.LAWS[family].units)


def test_motion_and_energy() -> None:
    for example in drawn("kinematics", "hard"):
        start, rate, time = numbers(question(example))
        far = start * time + rate * time**2 / 2
        assert answer(example) == (far if "How far" in question(example) else start + rate * time)
    for example in drawn("kinetic_energy"):
        mass, speed = numbers(question(example))
        assert answer(example) == mass * speed**2 / 2


def test_gases_solutions_and_decay() -> None:
    for example in drawn("ideal_gas"):
        before, volume, after = numbers(question(example))
        ratio = before / after if "atm" in question(example) else after / before
        assert answer(example) == pytest.approx(volume * ratio)
    for example in drawn("dilution"):
        before, strength, after = numbers(question(example))
        assert answer(example) == pytest.approx(strength * before / after)
    for example in drawn("half_life", "hard"):
        start, period, elapsed = numbers(question(example))
        assert answer(example) == start / 2 ** round(elapsed / period)


def test_the_general_gas_law() -> None:
    general = [example for example in drawn("ideal_gas", "hard") if "mol" in question(example)]
    assert general
    for example in general:
        _, amount, heat, pressure = numbers(question(example))
        assert answer(example) == pytest.approx(amount * 0.082057 * heat / pressure, abs=0.06)


def test_conversions_go_both_ways() -> None:
    factors = {
        ("km", "m"): 1000,
        ("m", "cm"): 100,
        ("cm", "mm"): 10,
        ("kg", "g"): 1000,
        ("L", "mL"): 1000,
        ("h", "min"): 60,
        ("min", "s"): 60,
        ("days", "h"): 24,
        ("kJ", "J"): 1000,
        ("kPa", "Pa"): 1000,
    }
    both = factors | {(small, large): 1 / factor for (large, small), factor in factors.items()}
    seen = set()
    for example in drawn("unit_conversion", size=300):
        _, value, given, _, wanted = question(example).rstrip(".").split()
        seen.add((given, wanted))
        assert answer(example) == pytest.approx(float(value) * both[given, wanted])
    assert seen == set(both)


def test_offspring_follow_the_punnett_square() -> None:
    for example in drawn("genetics"):
        cross, total, wanted = re.findall(r"Cross (\w+ x \w+)\. How many of (\d+) .* be (\w+)\?", question(example))[0]
        one, other = cross.split(" x ")
        children = [sorted(first + second) for first in one for second in other]
        assert answer(example) == int(total) * children.count(sorted(wanted)) / 4
        assert len({*one, *other}) <= 2


def atoms(formula: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for symbol, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula):
        counts[symbol] += int(number or 1)
    return counts


@pytest.mark.parametrize("reaction", science.REACTIONS)
def test_reactions_are_balanced(reaction: str) -> None:
    sides = []
    for side in reaction.split(" -> "):
        total: Counter[str] = Counter()
        for term in side.split(" + "):
            number, _, formula = term.rpartition(" ")
            total.update({symbol: int(number or 1) * count for symbol, count in atoms(formula).items()})
        sides.append(total)
    assert sides[0] == sides[1]
    assert atoms("H2O") != atoms("H2O2")


def test_amounts_follow_the_reaction() -> None:
    known = {question(example): example.answer for example in drawn("stoichiometry", "easy", size=2000)}
    assert known["N2 + 3 H2 -> 2 NH3. How many mol of NH3 go with 6 mol of H2?"] == " 4 mol"
    assert known["2 CO + O2 -> 2 CO2. How many mol of O2 go with 3 mol of CO?"] == " 1.5 mol"


@pytest.mark.parametrize(
    ("salt", "mass"),
    [
        ("NaCl", 58),
        ("CaCl2", 111),
        ("Ca(OH)2", 74),
        ("Al2(SO4)3", 342),
        ("Na3PO4", 164),
        ("MgO", 40),
        ("KNO3", 101),
    ],
)
def test_salts_are_neutral_and_weigh_what_they_weigh(salt: str, mass: int) -> None:
    known = {question(example): example for example in drawn("molar_mass", "hard", size=12_000)}
    assert known[f"What is the mass of 1 mol of {salt}, to the nearest gram?"].answer == f" {mass} g"
