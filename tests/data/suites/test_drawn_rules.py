from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.data.suites import drawn_rules
from innerloop.data.suites.words import DAYS, DIGITS, KIND_OF, LABELS, LETTERS, WORD_KINDS, WORDS

seeds = st.integers(0, 10**6).map(Random)
letters = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=6).map(tuple)
several = settings(max_examples=40, deadline=None)


@several
@given(seeds, letters)
def test_a_shift_moves_every_item_the_same_way_round_its_cycle(rng: Random, items: drawn_rules.Input) -> None:
    said = drawn_rules.shifted(LETTERS, most=25)(rng)(items).split()
    steps = {(LETTERS.index(b) - LETTERS.index(a)) % 26 for a, b in zip(items, said, strict=True)}
    assert len(steps) == 1
    assert steps != {0}


@several
@given(seeds, st.sampled_from(DAYS))
def test_cycles_of_different_length_move_on_their_own(rng: Random, day: str) -> None:
    moved_day, moved_digit = drawn_rules.shifted(DAYS, DIGITS, most=3)(rng)((day, "9")).split()
    assert moved_day in DAYS
    assert moved_day != day
    assert moved_digit in "012"


@several
@given(seeds)
def test_a_replacement_is_one_to_one(rng: Random) -> None:
    rule = drawn_rules.replaced(DIGITS, DIGITS)(rng)
    assert sorted(rule((digit,)) for digit in DIGITS) == list(DIGITS)


@several
@given(seeds, st.lists(st.sampled_from(LETTERS), min_size=4, max_size=4, unique=True).map(tuple))
def test_a_reordering_keeps_the_items_but_not_their_order(rng: Random, items: drawn_rules.Input) -> None:
    said = tuple(drawn_rules.picked(4, 4)(rng)(items).split())
    assert sorted(said) == sorted(items)
    assert said != items


@several
@given(seeds, st.lists(st.sampled_from(WORDS), min_size=3, max_size=3).map(tuple))
def test_an_insertion_adds_one_label_and_keeps_the_rest(rng: Random, items: drawn_rules.Input) -> None:
    said = drawn_rules.inserted(3)(rng)(items).split()
    (added,) = [word for word in said if word in LABELS]
    said.remove(added)
    assert tuple(said) == items


@several
@given(seeds)
def test_thresholds_give_each_label_one_range(rng: Random) -> None:
    rule = drawn_rules.cut(1000, 3)(rng)
    said = [rule((str(number),)) for number in range(1000)]
    changes = sum(a != b for a, b in pairwise(said))
    assert changes == 2
    assert len(set(said)) == 3
    assert min(Counter(said).values()) > 200


@several
@given(seeds, st.integers(2, 6))
def test_labels_split_the_values_evenly(rng: Random, groups: int) -> None:
    rule = drawn_rules.labelled(lambda items: KIND_OF[items[0]], tuple(WORD_KINDS), groups)(rng)
    shares = Counter(rule((words[0],)) for words in WORD_KINDS.values())
    assert len(shares) == groups
    assert max(shares.values()) - min(shares.values()) <= 1


@several
@given(seeds, st.lists(st.sampled_from(LETTERS[:8]), min_size=3, max_size=3, unique=True).map(tuple))
def test_a_hidden_order_does_not_depend_on_the_order_given(rng: Random, items: drawn_rules.Input) -> None:
    rule = drawn_rules.ordered(LETTERS[:8], str, keep=2)(rng)
    assert rule(items) == rule(items[::-1])
    assert set(rule(items).split()) < set(items)


@several
@given(seeds, st.integers(0, 50), st.integers(0, 50))
def test_arithmetic_rules_are_affine(rng: Random, left: int, right: int) -> None:
    rule = drawn_rules.affine((1, 2, 3), 12)(rng)
    offset = int(rule(("0",)))
    slope = int(rule(("1",))) - offset
    assert slope in (1, 2, 3)
    assert int(rule((str(left),))) - int(rule((str(right),))) == slope * (left - right)


def test_operations_relations_and_spelling() -> None:
    values = [4, 9, 2]
    got = {name: operation(values) for name, operation in drawn_rules.OPERATIONS.items()}
    wanted = {"first": 4, "last": 2, "largest": 9, "smallest": 2, "sum": 15, "middle": 4, "spread": 7}
    assert got == wanted
    held = {name: relation(48, 71) for name, relation in drawn_rules.RELATIONS.items()}
    assert held == {
        "greater": False,
        "greater last digit": True,
        "sum of 100 or more": True,
        "same parity": False,
    }
    assert set(drawn_rules.spelled((0, -1), 2)(Random(1))(("tiger",)).split()) == {"t", "r"}


def test_measured_units_are_permuted() -> None:
    rule = drawn_rules.measured((1,), 0)(Random(3))
    units = [rule(("5", unit)).split()[1] for unit in drawn_rules.MEASURES]
    assert sorted(units) == sorted(drawn_rules.MEASURES)
    assert rule(("5", "cups")).startswith("5 ")


def test_words_of_a_kind_are_of_different_kinds() -> None:
    drawer = drawn_rules.one_of_a_kind(4, 5)
    for seed in range(20):
        kinds = [KIND_OF[word] for word in drawer(Random(seed))]
        assert len(set(kinds)) == 4
        assert set(kinds) <= set(list(WORD_KINDS)[:5])
