"""Validation tasks during training: what is measured, which values are exported, when a run ends; a run that is killed
and goes on ends with the same bytes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import same
from innerloop.config.loading import load_config
from innerloop.engine.metrics import Metrics, ValidationScore
from innerloop.engine.session import Session, prepare
from innerloop.errors import UserError
from innerloop.evaluation.kshot import draw_support, score
from innerloop.evaluation.protocol import Initialization, Piece, Protocol, measure
from innerloop.numerics.tensors import per_task
from innerloop.runs.adapters import Ask
from innerloop.runs.learned import Learned
from innerloop.runs.meta_train import meta_train
from innerloop.runs.reloading import load_run
from innerloop.runs.validation import Validation
from runs.test_resuming import Killed, kill_after, relative
from small_runs import Changes, World, config_file, manifest_of, settings, tensors_of

VALIDATED: dict[str, Any] = {"tasks.validation": ["ada"], "tasks.held_out": ["dee"], "outer.steps": 6}
EVERY_2 = VALIDATED | {"evaluate.every": 2, "save.every": 3}
# The rate rises to one at which training undoes what it has learned; or it does from the first step on.
RISING = EVERY_2 | {"outer.optimizer": {"name": "adamw", "lr": 0.3}, "outer.clip": None, "outer.warmup": 6}
BAD = EVERY_2 | {"outer.optimizer": {"name": "sgd", "lr": 3.0}, "outer.clip": None}


def session_of(world: World, method: str, changes: Changes) -> Session:
    return prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)


def train(world: World, method: str, folder: Path, changes: Changes, **told: Any) -> Learned:
    return meta_train(settings(world, method, folder, changes), model=world.model, **told)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def evaluations_of(folder: Path) -> list[ValidationScore]:
    return [ValidationScore.of_line(line) for line in lines_of(folder) if "eval" in line]


def validation_of(*nats: float | None, **changes: Any) -> Any:
    """A validation with such a history, one evaluation a step, without a model."""
    found = Validation.__new__(Validation)
    base = {"tasks": {"suite": "math-science", "validation": ["lcm"]}, "output_dir": "x"}
    tree = {"model": {"name": "m"}, "method": {"name": "meta-lora"}, **base, "evaluate": {"every": 2, **changes}}
    config = load_config(tree)
    assert config.evaluate is not None
    found.settings, found.steps = config.evaluate, 7
    found.history = [ValidationScore(step, value, 0.0, {}) for step, value in enumerate(nats)]
    return found


# what is measured


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml", "joint-lora"])
def test_an_evaluation_is_the_run_s_own_adaptation_as_eval_measures_it(world: World, method: str) -> None:
    """Against `innerloop eval`'s own measurement of the same draw, and one task at a time."""
    changes = VALIDATED | {"tasks.validation": ["ada", "bob"], "outer.tasks_per_step": 1}
    session = session_of(world, method, changes | {"evaluate.every": 1, "evaluate.k": 5})
    config, space = session.config, session.space()
    assert config.evaluate is not None
    validation = Validation(session, config.evaluate)
    found = validation.evaluate(space, step=0)
    learned = Learned(config, session.model, space, Path("unused"))
    what = Initialization(space, session.model, learned.inner, {})
    piece = measure(Piece("unseen", 5, 0, "own"), what, session.validation, Protocol(seed=config.seed))
    for name, scores in piece["tasks"].items():
        nats, right = (sum(scores[of]) / len(scores[of]) for of in ("nats", "correct"))
        assert found.tasks[name]["nats"] == pytest.approx(nats, rel=1e-4)
        assert found.tasks[name]["exact"] == right
    means = [sum(task[of] or 0 for task in found.tasks.values()) / 2 for of in ("nats", "exact")]
    assert [found.nats, found.exact] == pytest.approx(means)
    bare = score(space, per_task(space.shared, 1), session.validation[:1])
    assert found.tasks["ada"]["nats"] != pytest.approx(bare[0].mean_nats, rel=1e-4), "the control: it adapted"


def test_without_examples_the_values_are_scored_as_they_stand(world: World) -> None:
    session = session_of(world, "fomaml-lora", VALIDATED | {"evaluate.every": 1, "evaluate.k": 0})
    assert session.config.evaluate is not None
    space = session.space()
    found = Validation(session, session.config.evaluate).evaluate(space, step=3)
    (bare,) = score(space, per_task(space.shared, 1), session.validation)
    assert (found.step, found.nats) == (3, pytest.approx(bare.mean_nats, rel=1e-5))


def test_the_same_examples_are_drawn_each_time_and_the_model_s_random_state_is_left_alone(world: World) -> None:
    session = session_of(world, "fomaml-lora", VALIDATED | {"evaluate.every": 1})
    assert session.config.evaluate is not None
    space, validation = session.space(), Validation(session, session.config.evaluate)
    assert [[e.id for e in own] for own in validation.support] == [
        [e.id for e in draw_support(task, 3, seed=7)] for task in session.validation
    ]
    before = torch.random.get_rng_state()
    first, second = (validation.evaluate(space, step=0) for _ in range(2))
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_evaluation_takes_no_larger_forward_than_a_step(world: World) -> None:
    few, many = (
        session_of(world, "fomaml-lora", VALIDATED | {"evaluate.every": 1, "memory.tasks_per_forward": tasks})
        for tasks in (1, 2)
    )
    assert few.config.evaluate
    tokens = [Validation(each, few.config.evaluate).tokens for each in (few, many)]
    batch = many.streams()[0][1][0]
    assert tokens[1] == max(each.computed_tokens for each in batch.batches) > tokens[0]


# which are best, and when it is enough


def test_the_untrained_start_every_nth_step_and_the_last_one_are_evaluated_once() -> None:
    validation = validation_of()
    assert [step for step in range(8) if validation.is_due(step)] == [0, 2, 4, 6, 7]
    validation.history = [ValidationScore(4, 1.0, 0.0, {})]
    assert not validation.is_due(4)
    assert not validation.is_due(4, asked=True)
    assert validation.is_due(3, asked=True)


@pytest.mark.parametrize(
    ("nats", "best", "patience", "ends"),
    [
        ((3.0, 2.0, 2.0, 2.5), 1, 2, True),
        ((3.0, 2.0, 2.0, 2.5), 1, 3, False),
        ((3.0, 2.0, 1.0), 2, 1, False),
        ((None, 2.0, None), 1, 1, True),
        ((None, None), None, 2, True),
        ((1.0, 2.0), 0, None, False),
        ((), None, 1, False),
    ],
)
def test_the_first_of_the_best_is_the_best(
    nats: Sequence[float | None], best: int | None, patience: int | None, ends: bool
) -> None:
    validation = validation_of(*nats, patience=patience)
    assert (validation.best and validation.best.step) == best
    assert validation.gives_up == ends


def test_exact_answers_come_before_nats_and_nats_decide_between_equals() -> None:
    validation = validation_of(metric="exact")
    shares = [(0, 0.1, 3.0), (1, 0.5, 2.0), (2, 0.5, 1.5), (3, 0.4, 1.0)]
    validation.history = [ValidationScore(step, nats, exact, {}) for step, exact, nats in shares]
    assert validation.best.step == 2
    by_nats = validation_of(metric="nats")
    by_nats.history = validation.history
    assert by_nats.best.step == 3


# whole runs


def test_the_best_values_are_exported_and_are_those_of_a_run_that_ends_there(world: World, tmp_path: Path) -> None:
    learned = train(world, "fomaml-lora", tmp_path / "run", RISING)
    said, found = manifest_of(tmp_path / "run")["validation"], evaluations_of(tmp_path / "run")
    assert [each.step for each in found] == [0, 2, 4, 6]
    best = min(found, key=lambda each: each.nats or 9e9)
    assert (said["best_step"], said["exported_step"], said["best"]) == (best.step, best.step, best.numbers(""))
    assert 0 < best.step < 6, "another rate is needed for this test"

    def stop(_: str, metrics: Metrics) -> Ask:
        return Ask(stop=metrics.step == best.step)

    last = RISING | {"evaluate.export": "last"}
    train(world, "fomaml-lora", tmp_path / "short", last, on_step=stop)
    assert same(tensors_of(tmp_path / "run"), tensors_of(tmp_path / "short"))
    assert same(learned.space.shared, load_run(tmp_path / "run").space.shared)
    train(world, "fomaml-lora", tmp_path / "last", last)
    assert not same(tensors_of(tmp_path / "last"), tensors_of(tmp_path / "short"))


@pytest.mark.parametrize("method", ["meta-lora", "fomaml"])
def test_evaluations_change_no_number_of_the_training(method: str, world: World, tmp_path: Path) -> None:
    keep = {"method.keep_task_adapters": True, "method.lora.lora_dropout": 0.2} if method == "meta-lora" else {}
    lean = {"memory.lean": True, "model.dtype": "bfloat16"} if method == "fomaml" else {}
    with_it = EVERY_2 | keep | lean | {"evaluate.export": "last"}
    without = VALIDATED | keep | lean
    for name, changes in (("with", with_it), ("without", without)):
        meta_train(settings(world, method, tmp_path / name, changes))
    assert same(tensors_of(tmp_path / "with"), tensors_of(tmp_path / "without"))
    steps = [
        [line | {"timing": 0} for line in lines_of(tmp_path / name) if "eval" not in line]
        for name in ("with", "without")
    ]
    assert steps[0] == steps[1]
    assert len(evaluations_of(tmp_path / "with")) == 4


def test_a_run_that_gets_no_better_ends_early_and_says_so(world: World, tmp_path: Path) -> None:
    changes = BAD | {"evaluate.patience": 1}
    with pytest.warns(RuntimeWarning, match="better than that of the untrained start, which is exported"):
        learned = train(world, "fomaml-lora", tmp_path / "run", changes)
    said = manifest_of(tmp_path / "run")
    assert (said["status"], said["stopped_after"], said["stopped_by"]) == ("done", 2, "evaluate.patience")
    assert said["validation"]["best_step"] == said["validation"]["exported_step"] == 0
    assert all(not value.any() for name, value in learned.space.shared.items() if name.endswith("lora_B"))
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [0, 1, 2, 2]


def test_who_is_told_of_evaluations_may_end_the_run_and_who_is_told_of_steps_may_ask_for_one(
    world: World, tmp_path: Path
) -> None:
    told: list[int] = []

    def on_evaluation(found: ValidationScore, best: ValidationScore | None) -> Ask:
        assert best is not None
        told.append(found.step)
        return Ask(stop=found.step == 3)

    asks = {"on_step": lambda _, metrics: Ask(evaluate=metrics.step == 3), "on_evaluation": on_evaluation}
    train(world, "fomaml-lora", tmp_path / "run", EVERY_2, **asks)
    assert told == [each.step for each in evaluations_of(tmp_path / "run")] == [0, 2, 3]
    assert manifest_of(tmp_path / "run")["stopped_by"] == "a callback"
    told.clear()
    train(world, "fomaml-lora", tmp_path / "two", EVERY_2, on_step=lambda _, metrics: Ask(stop=metrics.step == 5))
    assert [each.step for each in evaluations_of(tmp_path / "two")] == [0, 2, 4, 5], "the last step is evaluated, too"


# killed and gone on with

CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "meta-lora": ("meta-lora", BAD | {"evaluate.patience": 2, "method.keep_task_adapters": True}, (1, 4), (2, 3)),
    "all parameters": ("reptile", EVERY_2 | {"outer.steps": 4}, (3,), (2,)),
}


def kill_at(count: int) -> Any:
    """At the n-th evaluation, when it is done and before anything else is."""
    taken = iter(range(1, 100))

    def on_evaluation(*_: object) -> None:
        if next(taken) == count:
            raise Killed

    return on_evaluation


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_killed_ends_with_the_same_bytes_and_lines(case: str, world: World, tmp_path: Path) -> None:
    """After steps and right after evaluations, the last among them; what was best and what that led to come back."""
    method, changes, steps, evaluations = CASES[case]
    train(world, method, tmp_path / "whole", changes)
    whole = relative(tmp_path / "whole")
    strikes = [{"on_step": kill_after(n)} for n in steps] + [{"on_evaluation": kill_at(n)} for n in evaluations]
    for number, strike in enumerate(strikes):
        folder = tmp_path / f"killed-{number}"
        with pytest.raises(Killed):
            train(world, method, folder, changes, **strike)
        train(world, method, folder, changes, resume=True)
        assert relative(folder) == whole, strike


def test_what_a_checkpoint_keeps_of_the_best_is_needed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    for folder in ("kept", "forgot"):
        if folder == "forgot":
            monkeypatch.setattr(Validation, "tensors", {})
        with pytest.raises(Killed):
            train(world, "fomaml-lora", tmp_path / folder, RISING, on_step=kill_after(5))
        train(world, "fomaml-lora", tmp_path / folder, RISING, resume=True)
    assert manifest_of(tmp_path / "kept")["validation"]["exported_step"] == 2
    assert not same(tensors_of(tmp_path / "forgot"), tensors_of(tmp_path / "kept"))


def test_a_signal_in_an_evaluation_drops_it_and_the_run_goes_on_to_the_same(world: World, tmp_path: Path) -> None:
    changes = EVERY_2 | {"save.every": 100, "outer.steps": 4}
    path = config_file(world, tmp_path, "fomaml-lora", changes)
    script = (
        "import os, signal, sys\n"
        "from innerloop.runs import validation\n"
        "score, calls = validation.score, []\n"
        "def struck(*given, **named):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return score(*given, **named)\n"
        "validation.score = struck\n"
        "from innerloop.cli import main\n"
        f"sys.argv = ['innerloop', 'train', {str(path)!r}]\n"
        "main()\n"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 75, child.stderr
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [0, 1, 2]
    meta_train(path, resume=True)
    train(world, "fomaml-lora", tmp_path / "whole", changes)
    assert relative(tmp_path / "run") == relative(tmp_path / "whole")


def test_tasks_too_small_for_an_evaluation_are_refused_before_anything_is_written(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate.k[\s\S]*at most 12, the examples of ada"):
        train(world, "fomaml-lora", tmp_path / "run", EVERY_2 | {"evaluate.k": 13})
    assert not (tmp_path / "run").exists()
