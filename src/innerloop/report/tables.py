"""The tables of scores, each of one budget, and the cells that other tables share with them.

scores           T2: arms against k, with intervals and the worst task
differences      T2: arms against k, minus joint-lora, with p and verdict: exploratory but for the primary contrast
seen             T1: seen tasks, the shared adapter as it is; seen_arms: whose
others           the same from another arm than joint-lora
contrasts        the two named comparisons
overlaps         examples that tasks of two roles share
name_cell        an arm and its key
score_cell       a mean and its interval, or why there is none
worst_cell       the worst task and its score
difference_cell  arm minus joint-lora, its interval and verdict
"""

from collections.abc import Sequence

from innerloop.report.page import NOTHING, Table, TableCell, cell, chance
from innerloop.report.verdict import judged
from innerloop.report.words import (
    MAIN_METRICS,
    METRIC,
    NOT_DONE,
    STOPPING,
    Metric,
    budget_title,
    how_title,
    reported_metrics,
    unequal,
)
from innerloop.results.cell_files import Overlapping
from innerloop.results.entries import Contrast, Difference, Judged, MeanScore
from innerloop.results.names import REFERENCE, How, TaskSet
from innerloop.results.schema import Results


def scores(results: Results, budget: str, how: How, metric: Metric) -> Table:
    """Unseen tasks: mean over tasks at each k, and the worst task at the largest."""
    rows = []
    for arm in results.arms(budget):
        found = [results.score(budget, arm, how, k, metric.name) for k in results.ks]
        worst = next((score for score in reversed(found) if score), None)
        cells = [score_cell(results, budget, arm, metric, entry) for entry in found]
        beside = [*_stopping(results, budget, how, arm, metric), *_cut(results, metric, found)]
        rows.append([name_cell(arm), *cells, *beside, worst_cell(worst, metric)])
    beside = [f"{STOPPING.title}, largest k"] if _stops(results, metric) else []
    beside += ["answers cut off, all k"] if _cuts(results, metric) else []
    columns = ["method", *(f"k = {k}" for k in results.ks), *beside, "worst task, largest k"]
    title = f"T2 · {metric.heading} ({metric.better}) · {how_title(how)} · {budget_title(budget)}"
    return Table(f"{budget}-{how}-{metric.name}", title, columns, rows)


def differences(results: Results, budget: str, how: How, metric: Metric) -> Table:
    """Unseen tasks: arm minus joint-lora at each k."""
    rows = []
    for arm in results.arms(budget):
        if arm != REFERENCE:
            found = [results.difference(budget, arm, how, k, metric.name) for k in results.ks]
            rows.append([name_cell(arm), *(difference_cell(results, budget, arm, metric, entry) for entry in found)])
    what = f"{metric.differences}, arm minus {REFERENCE} ({_sign(metric)})"
    title = f"T2 · {what} · {how_title(how)} · {budget_title(budget)} · exploratory"
    columns = ["method", *(f"k = {k}" for k in results.ks)]
    return Table(f"{budget}-{how}-{metric.name}-differences", title, columns, rows)


def others(results: Results, budget: str, table: TaskSet) -> Table | None:
    """Differences from another arm than joint-lora: of full training from full joint training."""
    rows = []
    for entry in results.others(budget, table):
        metric = METRIC[entry.metric]
        about = [cell(entry.reference), cell(entry.how), cell(entry.k), cell(metric.title)]
        rows.append([name_cell(entry.arm), *about, difference_cell(results, budget, entry.arm, metric, entry)])
    columns = ["method", "minus", "adaptation", "k", "metric", "difference"]
    title = (
        f"{'T2' if table == 'unseen' else 'T1'} · differences from other arms · {budget_title(budget)} · exploratory"
    )
    return Table(f"{budget}-{table}-others", title, columns, rows) if rows else None


def seen(results: Results, budget: str) -> Table:
    """T1: the tasks of training, other examples, no adaptation."""
    rows, columns = [], ["method"]
    for metric in reported_metrics(results):
        columns += [
            metric.heading,
            f"{metric.differences} minus {REFERENCE}",
            f"worst task, {metric.title if metric is STOPPING else metric.name}",
        ]
    for arm in seen_arms(results, budget):
        row = [name_cell(arm)]
        for metric in reported_metrics(results):
            score = results.score(budget, arm, "none", 0, metric.name, "seen")
            change = results.difference(budget, arm, "none", 0, metric.name, "seen")
            row += [
                score_cell(results, budget, arm, metric, score),
                difference_cell(results, budget, arm, metric, change),
            ]
            row.append(worst_cell(score, metric))
        rows.append(row)
    title = f"T1 · seen tasks, shared adapter, no adaptation · {budget_title(budget)}"
    return Table(f"{budget}-seen", title, columns, rows, wide=True)


def seen_arms(results: Results, budget: str) -> list[str]:
    """The arms that have a score of T1, or failed to: an arm without a shared adapter has no place there."""
    arms = results.arms(budget)
    scored = {a for a in arms for m in MAIN_METRICS if results.score(budget, a, "none", 0, m.name, "seen")}
    return [a for a in arms if a in scored or ((row := results.row(budget, a)) and row.status in NOT_DONE)]


def contrasts(entries: Sequence[Contrast], budget: str) -> Table:
    rows = []
    for entry in entries:
        metric = METRIC[entry.metric]
        mark, words = judged(entry, entry.pair[1])
        told = words.partition(" from ")[0]
        rows.append(
            [
                cell(entry.name),
                cell(" − ".join(entry.pair)),
                cell(metric.title),
                cell(entry.k),
                cell(entry.how),
                cell(entry.mean, f"{metric.change(entry.mean)} {metric.unit}", detail=_interval(metric, entry)),
                cell(entry.p, chance(entry.p)),
                TableCell("", told, mark=mark, tag=told),
            ]
        )
    columns = ["contrast", "difference of", "metric", "k", "adaptation", "difference", "p", "verdict"]
    return Table(f"{budget}-contrasts", f"Contrasts · {budget_title(budget)} · exploratory", columns, rows, wide=True)


def overlaps(entries: Sequence[Overlapping]) -> Table:
    """A row for each task and other role that has some of its examples."""
    rows = [
        [
            cell(entry.task),
            cell(entry.role.replace("_", "-")),
            cell(entry.test, f"{entry.test} of {entry.of_test}"),
            cell(entry.pool, f"{entry.pool} of {entry.of_pool}"),
            cell(f"{entry.role_of}: {', '.join(entry.others)}"),
            cell(entry.used),
        ]
        for entry in entries
    ]
    columns = ["task", "role", "test examples", "pool examples", "which are also in", "and used there"]
    return Table("overlaps", "Examples in tasks of two roles, equal prompt and answer", columns, rows, wide=True)


def name_cell(arm: str) -> TableCell:
    return TableCell(arm, arm, arm=arm)


def score_cell(results: Results, budget: str, arm: str, metric: Metric, entry: MeanScore | None) -> TableCell:
    if entry is None:
        return _no_score(results, budget, arm)
    return cell(entry.mean, metric.plain(entry.mean), detail=_interval(metric, entry, plain=True))


def difference_cell(
    results: Results, budget: str, arm: str, metric: Metric, entry: Difference | None, *, p: bool = True
) -> TableCell:
    if entry is None:
        return TableCell("reference") if arm == REFERENCE else _no_score(results, budget, arm)
    mark, words = judged(entry, entry.reference)
    chances = (f"p {chance(entry.p)}",) if p and entry.p is not None else ()
    other = (unequal(entry),) if unequal(entry) else ()
    first = ("primary contrast",) if results.is_primary(entry) else ()
    tag = words.partition(" than ")[0].partition(" from ")[0]
    details = (*_interval(metric, entry), *chances, *other, *first)
    return TableCell(metric.change(entry.mean), entry.mean, details, mark, tag)


def _no_score(results: Results, budget: str, arm: str) -> TableCell:
    row = results.row(budget, arm)
    word = NOT_DONE.get(row.status, NOTHING) if row else NOTHING
    return TableCell(word, mark="" if row and row.status == "done" else "failed")


def _stops(results: Results, metric: Metric) -> bool:
    return metric is MAIN_METRICS[0] and STOPPING in reported_metrics(results)


def _stopping(results: Results, budget: str, how: How, arm: str, metric: Metric) -> list[TableCell]:
    """Beside the nats of the answer, those of what ends it."""
    if not _stops(results, metric):
        return []
    found = next(reversed(results.curve(budget, arm, how, STOPPING.name)), None)
    return [score_cell(results, budget, arm, STOPPING, found)]


def _cuts(results: Results, metric: Metric) -> bool:
    return any(score.cut for score in results.scores if score.metric == metric.name)


def _cut(results: Results, metric: Metric, found: Sequence[MeanScore | None]) -> list[TableCell]:
    """Answers that were ended by their length and not by themselves: what they lack can't be right."""
    if not _cuts(results, metric):
        return []
    known = [score.cut for score in found if score and score.cut]
    if not known:
        return [TableCell(NOTHING)]
    cut, answers = (sum(counts) for counts in zip(*known, strict=True))
    return [cell(cut, f"{cut} of {answers}")]


def worst_cell(score: MeanScore | None, metric: Metric) -> TableCell:
    if score is None:
        return TableCell(NOTHING)
    task, value = score.worst
    return cell(value, metric.plain(value), detail=(task,))


def _interval(metric: Metric, entry: MeanScore | Judged, *, plain: bool = False) -> tuple[str, ...]:
    if entry.low is None or entry.high is None:
        return ()
    show = metric.plain if plain else metric.change
    return (f"[{show(entry.low)}, {show(entry.high)}]",)


def _sign(metric: Metric) -> str:
    return "below 0 is better" if metric.lower_is_better else "above 0 is better"
