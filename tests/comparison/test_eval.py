"""`innerloop eval` says what a plain loop finds, in and out of JSON, and measures nothing twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparison.conftest import plain
from helpers import frozen_copy, same
from innerloop.comparison.compare import read_results
from innerloop.comparison.eval import Evaluated, evaluate, protocol_of
from innerloop.engine.session import Session
from innerloop.report.terminal import one_run
from innerloop.results.names import OWN_BUDGET
from innerloop.results.schema import RESULTS, Results
from innerloop.runs.learned import Learned
from innerloop.runs.reloading import load_run
from reference import naive
from small_runs import Cli, Runs, World, files_of, small_run

K, DRAWS = 3, 2
ARGV = ("--k", "0", "--k", str(K), "--draws", str(DRAWS))


@pytest.fixture(scope="module")
def first(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """What evaluating it says, and where its scores are."""
    copy = load_run(shutil.copytree(made, tmp_path_factory.mktemp("first") / "run"))
    return evaluate(copy, protocol_of(copy.config, k=[0, K], draws=DRAWS), silent)


@pytest.fixture
def run(first: Evaluated, tmp_path: Path) -> Path:
    """The run, evaluated."""
    return Path(shutil.copytree(first.folder.parents[1], tmp_path / "run"))


@pytest.fixture
def alone(runs: Runs, tmp_path: Path) -> Path:
    """A run without validation tasks, not evaluated yet."""
    return Path(shutil.copytree(runs("fomaml-lora").folder, tmp_path / "alone"))


def silent(stage: str, done: int, total: int) -> None: ...


# innerloop eval


def test_scores_are_those_of_a_plain_loop(first: Evaluated, learned: Learned, session: Session) -> None:
    rows = {(each.k, each.how): each for each in first.results.scores if each.metric == "nats"}
    took = {(each.k, each.how): each for each in first.results.adaptation}
    assert list(rows) == [(0, "none"), (K, "own"), (K, "tuned")]
    own = naive.Inner(steps=2, lr=0.3, clip=1.0)  # of small_runs, and of fomaml-lora by default
    chosen = took[K, "tuned"]
    other = naive.Inner(chosen.steps, chosen.lr, clip=1.0, adamw={"betas": (0.9, 0.99), "weight_decay": 0.0})
    for (k, how), row in rows.items():
        inner, draws = {"none": own, "own": own, "tuned": other}[how], DRAWS if k else 1
        found = {
            task.task.name: [plain(learned, task, inner, draw, k) for draw in range(draws)] for task in session.held_out
        }
        tasks = {name: float(np.mean([nats for nats, _ in each])) for name, each in found.items()}
        assert row.tasks == pytest.approx(tasks, rel=1e-4)
        assert row.mean == pytest.approx(np.mean(list(tasks.values())), rel=1e-4)
        assert row.worst[0] == max(tasks, key=tasks.__getitem__)
        assert row.low <= row.mean <= row.high
        support = np.mean([nats for each in found.values() for _, nats in each])
        gap = pytest.approx(np.mean(list(tasks.values())) - support, rel=1e-3) if k else None
        assert (took[k, how].gap if k else None) == gap
    assert len({row.mean for row in rows.values()}) == 3, "each adaptation is another"
    assert (took[K, "own"].steps, took[K, "own"].lr, (0, "none") in took) == (2, 0.3, False)


def test_it_is_a_comparison_of_one_run(first: Evaluated) -> None:
    results = first.results
    assert [(row.arm, row.budget, row.status) for row in results.rows] == [("fomaml-lora", OWN_BUDGET, "done")]
    assert results.status == "done"
    assert (results.protocol.held_out, results.protocol.validation) == (["cy", "dee"], ["bob"])
    assert results.differences == results.contrasts == []
    assert read_results(first.folder) == Results.read(first.folder / "results.json") == results
    assert "don't cover other training seeds: there is one" in " ".join(results.notes)


def test_a_second_call_says_the_same_and_measures_nothing(cli: Cli, run: Path, first: Evaluated) -> None:
    def written() -> dict[Path, int]:
        files = (path for path in run.rglob("*") if path.is_file() and path.name not in (RESULTS, "README.md"))
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    said = cli("eval", run, *ARGV, "--json")
    assert (said.code, said.out.count("\n")) == (0, 1)
    again = json.loads(said.out)
    folder = Path(again.pop("folder"))
    assert again == first.results.contents()
    assert written() == before
    assert f"value: {again['scores'][0]['mean']}" in (run / "adapter/README.md").read_text(), "the card says it"
    (place,) = (folder / "cells").iterdir()
    assert len(list(place.rglob("*.json"))) == 1 + 1 + 1 + 2 * DRAWS, "its result, what was chosen, and a piece each"
    piece = place / "scores" / "unseen-k0-draw0-none.json"
    changed = json.loads(piece.read_text())
    changed["tasks"]["cy"]["nats"] = [100.0 for _ in changed["tasks"]["cy"]["nats"]]
    changed["tasks"]["cy"]["unchecked"] = ["no verifier"]
    piece.write_text(json.dumps(changed))
    changed = json.loads(cli("eval", run, *ARGV, "--json").out)
    assert changed["scores"][0]["tasks"]["cy"] == 100.0, "scores are read where they are"
    assert changed["scores"][1:] == again["scores"][1:]
    assert changed["notes"][-1] == "1 answers count as wrong because checking them failed"


def test_the_table_for_people_says_the_same(cli: Cli, run: Path, first: Evaluated) -> None:
    said = cli("eval", run, *ARGV)
    place = next((run / "eval").iterdir())
    assert said.out.splitlines() == [*one_run(first.results), f"every score is in {place}/"]
    head, *rows = said.out.splitlines()[:4]
    assert head.split()[:4] == ["k", "adapted", "inner", "steps"]
    nats = [score for score in first.results.scores if score.metric == "nats"]
    for text, score in zip(rows, nats, strict=True):
        assert text.split()[:2] == [str(score.k), score.how]
        assert f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]" in text
        assert text.endswith(score.worst[0])


def test_without_validation_tasks_nothing_is_tuned(cli: Cli, alone: Path) -> None:
    def adapted(*argv: str) -> tuple[list[tuple[int, str]], list[Any]]:
        scores = json.loads(cli("eval", alone, *argv, "--json").out)["scores"]
        return list(dict.fromkeys((score["k"], score["how"]) for score in scores)), scores

    every, scores = adapted(*ARGV)
    assert every == [(0, "none"), (K, "own")]
    only, alike = adapted(*ARGV[:2], *ARGV[4:])
    assert only == every[:1]
    assert alike == [score for score in scores if not score["k"]]
    assert len(list((alone / "eval").iterdir())) == 2, "other arguments are measured apart"


def test_what_eval_refuses(cli: Cli, world: World, run: Path, runs: Runs, tmp_path: Path) -> None:
    trained = files_of(run)
    for argv, problem in (
        (("--k", "-1"), "--k: less than no example"),
        (("--k", "0", "--k", "13"), "--k: more examples than a task has"),
        (("--draws", "0"), "--draws"),
        (("--max-new-tokens", "0"), "--max-new-tokens"),
        (("--max-new-tokens", "1"), "--max-new-tokens: cuts right answers of 2 tasks"),
    ):
        said = cli("eval", run, *argv)
        assert (said.code, said.out) == (2, "")
        assert problem in said.err
    assert "at most 12, the examples of" in cli("eval", run, "--k", "13").err
    assert files_of(run) == trained
    everything = small_run(world, "joint-lora", tmp_path / "seen", {"tasks.held_out": []})
    said = cli("eval", everything.folder)
    assert (said.code, "tasks.held_out: this run held no task out" in said.err) == (2, True)
    said = cli("eval", runs("lora").folder)
    assert (said.code, "trained one adapter for each task" in said.err) == (2, True)
    said = cli("eval", tmp_path / "none")
    assert (said.code, "no manifest.json here" in said.err) == (2, True)


def test_all_examples_of_a_task_may_be_taken_and_the_shared_values_stay(alone: Path) -> None:
    learned = load_run(alone)
    before = frozen_copy(learned.space.shared)
    protocol = protocol_of(learned.config, k=[12, 12, 0], draws=1)
    assert (protocol.k, protocol.seed) == ((0, 12), 7)
    assert evaluate(learned, protocol, silent).results.ks == [0, 12]
    assert same(before, learned.space.shared)
