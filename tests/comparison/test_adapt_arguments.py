"""Every fault of what `adapt` is asked for is told at once, before a model is read."""

import shutil
from pathlib import Path

import pytest

from innerloop.comparison.adapt_arguments import AdaptArguments, Wanted, check_arguments
from innerloop.errors import UserError
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import Sgd
from record_files import write
from small_runs import Runs, records


def faults_of(asked: AdaptArguments) -> list[tuple[str, str]]:
    with pytest.raises(UserError) as error:
        check_arguments(asked)
    return [(fault.where, fault.problem) for fault in error.value.faults]


def test_all_faults_come_at_once(runs: Runs, tmp_path: Path) -> None:
    run, one = runs("fomaml-lora").folder, write(tmp_path / "one.jsonl", *records("eve")[:1])
    options = {"steps": "auto", "lr": 0.0, "tuned": True, "judge": False}
    found = faults_of(AdaptArguments(run, one, one, tmp_path, **options))
    assert [where for where, _ in found[:4]] == ["--lr", "--steps", "--lr", "--test"]
    assert [problem for _, problem in found[4:]] == [
        "1 prompts are among the examples too",
        "nothing was tuned of this run",
    ]
    found = faults_of(AdaptArguments(run, one, None, tmp_path, steps="auto"))
    assert [problem for _, problem in found] == ["the folder holds other files", "too few examples to leave one out"]
    for wrong in ("0", "-1", "x", "1.5", "²"):
        assert faults_of(AdaptArguments(run, one, steps=wrong)) == [("--steps", "not a number of steps")]
    assert faults_of(AdaptArguments(run, one, judge=True)) == [("task one", "too few examples to leave one out")]
    assert [problem for _, problem in faults_of(AdaptArguments(tmp_path, tmp_path / "gone", steps="x"))] == [
        "not a number of steps",
        "no manifest.json here",
    ]


def test_what_is_right_comes_back_checked(runs: Runs, tmp_path: Path) -> None:
    run, two = runs("fomaml-lora").folder, write(tmp_path / "two.jsonl", *records("eve")[:2])
    one = write(tmp_path / "one.jsonl", *records("eve")[:1])
    found = check_arguments(AdaptArguments(run, two, output=tmp_path / "out", steps="3", lr=0.5))
    assert (found.wanted.steps, found.wanted.lr, found.judging) == (3, 0.5, True)
    assert found.uses.place("two") == tmp_path / "out"
    assert not check_arguments(AdaptArguments(run, one)).judging
    assert not check_arguments(AdaptArguments(run, two, judge=False)).judging
    assert check_arguments(AdaptArguments(run, two, steps="auto")).wanted.steps == "auto"


def test_tuned_takes_what_eval_chose_for_the_nearest_number_of_examples(runs: Runs, tmp_path: Path) -> None:
    learned, two = runs("fomaml-lora"), write(tmp_path / "two.jsonl", *records("eve")[:2])
    assert faults_of(AdaptArguments(learned.folder, two, tuned=True)) == [("--tuned", "nothing was tuned of this run")]
    run = shutil.copytree(learned.folder, tmp_path / "run")
    note = run / "eval" / "0123" / "cells" / "x" / "tuned.json"
    note.parent.mkdir(parents=True)
    note.write_text('{"4": {"steps": 10, "lr": 0.01}, "32": {"steps": 3, "lr": 0.001}}')
    wanted = check_arguments(AdaptArguments(run, two, tuned=True)).wanted
    assert [wanted.inner(learned, k).steps for k in (1, 4, 11, 12, 50)] == [10, 10, 10, 3, 3]
    assert wanted.inner(learned, 2).optimizer.lr == 0.01
    assert "for 4 examples" in wanted.said(2, None)
    note.write_text('{"4": {"steps": 10}}')
    ((where, problem),) = faults_of(AdaptArguments(run, two, tuned=True))
    assert (where, problem) == (str(note), "not a choice of lr and steps")


def test_steps_and_rate_are_the_runs_own_unless_given(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    assert Wanted().inner(learned, 5) == learned.inner
    changed = Wanted(7, 0.5).inner(learned, 5)
    assert (changed.steps, changed.optimizer.lr, changed.optimizer.clip) == (7, 0.5, learned.inner.optimizer.clip)
    assert Wanted(tuned={5: InnerLoop(steps=1, optimizer=Sgd(lr=1.0))}).inner(learned, 5).steps == 1
