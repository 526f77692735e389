"""What the scores of one budget say, as entries of results.json.

Legend: S = training seeds, D = support draws, E = test examples of a task; reference = the arm that
others are compared with.

Board           the scores that count in one budget, in the matrix's order
scores          each arm's mean with its interval, its worst task and every task
differences     each arm minus its references, with Holm's adjustment and a verdict
contrasts       two named pairs of arms
adaptation      support and test loss after adapting, and test loss on the way
targets         the fewest examples, and steps, that reach a score
note            what the intervals of a table cover
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from math import fsum
from typing import Any, NamedTuple, get_args

from innerloop.evaluation.cells import UNTRAINED, How, Metric, Table
from innerloop.evaluation.pieces import Comparison, Key, Scores, Values
from innerloop.evaluation.statistics import NO_DIFFERENCE, bootstrap, covers, holm, verdict
from innerloop.learning.methods import METHODS

REFERENCE, FULL_REFERENCE = "joint-lora", "joint"
CONTRASTS = {"algorithm": ("meta-lora", "fomaml-lora"), "parametrization": ("fomaml", "fomaml-lora")}
METRICS: tuple[Metric, ...] = get_args(Metric)
HIGHER_IS_BETTER: dict[Metric, bool] = {"nats": False, "accuracy": True}

Entry = dict[str, Any]


class Pair(NamedTuple):
    """Task -> paired differences (S, D, E), and the seeds they are of."""

    values: dict[str, Values]
    seeds: list[int]


class Board:
    """One budget: its own arms, and those that nothing trains. An arm without a whole draw is not on it."""

    def __init__(self, comparison: Comparison, budget: str, *, replicates: int) -> None:
        self.budget, self.replicates = budget, replicates
        self.arms = list(dict.fromkeys(cell.arm for cell in comparison.matrix.cells))
        found = {
            key._replace(budget=budget): scores
            for key, scores in comparison.scores.items()
            if key.budget in (budget, "") and scores.seeds
        }
        self.scores = dict(sorted(found.items(), key=lambda item: self._place(item[0])))

    def _place(self, key: Key) -> tuple[int, ...]:
        tables, hows = get_args(Table), get_args(How)
        return tables.index(key.table), self.arms.index(key.arm), hows.index(key.how), key.k

    def pair(self, key: Key, other: Key, metric: Metric) -> Pair | None:
        """key minus other, example by example, on the seeds that both have; None where there is none."""
        one, two = self.scores[key], self.scores[other]
        seeds = [seed for seed in one.seeds if seed in two.seeds]
        if not seeds:
            return None
        ours, theirs = one.array(metric, seeds), two.array(metric, seeds)
        return Pair({task: ours[task] - theirs[task] for task in ours}, seeds)

    def interval(self, values: Mapping[str, Values]) -> Entry:
        return bootstrap(values, replicates=self.replicates)._asdict()


def scores(board: Board) -> Iterator[Entry]:
    for key, found in board.scores.items():
        for metric in METRICS:
            values = found.array(metric, found.seeds)
            tasks = _means(values)
            worst = (min if HIGHER_IS_BETTER[metric] else max)(tasks, key=tasks.__getitem__)
            interval = board.interval(values)
            of_tasks = {task: board.interval({task: each}) for task, each in values.items()}
            del interval["p"]
            yield {
                **_named(key, metric),
                **interval,
                "worst": [worst, tasks[worst]],
                "tasks": tasks,
                "task_intervals": {task: [each["low"], each["high"]] for task, each in of_tasks.items()},
                "seeds": list(found.seeds),
            }


def differences(board: Board) -> list[Entry]:
    """Holm over all that are of one table, how, k and metric."""
    found: list[Entry] = []
    families: dict[tuple[Table, How, int, Metric], list[Entry]] = defaultdict(list)
    for key in board.scores:
        for reference in _references(board, key):
            for metric in METRICS:
                if (pair := board.pair(key, reference, metric)) is not None:
                    entry = {
                        **_named(key, metric),
                        "reference": reference.arm,
                        "reference_how": reference.how,
                        **board.interval(pair.values),
                        "tasks": _means(pair.values),
                        "seeds": pair.seeds,
                    }
                    found.append(entry)
                    families[key.table, key.how, key.k, metric].append(entry)
    for (*_, metric), family in families.items():
        for entry, adjusted in zip(family, holm([entry["p"] for entry in family]), strict=True):
            entry["p_holm"] = adjusted
            said = _verdict(entry, adjusted, metric)
            entry["verdict"] = f"{said} from {entry['reference']}" if said == NO_DIFFERENCE else said
    return found


def contrasts(board: Board) -> Iterator[Entry]:
    """On unseen tasks, at equal k and how. Each is a question of its own, asked beforehand: no adjustment."""
    for name, (one, other) in CONTRASTS.items():
        for key in board.scores:
            against = key._replace(arm=other)
            if key.table != "unseen" or key.arm != one or against not in board.scores:
                continue
            for metric in METRICS:
                if (pair := board.pair(key, against, metric)) is None:
                    continue
                entry = {"name": name, "of": f"{one} - {other}", "budget": board.budget, "how": key.how, "k": key.k}
                entry |= {"metric": metric, **board.interval(pair.values), "seeds": pair.seeds}
                yield {**entry, "verdict": _verdict(entry, entry["p"], metric)}


def adaptation(board: Board) -> Iterator[Entry]:
    """steps, lr: None where seeds chose different ones. curve: the inner steps that every seed and draw has."""
    for key, found in board.scores.items():
        if key.how == "none":
            continue
        test = mean(_means(found.array("nats", found.seeds)).values())
        support = [nats for piece in found.chosen for nats in piece.support.values()]
        known = [nats for nats in support if nats is not None]
        reached = mean(known) if len(known) == len(support) else None
        yield {
            "budget": key.budget,
            "arm": key.arm,
            "how": key.how,
            "k": key.k,
            "steps": _same(piece.steps for piece in found.chosen),
            "lr": _same(piece.lr for piece in found.chosen),
            "support_nats": reached,
            "test_nats": test,
            "gap": None if reached is None else test - reached,
            "curve": [list(point) for point in _curve(found).items()],
        }


def targets(board: Board, wanted: Mapping[Metric, float]) -> Iterator[Entry]:
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
            entry = {"budget": board.budget, "arm": arm, "how": how, "metric": metric, "target": target}
            yield {**entry, "k": None if first is None else first.k, "steps": steps}


def note(comparison: Comparison, table: Table) -> str | None:
    """None where nothing of the table is scored. Counts are those of the arm that has the fewest."""
    trained = [(key, found) for key, found in comparison.scores.items() if key.table == table and found.seeds]
    trained = [(key, found) for key, found in trained if key.arm not in UNTRAINED] or trained
    if not trained:
        return None
    examples = [len(ids) for _, found in trained for ids in found.chosen[0].ids.values()]
    said = covers(
        tasks=min(len(found.chosen[0].ids) for _, found in trained),
        seeds=min(len(found.seeds) for _, found in trained),
        draws=min((found.draws for key, found in trained if key.k), default=0),
        examples=min(examples),
    )
    return f"95 % intervals on {table} tasks {said}"


def mean(values: Any) -> float:
    listed = list(values)
    return fsum(listed) / len(listed)


def _references(board: Board, key: Key) -> Iterator[Key]:
    """What an arm is compared with; a reference without the arm's `how` is taken as tuned."""
    full = key.arm in METHODS and METHODS[key.arm].trains == "all"
    for arm in (REFERENCE, FULL_REFERENCE) if full else (REFERENCE,):
        same = (key._replace(arm=arm), key._replace(arm=arm, how="tuned"))
        if arm != key.arm and (known := [other for other in same if other in board.scores]):
            yield known[0]


def _verdict(entry: Entry, p: float, metric: Metric) -> str:
    return verdict(entry["low"], entry["high"], p_holm=p, higher_is_better=HIGHER_IS_BETTER[metric])


def _named(key: Key, metric: Metric) -> Entry:
    return {**key._asdict(), "metric": metric}


def _means(values: Mapping[str, Values]) -> dict[str, float]:
    return {task: float(each.mean()) for task, each in values.items()}


def _mean(found: Scores, metric: Metric) -> float:
    return mean(_means(found.array(metric, found.seeds)).values())


def _same(values: Iterator[float | None]) -> float | None:
    different = set(values)
    return plain(different.pop()) if len(different) == 1 else None


def plain(number: float | None) -> float | None:
    """A whole number without its ".0"."""
    return int(number) if number is not None and number.is_integer() else number


def _curve(found: Scores) -> dict[int, float]:
    curves = [piece.curve for piece in found.chosen]
    return {step: mean(curve[step] for curve in curves) for step in sorted(set.intersection(*map(set, curves)))}


def _reaches(value: float, target: float, metric: Metric) -> bool:
    return value >= target if HIGHER_IS_BETTER[metric] else value <= target


def _steps(found: Scores, key: Key, target: float, metric: Metric) -> int | None:
    if key.how == "none":
        return 0
    if metric != "nats":
        return None
    return next((step for step, nats in _curve(found).items() if nats <= target), None)
