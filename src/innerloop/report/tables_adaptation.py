"""The tables of adapting to a task, each of one budget.

one_arm      scores of one arm, with what they took
adaptation   inner steps, rates, support and test loss, and their gap
targets      the fewest examples and inner steps that reach a score
forgetting   how far the answers to other prompts moved
"""

from innerloop.report.page import NOTHING, Table, TableCell, cell, number
from innerloop.report.tables import name_cell, score_cell, worst_cell
from innerloop.report.words import METRIC, budget_title, reported_metrics, signed
from innerloop.results.entries import Forgetting, Target
from innerloop.results.names import NO_BUDGET
from innerloop.results.schema import Results, unique


def one_arm(results: Results, budget: str, arm: str) -> Table:
    """Unseen tasks: a row for each k and adaptation."""
    metrics = reported_metrics(results)
    took = {(entry.k, entry.how): entry for entry in results.adaptation if entry.arm == arm}
    scored = dict.fromkeys((each.k, each.how) for each in results.scores if (each.table, each.arm) == ("unseen", arm))
    rows = []
    for k, how in sorted(scored, key=lambda key: key[0]):
        entry = took.get((k, how))
        steps, lr, gap = (entry.steps, entry.lr, entry.gap) if entry else (0, None, None)
        found = [results.score(budget, arm, how, k, metric.name) for metric in metrics]
        scores = [score_cell(results, budget, arm, *pair) for pair in zip(metrics, found, strict=True)]
        begin = [cell(k), cell(how), cell(steps, number(steps)), cell(lr, _rate(lr))]
        rows.append([*begin, *scores, cell(gap, _nats(gap)), worst_cell(found[0], metrics[0])])
    titles = (metric.heading for metric in metrics)
    columns = ["k", "adapted", "inner steps", "learning rate", *titles, "gap", "worst task"]
    return Table(f"{budget}-{arm}", f"T2 · {arm} · {budget_title(budget)}", columns, rows, wide=True)


def adaptation(results: Results, budget: str) -> Table | None:
    rows = [
        [
            name_cell(entry.arm),
            cell(entry.how),
            cell(entry.k),
            cell(entry.steps, number(entry.steps)),
            cell(entry.lr, _rate(entry.lr)),
            *(cell(value, _nats(value)) for value in (entry.support_nats, entry.test_nats, entry.gap)),
        ]
        for entry in results.adaptation
        if entry.budget in (budget, NO_BUDGET)
    ]
    columns = ["method", "adaptation", "k", "inner steps", "learning rate", "support nats", "test nats", "gap"]
    title = f"Adaptation gap · {budget_title(budget)}"
    return Table(f"{budget}-adaptation", title, columns, rows, wide=True) if rows else None


def targets(results: Results, budget: str) -> Table | None:
    """A row for each method and adaptation; two columns for each target."""
    counted = [entry for entry in results.targets if entry.budget in (budget, NO_BUDGET)]
    found = {(entry.arm, entry.how, _goal(entry)): entry for entry in counted}
    goals = unique(goal for _, _, goal in found)
    rows = []
    for arm, how in dict.fromkeys((arm, how) for arm, how, _ in found):
        entries = [found.get((arm, how, goal)) for goal in goals]
        reached = [_reached(entry, field) for entry in entries for field in ("k", "steps")]
        rows.append([name_cell(arm), cell(how), *reached])
    columns = ["method", "adaptation", *(f"{what} to {goal}" for goal in goals for what in ("examples", "inner steps"))]
    title = f"Fewest examples and inner steps to a target · {budget_title(budget)}"
    return Table(f"{budget}-targets", title, columns, rows, wide=True) if rows else None


def forgetting(results: Results, budget: str) -> Table | None:
    """A row for each method, a column for each adaptation."""
    counted = [entry for entry in results.forgetting if entry.budget in (budget, NO_BUDGET)]
    found = {(entry.arm, entry.k, entry.how): entry for entry in counted}
    adapted = sorted({(k, how) for _, k, how in found})
    rows = [
        [name_cell(arm), *(_divergence(found.get((arm, k, how))) for k, how in adapted)]
        for arm in unique(arm for arm, _, _ in found)
    ]
    columns = ["method", *(f"k = {k}, {'not adapted' if how == 'none' else how}" for k, how in adapted)]
    title = f"Forgetting: KL from the base, nats per token · {budget_title(budget)}"
    return Table(f"{budget}-forgetting", title, columns, rows) if rows else None


def _goal(entry: Target) -> str:
    metric = METRIC[entry.metric]
    sign, unit = ("≤", "") if metric.lower_is_better else ("≥", " %")
    return f"{metric.name} {sign} {metric.plain(entry.target)}{unit}"


def _reached(entry: Target | None, field: str) -> TableCell:
    if entry is None:
        return TableCell(NOTHING)
    value = getattr(entry, field)
    return TableCell("not reached") if value is None else cell(value, number(value))


def _divergence(entry: Forgetting | None) -> TableCell:
    if entry is None:
        return TableCell(NOTHING)
    interval = () if entry.low is None else (f"[{_nats(entry.low)}, {_nats(entry.high)}]",)
    return cell(entry.kl, _nats(entry.kl), detail=interval)


def _rate(value: float | None) -> str:
    return NOTHING if value is None else signed(f"{value:.1e}")


def _nats(value: float | None) -> str:
    return NOTHING if value is None else signed(f"{value:.3f}")
