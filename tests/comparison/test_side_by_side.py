"""Intervals are the textbooks', and what is said of them follows from them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from innerloop.comparison.side_by_side import (
    OURS,
    Arm,
    SideBySide,
    covered,
    finding,
    gap_between,
    mean_interval,
    over_tasks,
    task_table,
)

BASE = Arm("base", (2.0, 3.0, 4.0), (0.0, 0.0, 1.0), ("x", "y", "c"), 0.0)
BETTER = Arm(OURS, (1.0, 1.9, 3.1), (1.0, 0.0, 1.0), ("a", "z", "c"), 0.5, steps=3)
FOUND = SideBySide(5, (BASE, BETTER), ("asks a", "asks b", "asks c"), ("a", "b", "c"), {"in context": "too long"})


def test_intervals_are_students_and_wilsons() -> None:
    values = [0.1, 0.5, 0.4, 0.9]
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((np.mean(values), theirs.low, theirs.high))
    assert mean_interval([1.0]) == (1.0, None, None)
    arm = Arm("a", (1.0, 2.0), (1.0, 0.0), ("", ""), 0.0)
    z2 = stats.norm.ppf(0.975) ** 2  # Wilson 1927, for 1 of 2
    middle, half = (0.5 + z2 / 4) / (1 + z2 / 2), math.sqrt(z2 * (0.125 + z2 / 16)) / (1 + z2 / 2)
    assert arm.right == pytest.approx((0.5, middle - half, middle + half))
    assert gap_between(arm, Arm("b", (0.5, 1.0), (0.0, 0.0), ("", ""), 0.0))[0] == pytest.approx(0.75)


def test_a_finding_is_on_the_side_that_the_interval_is() -> None:
    gaps = {"a": (1.0, 0.5, 1.5), "b": (-1.0, -2.0, -0.1), "c": (1.0, -0.1, 2.1), "d": (9.0, None, None)}
    assert finding(gaps) == "in nats, this run is better than a; worse than b; not detectably different from c, d"


def test_lines_name_every_arm_and_what_is_left_out() -> None:
    said = FOUND.lines()
    assert said[0] == "3 test examples after 5 of the task"
    assert [line.split()[0] for line in said[2:4]] == ["base", "this"]
    assert "in context: left out: too long" in said
    assert said[-1] == "in nats, this run is better than base"
    assert replace(FOUND, k=3, folds=3).title == "each of 3 examples after the others"
    assert replace(FOUND, folds=2).title == "5 examples in 2 folds"
    assert FOUND.facts()["arms"]["base"]["nats_against_this_run"] == gap_between(BASE, BETTER)
    assert FOUND.facts()["arms"][OURS]["nats_against_this_run"] is None


def test_samples_show_one_right_and_one_wrong() -> None:
    many = (1.0, 1.0, 1.0, 1.0, 0.0)
    arm = Arm(OURS, (1.0,) * 5, many, tuple("abcdx"), 0.0)
    found = SideBySide(5, (arm,), tuple(f"asks {each}" for each in "abcde"), tuple("abcde"), {})
    shown = [line for line in found.samples() if "where" in line]
    assert shown == ["'asks a', where 'a' is right", "'asks b', where 'b' is right", "'asks e', where 'e' is right"]
    assert sum("wrong" in line for line in found.samples()) == 1


def test_tasks_weigh_alike() -> None:
    short = SideBySide(
        2,
        (replace(BASE, nats=(9.0,), correct=(0.0,)), replace(BETTER, nats=(5.0,), correct=(1.0,))),
        ("p",),
        ("r",),
        {},
    )
    found = over_tasks([FOUND, short])
    assert found["base"].nats[0] == pytest.approx((3.0 + 9.0) / 2)
    assert found[OURS].accuracy[0] == pytest.approx((2 / 3 + 1) / 2)
    assert found[OURS].accuracy[1:] == (0.0, 1.0), "a share is within 0 and 1"
    gap = found["base"].nats_against_this_run
    assert gap is not None
    assert gap[0] == pytest.approx((1.0 + 4.0) / 2)
    assert found[OURS].nats_against_this_run is None
    assert len(task_table({"one": FOUND, "two": short})) == 3


def test_what_the_numbers_speak_of_is_said() -> None:
    assert "say nothing of a method" in covered(folds=False, chosen=True)[0]
    assert len(covered(folds=False, chosen=True)) == 1, "other examples than those that chose the steps"
    assert len(covered(folds=True, chosen=False)) == 2
    assert "leave-one-out" in covered(folds=True, chosen=True)[1]
    assert "a little better" in covered(folds=True, chosen=True)[2]
