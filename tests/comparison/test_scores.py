"""What is measured of an initialization is what a plain loop finds, and nothing is measured twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from comparison.conftest import plain
from innerloop.comparison.scores import forgotten, score_pieces, tuned
from innerloop.engine.session import Session
from innerloop.evaluation.kshot import draw_support
from innerloop.evaluation.protocol import Initialization, Piece, Protocol, measure
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW
from innerloop.runs.learned import Learned
from innerloop.spaces.kinds import Grid
from reference import naive

K = 3


def silent(stage: str, done: int, total: int) -> None: ...


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
