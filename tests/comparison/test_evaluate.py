"""`innerloop eval` says what a plain loop finds, in and out of JSON, and measures nothing twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import frozen_copy, reference_model, same
from innerloop.comparison.evaluate import evaluate, forgotten, lines, protocol_of, score_pieces, tuned
from innerloop.data.encoding import EncodedTask
from innerloop.engine.session import Session, prepare
from innerloop.evaluation.kshot import draw_support
from innerloop.evaluation.protocol import Initialization, Piece, Protocol, measure
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW
from innerloop.runs.learned import Learned, load_run
from innerloop.spaces.kinds import Grid
from reference import naive
from small_runs import Cli, Runs, World, files_of, small_run

K, DRAWS = 3, 2
ARGV = ("--k", "0", "--k", str(K), "--draws", str(DRAWS))


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two held-out tasks and a validation task."""
    changes = {"tasks.held_out": ["cy", "dee"], "tasks.validation": ["bob"], "outer.tasks_per_step": 1}
    return small_run(world, "fomaml-lora", tmp_path_factory.mktemp("made") / "run", changes).folder


@pytest.fixture(scope="module")
def first(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What evaluating it says, and where its scores are."""
    copy = load_run(shutil.copytree(made, tmp_path_factory.mktemp("first") / "run"))
    return evaluate(copy, protocol_of(copy.config, k=[0, K], draws=DRAWS), silent)


@pytest.fixture
def run(first: dict[str, Any], tmp_path: Path) -> Path:
    """The run, evaluated."""
    return Path(shutil.copytree(Path(first["folder"]).parents[1], tmp_path / "run"))


@pytest.fixture
def alone(runs: Runs, tmp_path: Path) -> Path:
    """A run without validation tasks, not evaluated yet."""
    return Path(shutil.copytree(runs("fomaml-lora").folder, tmp_path / "alone"))


@pytest.fixture(scope="module")
def learned(made: Path) -> Learned:
    return load_run(made)


@pytest.fixture(scope="module")
def session(learned: Learned) -> Session:
    return prepare(learned.config, model=learned.model)


def silent(stage: str, done: int, total: int) -> None: ...


def plain(learned: Learned, task: EncodedTask, inner: naive.Inner, draw: int, k: int) -> tuple[list[float], float]:
    """(nats of each test example, support nats) after adapting a copy of the model, by the book."""
    model, support = reference_model(learned.space, learned.space.shared), list[Any]()
    if k:
        support = draw_support(task, k, seed=learned.config.seed, draw=draw)
        model = naive.adapt(model, [support] * inner.steps, inner)
    reached = np.mean([naive.answer_nats(model, example) for example in support]) if k else 0.0
    return [naive.answer_nats(model, example) for example in task.test], float(reached)


# innerloop eval


def test_rows_are_those_of_a_plain_loop(first: dict[str, Any], learned: Learned, session: Session) -> None:
    rows = {(row["k"], row["how"]): row for row in first["rows"]}
    assert list(rows) == [(0, "none"), (K, "own"), (K, "tuned")]
    own = naive.Inner(steps=2, lr=0.3, clip=1.0)  # of small_runs, and of fomaml-lora by default
    chosen = rows[K, "tuned"]
    other = naive.Inner(chosen["steps"], chosen["lr"], clip=1.0, adamw={"betas": (0.9, 0.99), "weight_decay": 0.0})
    for (k, how), row in rows.items():
        inner, draws = {"none": own, "own": own, "tuned": other}[how], DRAWS if k else 1
        found = {
            task.task.name: [plain(learned, task, inner, draw, k) for draw in range(draws)] for task in session.held_out
        }
        tasks = {name: float(np.mean([nats for nats, _ in each])) for name, each in found.items()}
        assert row["nats"]["tasks"] == pytest.approx(tasks, rel=1e-4)
        assert row["nats"]["mean"] == pytest.approx(np.mean(list(tasks.values())), rel=1e-4)
        assert row["nats"]["worst"] == max(tasks, key=tasks.__getitem__)
        assert row["nats"]["low"] <= row["nats"]["mean"] <= row["nats"]["high"]
        support = np.mean([nats for each in found.values() for _, nats in each])
        gap = pytest.approx(np.mean(list(tasks.values())) - support, rel=1e-3) if k else None
        assert (row["draws"], row["gap"]) == (draws, gap)
    means = {key: row["nats"]["mean"] for key, row in rows.items()}
    assert len(set(means.values())) == 3, "each adaptation is another"
    assert (rows[K, "own"]["steps"], rows[K, "own"]["lr"], rows[0, "none"]["lr"]) == (2, 0.3, None)


def test_a_second_call_says_the_same_and_measures_nothing(cli: Cli, run: Path, first: dict[str, Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    said = cli("eval", run, *ARGV, "--json")
    assert (said.code, said.out.count("\n")) == (0, 1)
    again = json.loads(said.out)
    folder = Path(again["folder"])
    assert again["rows"] == first["rows"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    assert len(list(folder.rglob("*.json"))) == 1 + 1 + 2 * DRAWS, "what was chosen, and a piece each"
    piece = folder / "scores" / "unseen-k0-draw0-none.json"
    changed = json.loads(piece.read_text())
    changed["tasks"]["cy"]["nats"] = [100.0 for _ in changed["tasks"]["cy"]["nats"]]
    piece.write_text(json.dumps(changed))
    rows = json.loads(cli("eval", run, *ARGV, "--json").out)["rows"]
    assert rows[0]["nats"]["tasks"]["cy"] == 100.0, "scores are read where they are"
    assert rows[1:] == first["rows"][1:]


def test_the_table_for_people_says_the_same(cli: Cli, run: Path, first: dict[str, Any]) -> None:
    said = cli("eval", run, *ARGV)
    place = next((run / "eval").iterdir())
    assert said.out.splitlines() == lines({**first, "folder": str(place)})
    head, *rows = said.out.splitlines()[:4]
    assert head.split()[:4] == ["k", "adapted", "steps", "lr"]
    for text, row in zip(rows, first["rows"], strict=True):
        assert text.split()[:3] == [str(row["k"]), row["how"], str(row["steps"])]
        assert f"{row['nats']['mean']:.2f} [{row['nats']['low']:.2f}, " in text
        assert text.endswith(row["nats"]["worst"])
    assert f"every score is in {place}/" in said.out
    assert "of these trained values; one training seed says nothing of a method" in said.out


def test_without_validation_tasks_nothing_is_tuned(cli: Cli, alone: Path) -> None:
    rows = json.loads(cli("eval", alone, *ARGV, "--json").out)["rows"]
    assert [(row["k"], row["how"]) for row in rows] == [(0, "none"), (K, "own")]
    only = json.loads(cli("eval", alone, *ARGV[:2], *ARGV[4:], "--json").out)
    assert only["rows"] == rows[:1]
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
    assert [row["k"] for row in evaluate(learned, protocol, silent)["rows"]] == [0, 12]
    assert same(before, learned.space.shared)


# its parts


def test_pieces_that_are_there_are_left_alone(tmp_path: Path) -> None:
    todo = [Piece("unseen", 2, draw, "own") for draw in range(3)]
    asked: list[Piece] = []
    said: list[tuple[str, int, int]] = []

    def measured(piece: Piece) -> dict[str, Any]:
        asked.append(piece)
        return {"draw": piece.draw}

    score_pieces(tmp_path, todo[1:2], measured, lambda *stage: said.append(stage))
    score_pieces(tmp_path, todo, measured, lambda *stage: said.append(stage))
    assert asked == [todo[1], todo[0], todo[2]]
    assert said == [("scoring", done, total) for total in (1, 3) for done in range(total + 1)]
    found = {path.name: json.loads(path.read_text()) for path in (tmp_path / "scores").iterdir()}
    assert found == {f"{piece.name}.json": {"draw": piece.draw} for piece in todo}


def test_what_was_chosen_is_the_best_of_the_grid_and_is_noted(
    learned: Learned, session: Session, tmp_path: Path
) -> None:
    protocol = Protocol(k=(0, K), grid=Grid(lrs=(1e-4, 0.05), steps=(1, 4)), seed=7)
    chosen = tuned(tmp_path, learned.space, protocol, session.validation, silent)
    by_hand: dict[tuple[float, int], float] = {}
    for lr in protocol.grid.lrs:
        for steps in protocol.grid.steps:
            inner = naive.Inner(steps, lr, clip=1.0, adamw={"betas": (0.9, 0.99), "weight_decay": 0.0})
            (task,) = session.validation
            by_hand[lr, steps] = float(np.mean(plain(learned, task, inner, 0, K)[0]))
    lr, steps = min(by_hand, key=by_hand.__getitem__)
    expected = {K: InnerLoop(steps=steps, optimizer=AdamW(lr=lr, betas=(0.9, 0.99), clip=1.0))}
    assert chosen == expected
    assert tuned(tmp_path, learned.space, protocol, [], silent) == expected, "no task is looked at again"
    assert json.loads((tmp_path / "tuned.json").read_text()) == {str(K): {"steps": steps, "lr": lr}}


def test_nothing_that_is_adapted_to_is_tested_on(session: Session) -> None:
    for task in (*session.held_out, *session.validation):
        pool, tests = ({example.id for example in side} for side in (task.pool, task.test))
        drawn = [[example.id for example in draw_support(task, 12, seed=7, draw=draw)] for draw in range(20)]
        assert all(set(ids) == pool and not set(ids) & tests for ids in drawn), "12 examples are the whole pool"
        assert len({ids[0] for ids in drawn}) > 5


def test_forgetting_is_measured_for_each_adaptation_and_once(
    learned: Learned, session: Session, tmp_path: Path
) -> None:
    protocol = Protocol(k=(0, K), seed=7)
    fast = InnerLoop(steps=3, optimizer=AdamW(lr=0.5))
    what = Initialization(learned.space, learned.model, learned.inner, {K: fast})

    def measured(place: Path, **changes: Any) -> list[dict[str, Any]]:
        options: dict[str, Any] = {"protocol": protocol, "prompts": 2, "hows": ("none", "own", "tuned"), "say": silent}
        return forgotten(place, what, learned.model, session.held_out, **{**options, **changes})

    found = measured(tmp_path)
    assert [(part["how"], part["k"], sorted(part["kl"])) for part in found] == [
        ("none", 0, ["shared"]),
        ("own", K, ["cy", "dee"]),
        ("tuned", K, ["cy", "dee"]),
    ]
    bare, own, wild = ([*part["kl"].values()] for part in found)
    assert 0 < bare[0] < min(own) < max(own) < min(wild), "the further the values go, the more is forgotten"
    assert measured(tmp_path, prompts=1) == found, "read, not measured"
    assert measured(tmp_path / "none", prompts=0) == []
    assert [part["how"] for part in measured(tmp_path / "bare", protocol=Protocol(k=(0,), seed=7))] == ["none"]


def test_a_piece_depends_on_nothing_that_was_measured_before(learned: Learned, session: Session) -> None:
    protocol = Protocol(k=(0, K), seed=7)
    what = Initialization(learned.space, learned.model, learned.inner, {})
    piece = Piece("unseen", K, 1, "own")
    first = measure(piece, what, session.held_out, protocol)
    measure(Piece("unseen", K, 0, "own"), what, session.held_out, protocol)
    assert measure(piece, what, session.held_out, protocol) == first
    assert first["curve"][-1][1] != first["curve"][0][1]
