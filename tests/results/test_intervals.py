"""Entries of one budget against plain sums over the files that they are of."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from comparison_folders import K, Planted, write_comparison
from innerloop.results.intervals import Board, differences, mean, of_scores, plain, positive, targets
from innerloop.results.pieces import Key, read_comparison
from innerloop.results.statistics import Interval

ARMS = {"base": Planted(), "joint-lora": Planted(), "meta-lora": Planted(0.4)}
OURS, THEIRS = (Key("unseen", "tokens", arm, "tuned", K) for arm in ("meta-lora", "joint-lora"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write_comparison(folder, ARMS, budgets=("tokens", "seconds"), seeds=(1, 2), tasks=3, examples=4)
    return folder


@pytest.fixture
def board(folder: Path) -> Board:
    return Board(read_comparison(folder), "tokens")


def nats(folder: Path, arm: str, budget: str = "tokens") -> dict[tuple[Any, ...], float]:
    """(seed, draw, task, id) -> nats after tuned adaptation, read off the files."""
    found: dict[tuple[Any, ...], float] = {}
    for path in folder.glob(f"cells/{arm}-{budget}-*/scores/unseen-k{K}-*-tuned.json"):
        piece = json.loads(path.read_text())
        for task, scores in piece["tasks"].items():
            for name, value in zip(scores["ids"], scores["nats"], strict=True):
                found[piece["seed"], piece["draw"], task, name] = value
    return found


def test_a_board_has_its_own_budget_and_what_nothing_trains(board: Board) -> None:
    assert {key.budget for key in board.scores} == {"tokens"}
    assert list(dict.fromkeys(key.arm for key in board.scores)) == [*ARMS]
    assert [key.k for key in board.scores if key.arm == "meta-lora"] == [0, K, K]


def test_a_pair_is_made_example_by_example(board: Board, folder: Path) -> None:
    pair = board.pair(OURS, THEIRS, "nats")
    assert pair is not None
    assert pair.seeds == [1, 2]
    ours, theirs = nats(folder, "meta-lora"), nats(folder, "joint-lora")
    for task, values in pair.values.items():
        ids = [f"{task} {number}" for number in range(4)]
        for place, seed in enumerate(pair.seeds):
            naive = [[ours[seed, draw, task, name] - theirs[seed, draw, task, name] for name in ids] for draw in (0, 1)]
            assert np.allclose(values[place], naive, atol=1e-12)
    other = nats(folder, "joint-lora", "seconds")
    assert any(abs(other[key] - theirs[key]) > 1e-3 for key in theirs), "another budget is other numbers"


def test_a_difference_is_the_mean_of_the_pairs_and_against_the_reference(board: Board, folder: Path) -> None:
    ours, theirs = nats(folder, "meta-lora"), nats(folder, "joint-lora")
    expected = fmean(ours[key] - theirs[key] for key in theirs)
    made = [each for each in differences(board) if each.arm == "meta-lora" and each.metric == "nats"]
    (found,) = (each for each in made if each.how == "tuned")
    assert (found.reference, found.reference_how) == ("joint-lora", "tuned")
    assert found.mean == pytest.approx(expected, abs=1e-12)
    assert set(found.tasks) == {"task 0", "task 1", "task 2"}
    assert not any(each.arm == each.reference for each in differences(board))


def test_the_first_k_that_reaches_a_target_is_told(board: Board) -> None:
    def k_of(nats: float, accuracy: float) -> list[int | None]:
        found = targets(board, {"nats": nats, "accuracy": accuracy})
        return [each.k for each in found if each.arm == "meta-lora" and each.how == "tuned"]

    def nats_of(how: Any, k: int) -> float:
        return fmean(each.mean() for each in board.scores[OURS._replace(how=how, k=k)].array("nats", [1, 2]).values())

    start, end = nats_of("none", 0), nats_of("tuned", K)
    assert end < start
    assert k_of((start + end) / 2, 0.0) == [K, 0]
    assert k_of(start + 1, 0.0) == [0, 0]
    assert k_of(end - 1, 1.1) == [None, None]


def test_no_bound_lies_where_no_score_can() -> None:
    assert positive(Interval(0.1, -0.2, 0.4, 0.5)) == {"mean": 0.1, "low": 0.0, "high": 0.4}
    assert positive(Interval(0.1, None, None, None)) == {"mean": 0.1}
    wide = {"a": np.array([[0.9], [1.0]]), "b": np.array([[1.0], [0.4]]), "c": np.array([[1.0], [1.0]])}
    right, lost = of_scores(wide, "accuracy"), of_scores(wide, "nats")
    assert right["mean"] == lost["mean"] == pytest.approx(fmean([0.95, 0.7, 1.0]))
    assert right["high"] == min(lost["high"], 1.0) < lost["high"]


def test_means_are_exact_and_whole_numbers_plain() -> None:
    assert mean([1e16, 1.0, -1e16]) == pytest.approx(1 / 3)
    assert (plain(3.0), plain(2.5), plain(None)) == (3, 2.5, None)
    assert isinstance(plain(3.0), int)
