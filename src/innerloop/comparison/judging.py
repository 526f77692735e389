"""Will it work for mine? One new task's adapters side by side, on test examples of its own.

judge       a run, a task's support and test examples -> SideBySide
SideBySide  an Arm each: the base, the base with the support in its prompt, a fresh LoRA, and the run's own start
Arm         nats and correctness of each test example, and what it wrote

Intervals are over the test examples: they speak of these adapters on examples like these, never of a method, for which
several tasks and training seeds would be needed.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from innerloop.data.encoder import Examples
from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import Task
from innerloop.data.verifiers import verifier_of
from innerloop.engine.parts import make_space
from innerloop.engine.sources import encoder_of
from innerloop.errors import Fault, UserError
from innerloop.evaluation.generation import allowance, answers
from innerloop.evaluation.in_context import in_context_task, too_long
from innerloop.evaluation.kshot import Chunk, adapted, score
from innerloop.evaluation.scoring import verified
from innerloop.learning.inner_loop import InnerLoop
from innerloop.loading.architecture import positions_of
from innerloop.numerics.rounding import seeded
from innerloop.numerics.tensors import per_task
from innerloop.results.statistics import LEVEL
from innerloop.runs.learned import Learned
from innerloop.spaces.space import ParameterSpace

OURS = "this run"
SAMPLES = 3  # answers shown of each arm

Bound = tuple[float, float, float]  # a mean and its interval


@dataclass(frozen=True)
class Arm:
    """nats, correct, written: of each test example; seconds: to adapt, or to read the examples in the prompt."""

    name: str
    nats: tuple[float, ...]
    correct: tuple[float, ...]
    written: tuple[str, ...]
    seconds: float

    @property
    def right(self) -> Bound:
        """Share of right answers: Wilson's interval."""
        count, tests = round(sum(self.correct)), len(self.correct)
        found = stats.binomtest(count, tests).proportion_ci(1 - LEVEL, method="wilson")
        return count / tests, float(found.low), float(found.high)


@dataclass(frozen=True)
class SideBySide:
    """k: support examples; prompts, references: of the test examples; left_out: arms that could not be, and why."""

    k: int
    arms: tuple[Arm, ...]
    prompts: tuple[str, ...]
    references: tuple[str, ...]
    left_out: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        """For programs."""
        ours = self.arms[-1]
        return {
            "k": self.k,
            "tests": len(self.prompts),
            "arms": {
                arm.name: {
                    "accuracy": arm.right,
                    "nats": mean_interval(arm.nats),
                    "nats_against_this_run": None if arm is ours else difference(arm, ours),
                    "seconds": arm.seconds,
                    "answers": arm.written,
                }
                for arm in self.arms
            },
            "left_out": dict(self.left_out),
        }

    def lines(self) -> list[str]:
        """For people: the table, then some answers."""
        ours = self.arms[-1]
        header = f"{'':<12}{'right':<24}{'nats per token':<24}{f'nats more than {OURS}':<28}seconds"
        rows = [f"{len(self.prompts)} test examples after {self.k} of the task", header]
        for arm in self.arms:
            against = "" if arm is ours else _shown(difference(arm, ours), "+.2f")
            columns = f"{_shown(arm.right, '.0%'):<24}{_shown(mean_interval(arm.nats), '.2f'):<24}{against:<28}"
            rows.append(f"{arm.name:<12}{columns}{arm.seconds:.1f}")
        rows += [f"{name:<12}left out: {why}" for name, why in self.left_out.items()]
        rows.append("in brackets: 95 % intervals over test examples, of these adapters; they say nothing of a method")
        return [*rows, "", *self._samples()]

    def _samples(self) -> list[str]:
        """The last lines of some prompts, with each arm's answer."""
        lines = list[str]()
        for place in range(min(SAMPLES, len(self.prompts))):
            lines.append(f"{_last_line(self.prompts[place])!r}, where {self.references[place]!r} is right")
            for arm in self.arms:
                mark = "right" if arm.correct[place] == 1 else "wrong"
                lines.append(f"    {arm.name:<12}{mark}  {arm.written[place]!r}")
        return lines


def judge(
    learned: Learned, support: Examples, test: Examples, *, inner: InnerLoop, columns: Mapping[str, str] | None = None
) -> SideBySide:
    """Every arm on the same examples; whatever adapts takes the same inner loop, from the run's start or a fresh LoRA.

    Raises UserError for examples that can't be read, and for a test example whose prompt the support has too.
    """
    encoder, config = encoder_of(learned.config, learned.model.tokenizer), learned.config
    pool, asked = (encoder.examples(given, columns=columns) for given in (support, test))
    if both := {example.prompt_key for example in pool} & {example.prompt_key for example in asked}:
        right = "test examples that ask something else: an answer that was told shows nothing"
        raise UserError(Fault(f"{len(both)} prompts are among the examples too", "--test", expected=right))
    verifier = verifier_of(config.tasks.verifier or "exact")
    (task,) = encoder.tasks([Task("examples", pool=tuple(pool), test=tuple(asked), verifier=verifier)])
    if not task.pool or not task.test:
        raise UserError(Fault("every example is too long", "tasks.max_length", encoder.max_length, "longer"))
    arms, left_out = list[Arm](), dict[str, str]()
    if config.method.row.space.trains_base:
        left_out["base"] = "the run holds the model that it trained, and no base beside it"
        arms.append(_arm("unadapted", learned, learned.space, replace(inner, steps=0), task.behind(())))
    else:
        fresh = make_space(config, learned.model.model)
        still = replace(inner, steps=0)
        arms.append(_arm("base", learned, fresh, still, in_context_task(task, [], encoder)))
        prompted = in_context_task(task, task.pool, encoder)
        positions = positions_of(learned.model.model)
        if faults := too_long([prompted], len(task.pool), positions=positions, max_new_tokens=allowance(task)):
            left_out["in context"] = f"{faults[0].problem} ({faults[0].value} tokens, {faults[0].expected})"
        else:
            arms.append(_arm("in context", learned, fresh, still, prompted))
        arms.append(_arm("fresh LoRA", learned, fresh, inner, task.behind(task.pool)))
    arms.append(_arm(OURS, learned, learned.space, inner, task.behind(task.pool)))
    references = tuple(example.answer.strip() for example in task.task.test)
    return SideBySide(
        len(task.pool), tuple(arms), tuple(example.asks for example in task.task.test), references, left_out
    )


def mean_interval(values: Sequence[float]) -> Bound:
    """Student's t over the values; without an end where there is one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def difference(arm: Arm, ours: Arm) -> Bound:
    """Nats that the arm has more, example by example."""
    return mean_interval([left - right for left, right in zip(arm.nats, ours.nats, strict=True)])


def _arm(name: str, learned: Learned, space: ParameterSpace, inner: InnerLoop, task: EncodedTask) -> Arm:
    """Adapt, score and answer."""
    started = time.perf_counter()
    values: Mapping[str, Tensor] = per_task(space.shared, 1)
    if inner.steps:
        with seeded(learned.config.seed, "adapt", device=space.device):
            values = adapted(space, inner, Chunk([task], [task.pool])).values
    seconds = time.perf_counter() - started
    (scores,) = score(space, values, [task])
    (written,) = answers(space, dict(values), [task], tokenizer=learned.model.tokenizer, max_new_tokens=None)
    texts = tuple(answer.text for answer in written)
    return Arm(name, scores.nats, tuple(verified(task.task, texts)), texts, seconds)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[-1][-70:]


def _shown(bound: Bound, form: str) -> str:
    mean, low, high = (format(each, form) for each in bound)
    return f"{mean} ({low} to {high})"
