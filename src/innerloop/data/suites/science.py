"""Procedural science problems with small numbers: units through pint, atomic masses through periodictable.

FAMILIES      family -> how a problem is drawn, and its easy, default and hard ranges (tune difficulty here)
examples      an endless stream of a family's examples
family_verifier   how a family's answers are checked
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from random import Random
from typing import Any, NamedTuple

from innerloop.data.suites.drawing import DIFFICULTIES, Difficulty, demo_import
from innerloop.data.suites.quantities import (
    number_text,
    quantity,
    same_number_and_unit,
    same_quantity,
    unit_registry,
)
from innerloop.data.tasks import Example, Verifier

Problem = tuple[str, Any, str]  # question, answer as a pint quantity, the unit it is written in


class Product(NamedTuple):
    """A law a = b * c; one question asks for each of the three."""

    units: tuple[str, str, str]
    questions: tuple[str, str, str]


LAWS = {
    "speed": Product(
        ("m", "m/s", "s"),
        (
            "A cyclist rides at {b} for {c}. How far does she get?",
            "A cyclist rides {a} in {c}. What is her speed?",
            "A cyclist rides {a} at {b}. How long does it take?",
        ),
    ),
    "ohms_law": Product(
        ("V", "ohm", "A"),
        (
            "A current of {c} flows through {b}. What is the voltage?",
            "A voltage of {a} drives a current of {c}. What is the resistance?",
            "A voltage of {a} is put across {b}. What is the current?",
        ),
    ),
    "density": Product(
        ("g", "g/cm^3", "cm^3"),
        (
            "A block of {c} has a density of {b}. What is its mass?",
            "A block of {c} has a mass of {a}. What is its density?",
            "A block of {a} has a density of {b}. What is its volume?",
        ),
    ),
    "newtons_law": Product(
        ("N", "kg", "m/s^2"),
        (
            "A mass of {b} speeds up at {c}. What force acts on it?",
            "A force of {a} speeds a mass up at {c}. What is the mass?",
            "A force of {a} acts on {b}. What is the acceleration?",
        ),
    ),
    "wave_speed": Product(
        ("m/s", "Hz", "m"),
        (
            "A wave has a frequency of {b} and a wavelength of {c}. What is its speed?",
            "A wave of {c} wavelength travels at {a}. What is its frequency?",
            "A wave of {b} travels at {a}. What is its wavelength?",
        ),
    ),
}


def product(rng: Random, law: Product, *, top: int, asked: int) -> Problem:
    """One of the first `asked` questions of a product law, with factors up to `top`."""
    b, c = (quantity(rng.randint(1, top), unit) for unit in law.units[1:])
    values = ((b * c).to(law.units[0]), b, c)
    shown = [f"{number_text(value.m)} {unit}" for value, unit in zip(values, law.units, strict=True)]
    which = rng.randrange(asked)
    question = law.questions[which].format(a=shown[0], b=shown[1], c=shown[2])
    return question, values[which], law.units[which]


def kinematics(rng: Random, *, top: int, asked: int) -> Problem:
    """Final speed under constant acceleration, or the distance covered meanwhile."""
    start, rate, time = (rng.randint(1, top) for _ in range(3))
    speed, acceleration, duration = quantity(start, "m/s"), quantity(rate, "m/s^2"), quantity(time, "s")
    told = f"A car at {start} m/s speeds up at {rate} m/s^2 for {time} s."
    if rng.randrange(asked):
        return f"{told} How far does it get?", speed * duration + acceleration * duration**2 / 2, "m"
    return f"{told} What is its final speed?", speed + acceleration * duration, "m/s"


def kinetic_energy(rng: Random, *, top: int) -> Problem:
    mass, speed, thing = rng.randint(1, top), rng.randint(1, top), rng.choice(("cart", "ball", "sled", "dog"))
    energy = quantity(mass, "kg") * quantity(speed, "m/s") ** 2 / 2
    return f"A {thing} of {mass} kg moves at {speed} m/s. What is its kinetic energy?", energy, "J"


CATIONS = {
    **dict.fromkeys(("Na", "K", "Li", "Ag", "Rb", "Cs"), 1),
    **dict.fromkeys(("Mg", "Ca", "Zn", "Ba", "Cu", "Fe", "Sr", "Ni"), 2),
    **dict.fromkeys(("Al", "Cr"), 3),
}
ANIONS = {
    "Cl": 1,
    "O": 2,
    "Br": 1,
    "S": 2,
    "F": 1,
    "NO3": 1,
    "CO3": 2,
    "SO4": 2,
    "OH": 1,
    "I": 1,
    "PO4": 3,
    "Se": 2,
}


def molar_mass(rng: Random, *, cations: int, anions: int, moles: int) -> Problem:
    """The mass of some moles of a salt of the first so many cations and anions."""
    salt = _salt(rng.choice(list(CATIONS)[:cations]), rng.choice(list(ANIONS)[:anions]))
    amount = rng.randint(1, moles)
    question = f"What is the mass of {amount} mol of {salt}, to the nearest gram?"
    mass = quantity(grams_per_mole(salt), "g/mol") * quantity(amount, "mol")
    return question, round(mass.to("g")), "g"


@cache
def grams_per_mole(salt: str) -> float:
    return demo_import("periodictable").formula(salt).mass


def _salt(cation: str, anion: str) -> str:
    charge = math.lcm(CATIONS[cation], ANIONS[anion])
    cation_count, anion_count = charge // CATIONS[cation], charge // ANIONS[anion]
    group = f"({anion})" if anion_count > 1 and sum(map(str.isupper, anion)) > 1 else anion
    return f"{cation}{cation_count if cation_count > 1 else ''}{group}{anion_count if anion_count > 1 else ''}"


REACTIONS = (
    "2 H2 + O2 -> 2 H2O",
    "N2 + 3 H2 -> 2 NH3",
    "C + O2 -> CO2",
    "2 Na + Cl2 -> 2 NaCl",
    "2 CO + O2 -> 2 CO2",
    "2 Mg + O2 -> 2 MgO",
    "CH4 + 2 O2 -> CO2 + 2 H2O",
    "4 Fe + 3 O2 -> 2 Fe2O3",
    "4 Al + 3 O2 -> 2 Al2O3",
    "C3H8 + 5 O2 -> 3 CO2 + 4 H2O",
    "4 NH3 + 5 O2 -> 4 NO + 6 H2O",
    "Fe2O3 + 3 CO -> 2 Fe + 3 CO2",
)


def stoichiometry(rng: Random, *, reactions: int, top: int) -> Problem:
    """The amount of one substance that goes with an amount of another."""
    reaction = rng.choice(REACTIONS[:reactions])
    ratio = {name: int(number or 1) for number, name in re.findall(r"(?:(\d+) )?([A-Z]\w*)", reaction)}
    given, wanted = rng.sample(list(ratio), 2)
    amount = rng.randint(1, top)
    question = f"{reaction}. How many mol of {wanted} go with {amount} mol of {given}?"
    return question, quantity(amount, "mol") * ratio[wanted] / ratio[given], "mol"


def ideal_gas(rng: Random, *, laws: int, top: int) -> Problem:
    """Boyle's law, Charles's law, or the general gas law: the first `laws` of them."""
    which, volume = rng.randrange(laws), rng.randint(1, top)
    if which == 0:
        before, after = rng.sample(range(1, top + 1), 2)
        question = f"A gas at {before} atm fills {volume} L. What volume at {after} atm and the same temperature?"
        return question, quantity(volume, "L") * before / after, "L"
    if which == 1:
        before, after = rng.sample(range(100, 100 * top + 1, 100), 2)
        question = f"A gas at {before} K fills {volume} L. What volume at {after} K and the same pressure?"
        return question, quantity(volume, "L") * after / before, "L"
    amount, heat, pressure = rng.randint(1, top), rng.randrange(250, 401, 50), rng.randint(1, top)
    question = f"What volume, to 0.1 L, do {amount} mol of a gas fill at {heat} K and {pressure} atm?"
    filled = quantity(amount, "mol") * unit_registry().R * quantity(heat, "K") / quantity(pressure, "atm")
    return question, round(filled.to("L"), 1), "L"


def half_life(rng: Random, *, top: int, halvings: int) -> Problem:
    left, halved, unit = rng.randint(1, top), rng.randint(1, halvings), rng.choice(("s", "min", "h", "days"))
    period = quantity(rng.randint(2, top), unit)
    start, elapsed = quantity(left * 2**halved, "g"), period * halved
    question = f"{start.m} g of a substance has a half-life of {period.m} {unit}. "
    question += f"How much is left after {elapsed.m} {unit}?"
    return question, start * 0.5 ** (elapsed / period).to("").m, "g"


def dilution(rng: Random, *, top: int) -> Problem:
    before, after = sorted(rng.sample(range(1, top + 1), 2))
    strength = rng.randint(1, top)
    question = f"{before} L of a solution of {strength} mol/L is thinned to {after} L. How strong is it then?"
    moles = quantity(strength, "mol/L") * quantity(before, "L")
    return question, moles / quantity(after, "L"), "mol/L"


CONVERSIONS = (
    ("km", "m"),
    ("m", "cm"),
    ("cm", "mm"),
    ("kg", "g"),
    ("L", "mL"),
    ("h", "min"),
    ("min", "s"),
    ("days", "h"),
    ("kJ", "J"),
    ("kPa", "Pa"),
)


def unit_conversion(rng: Random, *, pairs: int, top: int, directions: int) -> Problem:
    """A quantity in the other unit of a pair: large to small, with two directions also back."""
    large, small = rng.choice(CONVERSIONS[:pairs])
    value = quantity(rng.randint(1, top), large)
    if rng.randrange(directions):
        return f"Convert {number_text(value.to(small).m)} {small} to {large}.", value, large
    return f"Convert {value.m} {large} to {small}.", value, small


GENES = ("RW", "BW", "MN", "CD")  # two alleles of equal right: as A and a, they would differ in case alone


def genetics(rng: Random, *, genes: int, top: int) -> Problem:
    """Expected offspring of a genotype in a cross of one of the first genes, out of a multiple of four."""
    one, other = rng.choice(GENES[:genes])
    kinds = (one * 2, "".join(sorted(one + other)), other * 2)
    first, second, wanted = (rng.choice(kinds) for _ in range(3))
    children = Counter("".join(sorted((a, b))) for a in first for b in second)
    total = 4 * rng.randint(1, top)
    question = f"Cross {first} x {second}. How many of {total} offspring are expected to be {wanted}?"
    return question, quantity(total * children[wanted] / 4, ""), ""


Ranges = dict[str, Any]
PRODUCT_RANGES: tuple[Ranges, Ranges, Ranges] = (
    {"top": 9, "asked": 2},
    {"top": 9, "asked": 3},
    {"top": 40, "asked": 3},
)
FAMILIES: dict[str, tuple[Callable[..., Problem], Ranges, Ranges, Ranges]] = {
    **{name: (partial(product, law=law), *PRODUCT_RANGES) for name, law in LAWS.items()},
    "kinematics": (kinematics, {"top": 6, "asked": 1}, {"top": 6, "asked": 1}, {"top": 9, "asked": 2}),
    "kinetic_energy": (kinetic_energy, {"top": 7}, {"top": 9}, {"top": 30}),
    "molar_mass": (
        molar_mass,
        {"cations": 8, "anions": 5, "moles": 5},
        {"cations": 8, "anions": 5, "moles": 5},
        {"cations": 16, "anions": 12, "moles": 9},
    ),
    "stoichiometry": (
        stoichiometry,
        {"reactions": 6, "top": 9},
        {"reactions": 12, "top": 9},
        {"reactions": 12, "top": 40},
    ),
    "ideal_gas": (ideal_gas, {"laws": 1, "top": 9}, {"laws": 2, "top": 9}, {"laws": 3, "top": 20}),
    "half_life": (
        half_life,
        {"top": 9, "halvings": 1},
        {"top": 9, "halvings": 3},
        {"top": 40, "halvings": 5},
    ),
    "dilution": (dilution, {"top": 10}, {"top": 12}, {"top": 40}),
    "unit_conversion": (
        unit_conversion,
        {"pairs": 10, "top": 20, "directions": 1},
        {"pairs": 10, "top": 20, "directions": 2},
        {"pairs": 10, "top": 200, "directions": 2},
    ),
    "genetics": (
        genetics,
        {"genes": 1, "top": 12},
        {"genes": 2, "top": 12},
        {"genes": 4, "top": 50},
    ),
}


def examples(family: str, difficulty: Difficulty, rng: Random) -> Iterator[Example]:
    """An endless stream; answers are not zero and have at most one decimal."""
    draw, *levels = FAMILIES[family]
    while True:
        question, answer, unit = draw(rng, **levels[DIFFICULTIES.index(difficulty)])
        number = number_text(answer.to(unit).m)
        if number not in (None, "0"):
            yield Example(f"Question: {question}\nAnswer:", f" {number} {unit}".rstrip())


def family_verifier(family: str) -> Verifier:
    return same_number_and_unit if family == "unit_conversion" else same_quantity
