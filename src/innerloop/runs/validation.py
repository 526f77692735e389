"""Validation during training: how well a run's values adapt to tasks that train nothing, and which did so best.

Validation   when an evaluation is due, what it comes to, whether the run goes on, which values are exported
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from innerloop.config.schema import EvaluateSection
from innerloop.data.tasks import TaskBatch
from innerloop.engine.metrics import ValidationScore
from innerloop.engine.parts import own_adaptation
from innerloop.engine.session import Session
from innerloop.evaluation.kshot import (
    Chunk,
    TaskScore,
    adapt,
    draw_support,
    mean_correct,
    mean_nats,
    score,
    tokens_per_forward,
)
from innerloop.learning.inner_rates import InnerRates
from innerloop.numerics.rounding import seeded
from innerloop.numerics.tensors import TensorSet
from innerloop.spaces.space import ParameterSpace


class Validation:
    """The validation tasks of one run, each with the same k examples at every evaluation. It changes no number of it.

    history   the evaluations so far
    kept      (...) the values that the best of them was of, in host memory, where the best are exported; kept_of: its
              step
    tokens    of a forward: no more than a step's, so that an evaluation takes no more memory than a step
    """

    PLACE = "best/"  # with which the names of `tensors` begin

    def __init__(
        self,
        session: Session,
        settings: EvaluateSection,
        *,
        history: Sequence[ValidationScore] = (),
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        config = session.config
        self.settings, self.tasks = settings, session.validation
        self.seed, self.steps = config.seed, config.outer.steps
        self.inner = own_adaptation(config)
        self.support = [draw_support(task, settings.k, seed=config.seed) for task in self.tasks]
        ((_, batches),) = session.streams()
        largest = _largest(batches.largest, session.tasks_per_forward(batches))
        self.tokens = min(tokens_per_forward(session.device), largest)
        self.history = list(history)
        self.kept, self.kept_of = TensorSet(), -1
        for place, value in (tensors or {}).items():
            step, _, name = place.removeprefix(self.PLACE).partition("/")
            self.kept[name], self.kept_of = value.clone(), int(step)  # a file's own memory is aligned otherwise

    def is_due(self, step: int, *, asked: bool = False) -> bool:
        """Of the untrained start, every so many steps, the last one, and where somebody asks; each once."""
        wanted = asked or step % self.settings.every == 0 or step == self.steps
        return wanted and not any(found.step == step for found in self.history)

    def evaluate(self, space: ParameterSpace, *, step: int, rates: InnerRates | None = None) -> ValidationScore:
        """Every task adapts by itself from the shared values, with the run's own inner loop; then its test examples."""
        found: list[TaskScore] = []
        last = self.inner.steps if self.settings.k else 0

        def look(taken: int, adapted: TensorSet, chunk: Chunk) -> None:
            if taken == last:
                found.extend(score(space, adapted, chunk.tasks, tokens=self.tokens))

        with seeded(self.seed, "validation", device=space.device):  # bfloat16 values are rounded at random
            inner = replace(self.inner, rates=rates)
            adapt(space, inner, self.support, self.tasks, look=look, tokens=self.tokens)
        tasks = {each.task: {"nats": _finite(each.mean_nats), "exact": each.mean_correct} for each in found}
        return ValidationScore(step, _finite(mean_nats(found)), mean_correct(found), tasks)

    def keep(self, found: ValidationScore, values: Mapping[str, Tensor]) -> None:
        """Remembers it and, where it is the best so far, the values that it was of."""
        self.history.append(found)
        if self.keeps_best and self.best is found:
            self.kept = {name: value.detach().to("cpu", copy=True) for name, value in values.items()}
            self.kept_of = found.step

    @property
    def keeps_best(self) -> bool:
        return self.settings.export == "best"

    @property
    def best(self) -> ValidationScore | None:
        """The first that no other is better than; None where none is finite."""
        finite = [found for found in self.history if found.nats is not None]
        return max(finite, key=self._order, default=None)

    @property
    def gives_up(self) -> bool:
        """Whether as many evaluations as `evaluate.patience` says brought nothing better."""
        patience, best = self.settings.patience, self.best
        since = [found for found in self.history if best is None or found.step > best.step]
        return patience is not None and len(since) >= patience

    @property
    def tensors(self) -> TensorSet:
        """For a checkpoint, beside the history, which is in the lines of metrics.jsonl."""
        return {f"{self.PLACE}{self.kept_of}/{name}": value for name, value in self.kept.items()}

    def chosen(self, values: TensorSet) -> TensorSet:
        """Those to export, of a run that has come to `values` (...). Warns where training made nothing better."""
        best = self.best
        if best is not None and best.step == 0 and len(self.history) > 1:
            said = "no evaluation on the validation tasks was better than that of the untrained start"
            what = "which is exported" if self.keeps_best else "and the last values are exported"
            warnings.warn(f"{said}, {what}: try other learning rates, or more steps", RuntimeWarning, stacklevel=2)
        if not self._exports_kept:
            return values
        return {name: self.kept[name].to(value.device) for name, value in values.items()}

    def facts(self, steps: int) -> dict[str, Any]:
        """For the manifest of a run that came to so many steps: the best evaluation, and what is exported."""
        best = self.best
        return {
            "metric": self.settings.metric,
            "evaluations": len(self.history),
            "best_step": best and best.step,
            "best": best and best.numbers(""),
            "exported": self.settings.export,
            "exported_step": self.kept_of if self._exports_kept else steps,
        }

    @property
    def _exports_kept(self) -> bool:
        """A run that went on with another `evaluate.metric` or `export` may not have kept what is now the best."""
        return self.keeps_best and self.best is not None and self.best.step == self.kept_of

    def _order(self, found: ValidationScore) -> tuple[float, float]:
        """The better, the higher: by exact answers, where these are asked for, and then by nats."""
        assert found.nats is not None
        return found.exact if self.settings.metric == "exact" else 0.0, -found.nats


def _largest(tasks: TaskBatch, tasks_per_forward: int) -> int:
    """Tokens of the largest forward of a step, with padding."""
    return max(batch.computed_tokens for chunk in tasks.split(tasks_per_forward) for batch in chunk.batches)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
