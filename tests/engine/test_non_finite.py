"""Rounds whose numbers are finite or not, what is said of them, and when training is told to diverge."""

import math
import warnings

import pytest
import torch

from helpers import Tasks
from innerloop.engine.non_finite import GROWN, LOST, Divergence, mean_of, refusal, without
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import Outcome
from innerloop.numerics.optimizers import Sgd

NAMES = ["a", "b", "c"]


def outcomes(losses: list[float], last_support: list[float]) -> list[Outcome]:
    """A chunk of two tasks and one of one, after two inner steps."""
    support = torch.tensor([[1.0] * 3, last_support])
    found = torch.tensor(losses)
    return [Outcome(found[:2], support[:, :2]), Outcome(found[2:], support[:, 2:])]


def test_a_round_is_the_mean_over_its_tasks() -> None:
    total = {"w": torch.tensor([3.0, 6.0])}
    found = mean_of(outcomes([1, 2, 3], [4, 5, 6]), NAMES, total)
    assert found.is_finite
    assert found.gradient["w"].tolist() == [[1.0, 2.0]]
    assert float(found.gradient_norm) == pytest.approx(math.sqrt(5))
    assert found.losses.tolist() == [1, 2, 3]
    assert found.support is not None
    assert found.support.tolist() == [[1, 1, 1], [4, 5, 6]]


@pytest.mark.parametrize(
    ("losses", "support", "gradient", "broken"),
    [
        ([1, math.nan, 3], [4, 5, 6], 1.0, ["b"]),
        ([1, 2, 3], [math.inf, 5, math.nan], 1.0, ["a", "c"]),
        ([1, 2, 3], [4, 5, 6], math.inf, []),
    ],
)
def test_what_is_not_finite_is_named(
    losses: list[float], support: list[float], gradient: float, broken: list[str]
) -> None:
    found = mean_of(outcomes(losses, support), NAMES, {"w": torch.tensor([gradient])})
    assert not found.is_finite
    assert found.broken == broken


def test_the_other_tasks_in_as_few_pieces_as_they_lie_in() -> None:
    tasks = Tasks(tasks=5, steps=1).batch
    left = [part.names for part in without(tasks, [tasks.names[2]])]
    assert left == [tasks.names[:2], tasks.names[3:]]


def test_a_refusal_has_the_course_of_the_loss_and_a_smaller_rate() -> None:
    found = mean_of(outcomes([1, math.nan, 3], [4, math.inf, 6]), NAMES, {"w": torch.ones(1)})
    inner = InnerLoop(steps=2, optimizer=Sgd(lr=0.5))
    said = refusal(found, found.broken, step=8, inner=inner)
    assert "step 8: the loss of b is not a finite number; the shared values were left as after step 7." in said
    assert "before each inner step was 1, inf: method.inner.optimizer.lr = 0.5 is too large for it; try 0.05" in said
    assert "A smaller outer.optimizer.lr" in refusal(found, found.broken, step=8, inner=None)
    alone = mean_of(outcomes([1, 2, 3], [4, 5, 6]), NAMES, {"w": torch.tensor([math.nan])})
    assert "the outer gradient of c is not" in refusal(alone, ["c"], step=1, inner=inner)


@pytest.mark.parametrize(
    ("size", "loss", "after_inner"), [(1.1 * GROWN, 1.0, None), (1.0, 1.1 * LOST, None), (1.0, 1.0, 1.1 * LOST)]
)
def test_divergence_is_said_once(size: float, loss: float, after_inner: float | None) -> None:
    watch = Divergence({"w": torch.ones(2)})
    sane, wild = {"w": torch.ones(2)}, {"w": torch.tensor([1.0, -size])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.warn_if_lost(sane, step=1, loss=LOST, after_inner=LOST)
    with pytest.warns(RuntimeWarning, match="step 2: training diverges"):
        watch.warn_if_lost(wild, step=2, loss=loss, after_inner=after_inner)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.warn_if_lost(wild, step=3, loss=loss, after_inner=after_inner)
