"""How well an initialization adapts to tasks that are given here and now: k-shot scores with their intervals.

Evaluation     eval_exact and eval_nats for each k, in the mean and task by task
evaluation     a space, its inner loop and encoded tasks -> Evaluation
known_note     what is to be said of tasks that training has seen
check_enough   whether tasks have k examples to adapt on, and others to test on

The scores are those of `Adapted.score`, the intervals those of `innerloop eval`. There is one initialization here, so
they speak of other tasks like these, adapted from it, and never of a method.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from innerloop.config.output_dir import read_manifest
from innerloop.data.encoding import EncodedTask
from innerloop.engine.groundwork import Say
from innerloop.errors import Faults
from innerloop.evaluation.kshot import TaskScore, adapt_and_score, draw_support
from innerloop.learning.inner_loop import InnerLoop
from innerloop.results.intervals import of_scores
from innerloop.results.names import MetricName
from innerloop.results.statistics import covers
from innerloop.spaces.space import ParameterSpace

TASKS_SHOWN, NAMED = 12, 5


class Mean(NamedTuple):
    """Over tasks, with its 95 % interval; of one task there is none."""

    mean: float
    low: float | None
    high: float | None

    def said(self, form: str) -> str:
        if self.low is None or self.high is None:
            return format(self.mean, form)
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


class KShot(NamedTuple):
    """exact: share of answers that greedy decoding gives exactly; nats: per answer token; tasks: (exact, nats)."""

    exact: Mean
    nats: Mean
    tasks: dict[str, tuple[float, float]]

    def facts(self) -> dict[str, Any]:
        return {
            "eval_exact": self.exact._asdict(),
            "eval_nats": self.nats._asdict(),
            "tasks": {name: {"eval_exact": exact, "eval_nats": nats} for name, (exact, nats) in self.tasks.items()},
        }


@dataclass(frozen=True, repr=False)
class Evaluation(Mapping[str, float]):
    """A mapping of `eval_exact` and `eval_nats`, at the most examples, and of `eval_exact_k8` for each k.

    k            support examples -> scores
    draws        of the support examples, of which every score is the mean
    tests        test examples of each task
    notes        what is to be known beside the numbers
    """

    k: Mapping[int, KShot]
    draws: int
    tests: int
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> float:
        return self._flat()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._flat())

    def __len__(self) -> int:
        return len(self._flat())

    def __repr__(self) -> str:
        exact = ", ".join(f"k={k}: {found.exact.mean:.1%}" for k, found in self.k.items())
        return f"Evaluation({len(self._last.tasks)} tasks, exact answers {exact})"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            **self._flat(),
            "k": {str(k): found.facts() for k, found in self.k.items()},
            "draws": self.draws,
            "tests": self.tests,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """For people."""
        tasks, draws = list(self._last.tasks), "1 draw" if self.draws == 1 else f"{self.draws} draws"
        rows = [
            f"{len(tasks)} tasks, {self.tests} test examples each, {draws} of the k examples",
            f"{'k':<6}{'exact answers':<30}nats per answer token",
            *(f"{k:<6}{found.exact.said('.1%'):<30}{found.nats.said('.3f')}" for k, found in self.k.items()),
        ]
        if len(tasks) > 1:
            width = max(map(len, tasks))
            rows += ["", f"{'task':<{width}}  exact answers at k = {', '.join(map(str, self.k))}"]
            for name in tasks[:TASKS_SHOWN]:
                rows.append(f"{name:<{width}}  {'  '.join(f'{found.tasks[name][0]:.1%}' for found in self.k.values())}")
            rows += [f"... and {len(tasks) - TASKS_SHOWN} more: .k"] if len(tasks) > TASKS_SHOWN else []
        return [*rows, "", *self.notes]

    @property
    def _last(self) -> KShot:
        return self.k[max(self.k)]

    def _flat(self) -> dict[str, float]:
        last = self._last
        each = {
            f"eval_{name}_k{k}": getattr(found, name).mean for k, found in self.k.items() for name in ("exact", "nats")
        }
        return {"eval_exact": last.exact.mean, "eval_nats": last.nats.mean, **each}


def evaluation(
    space: ParameterSpace,
    inner: InnerLoop,
    tasks: Sequence[EncodedTask],
    *,
    k: Sequence[int],
    draws: int,
    seed: int,
    notes: Sequence[str] = (),
    say: Say = lambda *_: None,
) -> Evaluation:
    """Adapts to k examples of each task's pool, each of `draws` times, and scores its test examples."""
    todo = [(count, draw) for count in sorted(set(k)) for draw in range(draws if count else 1)]
    found = dict[int, list[list[TaskScore]]]()
    for number, (count, draw) in enumerate(todo):
        say("scoring", number, len(todo))
        supports = [draw_support(task, count, seed=seed, draw=draw) for task in tasks]
        steps = inner.steps if count else 0
        scores = adapt_and_score(space, replace(inner, steps=steps), supports, tasks, after=[steps])[steps]
        found.setdefault(count, []).append(scores)
    say("scoring", len(todo), len(todo))
    note = f"in brackets: 95 % intervals; they {covers(tasks=len(tasks), seeds=1)}"
    tests = min(len(task.test) for task in tasks)
    return Evaluation({count: _at(scores) for count, scores in found.items()}, draws, tests, (*notes, note))


def known_note(folder: Path, tasks: Sequence[EncodedTask]) -> tuple[str, ...]:
    """What is to be said where tasks of these names trained the run in the folder."""
    roles: Any = (read_manifest(folder) or {}).get("roles")
    trained: Any = roles.get("train") if isinstance(roles, dict) else None
    both = [task.task.name for task in tasks if isinstance(trained, list) and task.task.name in trained]
    if not both:
        return ()
    more = f" and {len(both) - NAMED} more" if len(both) > NAMED else ""
    return (f"trained on {', '.join(both[:NAMED])}{more}: these scores are not of new tasks",)


def check_enough(tasks: Sequence[EncodedTask], k: Sequence[int]) -> None:
    """Raises UserError with every task that has too few, and for what are no numbers of examples."""
    faults, most = Faults(), max(k, default=0)
    if not k or min(k) < 0:
        faults.add("not numbers of examples", "k", list(k), "[0, 8]: one or more, 0 or above")
    for task in tasks:
        if len(task.pool) < most:
            right = f"k of at most {len(task.pool)}, or fewer test examples"
            faults.add(f"{most} examples to adapt on are asked for", f"task {task.task.name}", len(task.pool), right)
        if not task.test:
            faults.add("no test example is left", f"task {task.task.name}", expected="more examples, or a smaller k")
    faults.raise_if_any()


def _at(draws: Sequence[Sequence[TaskScore]]) -> KShot:
    """draws: of each, a score of each task."""
    of_task = {scores[0].task: scores for scores in zip(*draws, strict=True)}
    exact = {name: np.array([[each.mean_correct for each in scores]]) for name, scores in of_task.items()}
    nats = {name: np.array([[each.mean_nats for each in scores]]) for name, scores in of_task.items()}
    tasks = {name: (float(exact[name].mean()), float(nats[name].mean())) for name in of_task}
    return KShot(_mean(exact, "accuracy"), _mean(nats, "nats"), tasks)


def _mean(values: Mapping[str, Any], metric: MetricName) -> Mean:
    """values: (1, draws) of each task."""
    found = of_scores(values, metric)
    return Mean(found["mean"], found.get("low"), found.get("high"))
