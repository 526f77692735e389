"""Which pieces a protocol has, and that one is measured after as many steps as it says, on its own draw."""

from dataclasses import replace
from pathlib import Path

import pytest

from innerloop.config.loading import load_config
from innerloop.engine.session import Session, prepare
from innerloop.evaluation.kshot import adapt_and_score, draw_support
from innerloop.evaluation.protocol import Initialization, Piece, Protocol, measure, pieces, tune
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW
from innerloop.spaces.kinds import Grid
from small_runs import World, settings

PROTOCOL = Protocol(k=(0, 4), draws=2, grid=Grid(lrs=(1e-4, 0.02), steps=(1, 4)), max_new_tokens=4, seed=5)
OWN = InnerLoop(steps=2, optimizer=AdamW(lr=0.01))


@pytest.fixture(scope="module")
def session(world: World) -> Session:
    return prepare(load_config(settings(world, "fomaml-lora", Path("unused"))), model=world.model)


def test_every_k_has_its_draws_and_adaptations_and_none_has_one() -> None:
    own, tuned = (Piece("unseen", 4, draw, "own") for draw in (0, 1)), Piece("unseen", 4, 1, "tuned")
    found = pieces(PROTOCOL, hows=("own", "tuned"), seen=True)
    assert found[:2] == [Piece("seen", 0, 0, "none"), Piece("unseen", 0, 0, "none")]
    assert {*own, tuned} < set(found)
    assert len(found) == len(set(found)) == 2 + 2 * 2
    assert pieces(PROTOCOL, hows=("own",), bare=False) == [Piece("unseen", 4, draw, "own") for draw in (0, 1)]
    assert len({piece.name for piece in found}) == len(found)


def test_tuning_chooses_from_the_grid_for_each_k(session: Session) -> None:
    chosen = tune(session.space(), PROTOCOL, session.train)
    assert set(chosen) == {4}
    assert chosen[4].steps in PROTOCOL.grid.steps
    assert chosen[4].optimizer.lr in PROTOCOL.grid.lrs


def test_a_piece_is_scored_on_its_draw_after_its_steps(session: Session) -> None:
    space, tasks = session.space(), session.train
    what = Initialization(space, session.model, OWN, {4: replace(OWN, steps=4)})
    for piece, steps in ((Piece("unseen", 4, 1, "own"), 2), (Piece("unseen", 4, 1, "tuned"), 4)):
        said = measure(piece, what, tasks, PROTOCOL)
        supports = [draw_support(task, 4, seed=5, draw=1) for task in tasks]
        expected = adapt_and_score(space, replace(OWN, steps=steps), supports, tasks, after=(0, steps))
        assert said["steps"] == steps
        assert said["curve"][0][0] == 0
        assert said["curve"][-1][0] == steps
        for score, before in zip(expected[steps], expected[0], strict=True):
            found = said["tasks"][score.task]
            assert found["ids"] == list(score.ids)
            assert found["nats"] == pytest.approx(list(score.nats), rel=1e-4)
            assert found["nats"] != pytest.approx(list(before.nats), rel=1e-4)
            assert found["correct"] == list(score.correct), "greedy decoding, and exact match, are one"
            assert found["support_nats"] < before.mean_nats * 2
            assert [each["id"] for each in found["samples"]] == found["ids"][:2]
            assert [each["correct"] for each in found["samples"]] == found["correct"][:2]


def test_without_examples_nothing_adapts(session: Session) -> None:
    what = Initialization(session.space(), session.model, OWN, {})
    said = measure(Piece("unseen", 0, 0, "none"), what, session.train, PROTOCOL)
    assert (said["steps"], said["lr"]) == (0, None)
    assert {found["support_nats"] for found in said["tasks"].values()} == {None}
