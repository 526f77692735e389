"""A line of metrics.jsonl from what a step, or an evaluation, gave."""

import json

import torch

from innerloop.engine.metrics import Metrics, Pass, ValidationScore, metrics_of
from innerloop.engine.non_finite import Round


def test_losses_are_means_over_tasks_before_the_first_and_the_last_inner_step() -> None:
    support = torch.tensor([[4.0, 2.0], [9.0, 9.0], [1.0, 2.0]])
    found = Round({}, torch.tensor(0.5), torch.tensor([1.0, 3.0]), support, ["a", "b"], [], is_finite=True)
    passes = [Pass(2, 3, 4), Pass(1, 7, 8)]
    expected = Metrics(7, 2.0, 3.0, 1.5, 0.5, 10, 12, passes=3, inner_steps=3, skipped=("c",))
    assert metrics_of(found, step=7, passes=passes, skipped=("c",)) == expected
    for losses, inner_steps in ((None, None), (support[:0], 0)):
        without = metrics_of(found._replace(support=losses), step=7, passes=passes, skipped=())
        assert (without.support_loss_first, without.support_loss_last) == (None, None)
        assert without.inner_steps == inner_steps


def test_an_evaluation_comes_back_from_its_line_and_shows_what_is_a_number() -> None:
    good = ValidationScore(5, 1.5, 0.5, {"a": {"nats": 1.0, "exact": 1.0}, "b": {"nats": 2.0, "exact": 0.0}})
    lost = ValidationScore(5, None, 0.0, {"a": {"nats": None, "exact": 0.0}})
    for found in (good, lost):
        assert ValidationScore.of_line(json.loads(json.dumps(found.line()))) == found
    assert (good.numbers(), lost.numbers("")) == ({"eval/nats": 1.5, "eval/exact": 0.5}, {"exact": 0.0})
