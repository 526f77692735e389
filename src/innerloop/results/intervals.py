"""What the scores of one budget say, as entries of results.json.

Legend: S = training seeds, D = support draws, E = test examples of a task; reference = the arm that
others are compared with.

Board           the scores that count in one budget, in the matrix's order
scores          each arm's mean with its interval, its worst task and every task
differences     each arm minus its references, with a verdict
contrasts       two pairs of arms that many ask about
primary         the one contrast that the matrix named before anything ran; every other difference is exploratory
adaptation      support and test loss after adapting, and test loss on the way
targets         the fewest examples, and steps, that reach a score
note            what the intervals of a table cover
of_scores       task -> scores (S, ...): their mean and its interval
positive        the ends of an interval of what can't be negative
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import fsum
from typing import Any, NamedTuple, get_args

from innerloop.learning.methods import METHODS
from innerloop.results.cell_files import Primary
from innerloop.results.entries import Adaptation, Contrast, Difference, MeanScore, PrimaryContrast, Target
from innerloop.results.names import (
    CONTRASTS,
    FULL_REFERENCE,
    HIGHER_IS_BETTER,
    NO_BUDGET,
    REFERENCE,
    UNTRAINED,
    How,
    MetricName,
    TaskSet,
)
from innerloop.results.pieces import Comparison, Key, Scores, Values
from innerloop.results.statistics import NO_DIFFERENCE, Interval, covers, interval, verdict

Fields = dict[str, Any]


class Pair(NamedTuple):
    """Task -> paired differences (S, D, E), and the seeds they are of."""

    values: dict[str, Values]
    seeds: list[int]


class Board:
    """One budget: its own arms, and those that nothing trains. An arm without a whole draw is not on it."""

    def __init__(self, comparison: Comparison, budget: str) -> None:
        self.budget = budget
        self._judged: dict[tuple[Key, Key, MetricName], Fields | None] = {}
        self.arms = list(dict.fromkeys(cell.arm for cell in comparison.matrix.cells))
        found = {
            key._replace(budget=budget): scores
            for key, scores in comparison.scores.items()
            if key.budget in (budget, NO_BUDGET) and scores.seeds
        }
        self.scores = dict(sorted(found.items(), key=lambda item: self._place(item[0])))

    def _place(self, key: Key) -> tuple[int, ...]:
        tables, hows = get_args(TaskSet), get_args(How)
        return tables.index(key.table), self.arms.index(key.arm), hows.index(key.how), key.k

    def pair(self, key: Key, other: Key, metric: MetricName) -> Pair | None:
        """key minus other, example by example, on the seeds that both have; None where there is none."""
        one, two = self.scores[key], self.scores[other]
        seeds = [seed for seed in one.seeds if seed in two.seeds]
        if not seeds:
            return None
        ours, theirs = one.array(metric, seeds), two.array(metric, seeds)
        return Pair({task: ours[task] - theirs[task] for task in ours}, seeds)

    def difference(self, key: Key, other: Key, metric: MetricName) -> Fields | None:
        """The fields of `Judged`, computed once."""
        asked = key, other, metric
        if asked not in self._judged:
            pair = self.pair(*asked)
            self._judged[asked] = None if pair is None else _judged(pair, higher_is_better=HIGHER_IS_BETTER[metric])
        return self._judged[asked]


def scores(board: Board) -> Iterator[MeanScore]:
    for key, found in board.scores.items():
        for metric in found.metrics:
            values = found.array(metric, found.seeds)
            tasks = _means(values)
            worst = (min if HIGHER_IS_BETTER[metric] else max)(tasks, key=tasks.__getitem__)
            cut: Fields = {"cut": found.cut} if metric == "accuracy" and found.cut else {}
            about: Fields = {"worst": (worst, tasks[worst]), "tasks": tasks, "seeds": list(found.seeds)}
            yield MeanScore(**_named(key, metric), **of_scores(values, metric), **about, **cut)


def differences(board: Board) -> Iterator[Difference]:
    for key in board.scores:
        for reference in _references(board, key):
            for metric in _shared(board, key, reference):
                if (found := board.difference(key, reference, metric)) is not None:
                    told = f" from {reference.arm}" if found["verdict"] == NO_DIFFERENCE else ""
                    against: Fields = {"reference": reference.arm, "reference_how": reference.how}
                    said: Fields = found | {"verdict": found["verdict"] + told}
                    yield Difference(**_named(key, metric), **against, **said)


def contrasts(board: Board) -> Iterator[Contrast]:
    """On unseen tasks, at equal k and how."""
    for name, (one, other) in CONTRASTS.items():
        for key in board.scores:
            against = key._replace(arm=other)
            if key.table != "unseen" or key.arm != one or against not in board.scores:
                continue
            for metric in _shared(board, key, against):
                if (found := board.difference(key, against, metric)) is not None:
                    of: Fields = {"name": name, "of": f"{one} - {other}", "budget": board.budget}
                    said = {field: value for field, value in found.items() if field != "tasks"}
                    yield Contrast(**of, how=key.how, k=key.k, metric=metric, **said)


def primary(boards: Sequence[Board], named: Primary) -> PrimaryContrast | Primary:
    """What was named, and once both arms are scored its difference."""
    for board in boards:
        keys = [_key(board, arm, named) for arm in (named.arm, named.against)]
        one, other = (next((key for key in each if key in board.scores), None) for each in keys)
        if board.budget == named.budget and one and other and (found := board.difference(one, other, named.metric)):
            return PrimaryContrast(**named.model_dump(), **found)
    return named


def adaptation(board: Board) -> Iterator[Adaptation]:
    for key, found in board.scores.items():
        if key.how == "none":
            continue
        test = _mean(found, "nats")
        support = [task.support_nats for piece in found.chosen for task in piece.tasks.values()]
        known = [nats for nats in support if nats is not None]
        reached = mean(known) if len(known) == len(support) else None
        yield Adaptation(
            budget=key.budget,
            arm=key.arm,
            how=key.how,
            k=key.k,
            steps=_same(piece.file.steps for piece in found.chosen),
            lr=_same(piece.file.lr for piece in found.chosen),
            support_nats=reached,
            test_nats=test,
            gap=None if reached is None else test - reached,
            curve=[*_curve(found).items()],
        )


def targets(board: Board, wanted: Mapping[MetricName, float]) -> Iterator[Target]:
    """k: the smallest that reaches the target; steps: on the way there, at that k, the first of the looks taken.

    k = 0, which has no `how`, begins every adaptation's line. Only nats are known on the way.
    """
    unseen = [key for key in board.scores if key.table == "unseen"]
    lines: dict[tuple[str, How], list[Key]] = {}
    for key in unseen:
        adapted = any(other.arm == key.arm and other.how != "none" for other in unseen)
        if key.how != "none" or not adapted:
            same = [other for other in unseen if other.arm == key.arm and (other.how == key.how or other.k == 0)]
            lines[key.arm, key.how] = sorted(same, key=lambda other: other.k)
    for (arm, how), line in lines.items():
        for metric, target in wanted.items():
            first = next((key for key in line if _reaches(_mean(board.scores[key], metric), target, metric)), None)
            steps = None if first is None else _steps(board.scores[first], first, target, metric)
            about: Fields = {"budget": board.budget, "arm": arm, "how": how, "metric": metric, "target": target}
            yield Target(**about, k=None if first is None else first.k, steps=steps)


def note(comparison: Comparison, table: TaskSet) -> str | None:
    """None where nothing of the table is scored. Counts are those of the arm that has the fewest."""
    trained = [(key, found) for key, found in comparison.scores.items() if key.table == table and found.seeds]
    trained = [(key, found) for key, found in trained if key.arm not in UNTRAINED] or trained
    if not trained:
        return None
    said = covers(
        tasks=min(len(found.chosen[0].ids) for _, found in trained),
        seeds=min(len(found.seeds) for _, found in trained),
    )
    return f"95 % intervals on {table} tasks {said}"


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return fsum(listed) / len(listed)


def of_scores(values: Mapping[str, Values], metric: MetricName) -> Fields:
    """Task -> scores (S, ...): their mean and its interval; no accuracy lies above 1."""
    found = positive(interval(values))
    return found | {"high": min(found["high"], 1.0)} if metric == "accuracy" and "high" in found else found


def positive(found: Interval) -> Fields:
    """Mean, low and high; neither a score nor a divergence lies below 0, so no interval needs to."""
    if found.low is None:
        return {"mean": found.mean}
    return {"mean": found.mean, "low": max(found.low, 0.0), "high": found.high}


def _references(board: Board, key: Key) -> Iterator[Key]:
    """What an arm is compared with; a reference without the arm's `how` is taken as tuned."""
    full = key.arm in METHODS and METHODS[key.arm].space.trains_base
    for arm in (REFERENCE, FULL_REFERENCE) if full else (REFERENCE,):
        same = (key._replace(arm=arm), key._replace(arm=arm, how="tuned"))
        if arm != key.arm and (known := [other for other in same if other in board.scores]):
            yield known[0]


def _key(board: Board, arm: str, named: Primary) -> list[Key]:
    """An arm that isn't adapted has no `how`."""
    return [Key("unseen", board.budget, arm, how, named.k) for how in (named.adaptation, "none")]


def _shared(board: Board, key: Key, other: Key) -> list[MetricName]:
    return [metric for metric in board.scores[key].metrics if metric in board.scores[other].metrics]


def _named(key: Key, metric: MetricName) -> Fields:
    return {**key._asdict(), "metric": metric}


def _judged(pair: Pair, *, higher_is_better: bool) -> Fields:
    found, counts = interval(pair.values), {"tasks": len(pair.values), "seeds": len(pair.seeds)}
    said = verdict(found, **counts, higher_is_better=higher_is_better)
    known = {name: value for name, value in found._asdict().items() if value is not None}
    return {**known, "tasks": _means(pair.values), "seeds": pair.seeds, "verdict": said}


def _means(values: Mapping[str, Values]) -> dict[str, float]:
    return {task: float(each.mean()) for task, each in values.items()}


def _mean(found: Scores, metric: MetricName) -> float:
    return mean(_means(found.array(metric, found.seeds)).values())


def _same(values: Iterator[float | None]) -> float | None:
    different = set(values)
    return plain(different.pop()) if len(different) == 1 else None


def plain(number: float | None) -> float | None:
    """A whole number without its ".0"."""
    return int(number) if number is not None and number == int(number) else number


def _curve(found: Scores) -> dict[int, float]:
    curves = [dict(piece.file.curve) for piece in found.chosen]
    return {step: mean(curve[step] for curve in curves) for step in sorted(set.intersection(*map(set, curves)))}


def _reaches(value: float, target: float, metric: MetricName) -> bool:
    return value >= target if HIGHER_IS_BETTER[metric] else value <= target


def _steps(found: Scores, key: Key, target: float, metric: MetricName) -> int | None:
    if key.how == "none":
        return 0
    if metric != "nats":
        return None
    return next((step for step, nats in _curve(found).items() if nats <= target), None)
