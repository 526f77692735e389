"""The rates' own optimizer: AdamW of torch on the mean gradient, and every number of it in a checkpoint."""

import torch

from helpers import close, frozen_copy, same
from innerloop.engine.rate_learning import RateLearning
from innerloop.learning.inner_rates import InnerRates, fresh_rates

SHARED = {"a": torch.ones(2, 3), "b": torch.ones(4)}
GRADIENTS = [{"a": torch.tensor([0.5, -2.0]), "b": torch.tensor([3.0, 0.0])}, {"a": torch.ones(2), "b": -torch.ones(2)}]


def learner() -> tuple[InnerRates, RateLearning]:
    rates = fresh_rates("tensor-step", SHARED, steps=2)
    return rates, RateLearning(rates, lr=0.1)


def stepped(rates: InnerRates, learning: RateLearning, number: int, *, factor: float = 1.0) -> None:
    learning.begin()
    for name, value in rates.gradient.items():
        value.add_(GRADIENTS[number][name])
    learning.step(tasks=2, factor=factor)


def test_a_step_is_that_of_torch_on_the_mean_over_tasks() -> None:
    rates, learning = learner()
    values = {name: torch.zeros(2, requires_grad=True) for name in SHARED}
    optimizer = torch.optim.AdamW(values.values(), lr=0.1, weight_decay=0.0)
    for number, factor in ((0, 1.0), (1, 0.5)):
        stepped(rates, learning, number, factor=factor)
        optimizer.param_groups[0]["lr"] = 0.1 * factor
        for name, value in values.items():
            value.grad = GRADIENTS[number][name] / 2
        optimizer.step()
    assert close(rates.logs, {name: value.detach() for name, value in values.items()})
    assert not close(rates.logs, {name: 1.1 * value.detach() for name, value in values.items()}, 1e-2)


def test_it_goes_on_from_its_tensors_to_the_same_bits() -> None:
    rates, learning = learner()
    stepped(rates, learning, 0)
    kept = {part: frozen_copy(values) for part, values in learning.tensors.items()}
    stepped(rates, learning, 1)
    again, later = learner()
    for part, values in later.tensors.items():
        for name, value in values.items():
            value.copy_(kept[part][name])
    later.go_on_from(1)
    stepped(again, later, 1)
    assert same(again.logs, rates.logs)
    others, fresh = learner()
    stepped(others, fresh, 1)
    assert not same(others.logs, rates.logs), "the control: without them"
