"""The arms of a new task side by side: what each scored on the task's test examples, for programs and for people.

Arm           nats and correctness of each test example, and what it wrote
SideBySide    the arms of one task: the base, the base with the examples in its prompt, a fresh LoRA, this run's start
Bound         a mean and the ends of its 95 % interval
mean_interval, gap_between   a mean, and the mean difference of two arms, over test examples
Means, over_tasks   an arm's means over tasks, and those of every arm
task_table, arm_table, finding, covered   for people

Intervals are over the test examples, or over tasks: they speak of these adapters on examples or tasks like these, never
of a method, for which several training seeds would be needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from innerloop.report.page import Table, TableCell
from innerloop.report.terminal import lined_up
from innerloop.results.statistics import LEVEL

OURS = "this run"
SAMPLES = 3  # test examples whose answers are shown

Bound = tuple[float, float | None, float | None]


@dataclass(frozen=True)
class Arm:
    """nats, correct, written: of each test example; steps: inner steps; seconds: of one adaptation."""

    name: str
    nats: tuple[float, ...]
    correct: tuple[float, ...]
    written: tuple[str, ...]
    seconds: float
    steps: int = 0

    @property
    def right(self) -> Bound:
        """Share of right answers: Wilson's interval."""
        count, tests = round(sum(self.correct)), len(self.correct)
        found = stats.binomtest(count, tests).proportion_ci(1 - LEVEL, method="wilson")
        return count / tests, float(found.low), float(found.high)


@dataclass(frozen=True)
class SideBySide:
    """arms: the first adapts nothing, the last is this run's.

    k                    examples that are adapted to
    prompts, references  of the test examples
    left_out             arms that could not be, and why
    folds                the test examples are those that were adapted to, each when it was left out; 0: others
    """

    k: int
    arms: tuple[Arm, ...]
    prompts: tuple[str, ...]
    references: tuple[str, ...]
    left_out: Mapping[str, str]
    folds: int = 0

    @property
    def ours(self) -> Arm:
        return self.arms[-1]

    @property
    def gain(self) -> Bound:
        """Nats that this run's adapter has less than what adapts nothing."""
        return gap_between(self.arms[0], self.ours)

    @property
    def title(self) -> str:
        """On what the arms are scored."""
        if not self.folds:
            return f"{len(self.prompts)} test examples after {self.k} of the task"
        one = len(self.prompts) == self.folds
        return f"each of {self.k} examples after the others" if one else f"{self.k} examples in {self.folds} folds"

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {
            "k": self.k,
            "tests": len(self.prompts),
            "folds": self.folds,
            "arms": {
                arm.name: {
                    "accuracy": arm.right,
                    "nats": mean_interval(arm.nats),
                    "nats_against_this_run": None if arm is self.ours else gap_between(arm, self.ours),
                    "steps": arm.steps,
                    "seconds": arm.seconds,
                    "answers": arm.written,
                }
                for arm in self.arms
            },
            "left_out": dict(self.left_out),
        }

    def lines(self) -> list[str]:
        """For people: the table, and what it speaks of."""
        rows = [
            (arm.name, arm.right, mean_interval(arm.nats), _against(arm, self.ours), str(arm.steps))
            for arm in self.arms
        ]
        gaps = {arm.name: gap_between(arm, self.ours) for arm in self.arms[:-1]}
        left_out = (f"{name}: left out: {why}" for name, why in self.left_out.items())
        return [self.title, *arm_table(rows), *left_out, finding(gaps)]

    def samples(self) -> list[str]:
        """Some prompts' last lines with each arm's answer; this run has one of them right and one wrong."""
        right = [place for place, correct in enumerate(self.ours.correct) if correct == 1]
        wrong = [place for place, correct in enumerate(self.ours.correct) if correct != 1]
        chosen = sorted([*right[: SAMPLES - len(wrong[:1])], *wrong][:SAMPLES])
        width = max(len(arm.name) for arm in self.arms)
        lines = list[str]()
        for place in chosen:
            lines.append(f"{_last_line(self.prompts[place])!r}, where {self.references[place]!r} is right")
            for arm in self.arms:
                mark = "right" if arm.correct[place] == 1 else "wrong"
                lines.append(f"    {arm.name:<{width}}  {mark}  {arm.written[place]!r}")
        return lines


def mean_interval(values: Sequence[float]) -> Bound:
    """Student's t over the values; without ends where there is one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def gap_between(arm: Arm, ours: Arm) -> Bound:
    """Nats that the arm has more, example by example."""
    return mean_interval([left - right for left, right in zip(arm.nats, ours.nats, strict=True)])


class Means(NamedTuple):
    """accuracy, nats, nats_against_this_run (None: it is this run's): over tasks, which weigh alike."""

    accuracy: Bound
    nats: Bound
    nats_against_this_run: Bound | None


def over_tasks(judged: Sequence[SideBySide]) -> dict[str, Means]:
    """Of each arm; all tasks have the same ones."""
    found: dict[str, Means] = {}
    for every in zip(*(each.arms for each in judged), strict=True):
        gaps = [gap_between(arm, each.ours)[0] for arm, each in zip(every, judged, strict=True)]
        found[every[0].name] = Means(
            _of_shares([arm.right[0] for arm in every]),
            mean_interval([mean_interval(arm.nats)[0] for arm in every]),
            None if every[0].name == OURS else mean_interval(gaps),
        )
    return found


def _of_shares(values: Sequence[float]) -> Bound:
    """Within 0 and 1; equal shares say nothing of how far apart others are."""
    mean, low, high = mean_interval(values)
    if low is None or high is None or low == high:
        return mean, None, None
    return mean, max(low, 0.0), min(high, 1.0)


def arm_table(rows: Sequence[tuple[str, Bound, Bound, Bound | None, str]]) -> list[str]:
    """(name, right, nats, nats more than this run, steps) of each arm."""
    cells = [
        [name, _shown(right, ".0%"), _shown(nats, ".2f"), _shown(more, "+.2f") if more else "", steps]
        for name, right, nats, more, steps in rows
    ]
    return _table(["", "right", "nats per token", f"more than {OURS}", "steps"], cells)


def finding(gaps: Mapping[str, Bound]) -> str:
    """A sentence. gaps: nats that another arm has more than this run's."""
    sides: dict[str, list[str]] = {"better than": [], "worse than": [], "not detectably different from": []}
    for name, (_, low, high) in gaps.items():
        if low is not None and low > 0:
            sides["better than"].append(name)
        elif high is not None and high < 0:
            sides["worse than"].append(name)
        else:
            sides["not detectably different from"].append(name)
    said = [f"{words} {', '.join(names)}" for words, names in sides.items() if names]
    return f"in nats, {OURS} is {'; '.join(said)}"


def task_table(judged: Mapping[str, SideBySide]) -> list[str]:
    """This run's adapter of each task, and what it gains over what adapts nothing."""
    first = next(iter(judged.values())).arms[0].name
    cells = list[list[str]]()
    for name, each in judged.items():
        bounds = _shown(each.ours.right, ".0%"), _shown(mean_interval(each.ours.nats), ".2f"), _shown(each.gain, "+.2f")
        cells.append([name, str(each.k), str(each.ours.steps), *bounds])
    return _table(["", "k", "steps", "right", "nats per token", f"gain over {first}"], cells)


def covered(*, folds: bool, chosen: bool, tasks: int = 1) -> list[str]:
    """What the numbers speak of. chosen: the numbers of steps were chosen on these examples."""
    over = "over test examples" if tasks == 1 else "over a task's test examples, and in the lower table over tasks"
    lines = [f"in brackets: 95 % intervals {over}, of these adapters; they say nothing of a method"]
    if folds:
        lines.append(
            "leave-one-out: an adapter of all examples has learned from a few more, so it tends to be a little better; "
            "adapters that share most of their examples make the intervals a little too narrow"
        )
    if folds and chosen:
        lines.append(
            "steps were chosen on these very examples, so the arms that adapt look a little better than they are"
        )
    return lines


def _against(arm: Arm, ours: Arm) -> Bound | None:
    return None if arm is ours else gap_between(arm, ours)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return lined_up(Table("", "", list(columns), [[TableCell(text) for text in row] for row in rows]))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[-1][-70:]


def _shown(bound: Bound, form: str) -> str:
    mean, low, high = bound
    return format(mean, form) if low is None or high is None else f"{mean:{form}} ({low:{form}} to {high:{form}})"
