"""One new task's adapters side by side: each arm is what it says, on the same test examples."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from innerloop.comparison.judging import Arm, difference, judge, mean_interval
from innerloop.errors import UserError
from record_files import write
from small_runs import Cli, Runs, records

SUPPORT, TEST = records("eve")[:6], records("eve")[6:]


def test_every_arm_is_scored_on_the_same_examples_and_is_what_it_says(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    found = judge(learned, SUPPORT, TEST, inner=learned.inner)
    assert [arm.name for arm in found.arms] == ["base", "in context", "fresh LoRA", "this run"]
    assert {len(part) for arm in found.arms for part in (arm.nats, arm.correct, arm.written)} == {len(TEST)}
    ours = found.arms[-1]
    adapted = learned.adapt(SUPPORT)
    assert np.mean(ours.nats) == pytest.approx(adapted.score(TEST)[0], rel=1e-6)
    (longer,) = adapted.generate([TEST[0]["prompt"]], max_new_tokens=32)
    assert longer.strip().startswith(ours.written[0].strip())  # cut at the task's allowance
    means = [np.mean(arm.nats) for arm in found.arms]
    assert len(set(means)) == len(means)  # none is another in disguise


def test_a_test_example_that_the_support_tells_is_refused(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    with pytest.raises(UserError, match="1 prompts are among the examples too"):
        judge(learned, SUPPORT, [*TEST, SUPPORT[0]], inner=learned.inner)


def test_a_run_of_all_parameters_says_which_arms_there_are_not(runs: Runs) -> None:
    learned = runs("fomaml")
    found = judge(learned, SUPPORT, TEST, inner=learned.inner)
    assert [arm.name for arm in found.arms] == ["unadapted", "this run"]
    assert found.left_out.keys() == {"base"}


def test_intervals_are_students_and_wilsons() -> None:
    values = [0.1, 0.5, 0.4, 0.9]
    mean, low, high = mean_interval(values)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(values), theirs.low, theirs.high))
    assert mean_interval([1.0]) == (1.0, -math.inf, math.inf)
    arm = Arm("a", (1.0, 2.0), (1.0, 0.0), ("", ""), 0.0)
    z2 = stats.norm.ppf(0.975) ** 2  # Wilson 1927, for 1 of 2
    middle, half = (0.5 + z2 / 4) / (1 + z2 / 2), math.sqrt(z2 * (0.125 + z2 / 16)) / (1 + z2 / 2)
    assert arm.right == pytest.approx((0.5, middle - half, middle + half))
    assert difference(arm, Arm("b", (0.5, 1.0), (0.0, 0.0), ("", ""), 0.0))[0] == pytest.approx(0.75)


def test_the_command_prints_the_table_and_never_speaks_of_a_method(cli: Cli, runs: Runs, tmp_path: Path) -> None:
    folder = runs("fomaml-lora").folder
    ten, forty = write(tmp_path / "ten.jsonl", *SUPPORT), write(tmp_path / "forty.jsonl", *TEST)
    said = cli("adapt", folder, ten, "--test", forty)
    assert said.code == 0
    for name in ("base", "in context", "fresh LoRA", "this run"):
        assert f"\n{name}" in said.out
    assert "they say nothing of a method" in said.out.replace("\n", " ")
    assert cli("adapt", folder, ten, "--test", ten, "--output", tmp_path / "adapted").code == 2
    assert not (tmp_path / "adapted").exists()
    assert cli("adapt", folder, ten, "--test", tmp_path / "gone.jsonl").code == 2
