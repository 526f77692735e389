"""What learns the inner loop's rates beside the shared values: an AdamW of their own.

RateLearning   steps of it; its tensors go into a run's checkpoints
"""

from dataclasses import replace

from innerloop.learning.inner_rates import InnerRates
from innerloop.numerics.optimizers import AdamW
from innerloop.numerics.tensors import TensorSet


class RateLearning:
    """lr: of the rates' logarithms, the same for every tensor."""

    def __init__(self, rates: InnerRates, *, lr: float) -> None:
        self.rates, self.optimizer = rates, AdamW(lr=lr)
        self._logs = {name: value.unsqueeze(0) for name, value in rates.logs.items()}  # views with a task axis of 1
        self._state = self.optimizer.init(self._logs)

    def begin(self) -> None:
        """Before the tasks of a step."""
        for value in self.rates.gradient.values():
            value.zero_()

    def step(self, *, tasks: int, factor: float) -> None:
        """tasks: whose gradients were added up; factor: the outer schedule's."""
        gradient = {name: value.unsqueeze(0) / tasks for name, value in self.rates.gradient.items()}
        replace(self.optimizer, lr=self.optimizer.lr * factor).step(self._logs, gradient, self._state)

    @property
    def tensors(self) -> dict[str, TensorSet]:
        """What a later process needs to go on, beside the number of steps."""
        return {"rates": self.rates.logs, "rates-first": self._state.first, "rates-second": self._state.second}

    def go_on_from(self, steps: int) -> None:
        self._state.steps = steps
