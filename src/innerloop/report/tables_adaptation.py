"""The tables of adapting to a task, each of one budget.

adaptation   inner steps, rates, support and test loss, and their gap
targets      the fewest examples and inner steps that reach a score
forgetting   how far the answers to other prompts moved
"""

from innerloop.report.page import NOTHING, Cell, Table, cell, number
from innerloop.report.tables import name_cell
from innerloop.results.lookup import METRICS, Entry, Results, budget_title, signed, unique


def adaptation(results: Results, budget: str) -> Table | None:
    found = results.of("adaptation", budget)
    rows = [
        [
            name_cell(str(entry["arm"])),
            cell(entry.get("how")),
            cell(entry.get("k")),
            cell(entry.get("steps"), number(entry.get("steps"))),
            cell(entry.get("lr"), _rate(entry.get("lr"))),
            *(cell(entry.get(key), _nats(entry.get(key))) for key in ("support_nats", "test_nats", "gap")),
        ]
        for entry in found
    ]
    columns = ["method", "adaptation", "k", "inner steps", "learning rate", "support nats", "test nats", "gap"]
    return (
        Table(f"{budget}-adaptation", f"Adaptation gap · {budget_title(budget)}", columns, rows, wide=True)
        if rows
        else None
    )


def targets(results: Results, budget: str) -> Table | None:
    """A row for each method and adaptation; two columns for each target."""
    found = {(str(e["arm"]), str(e.get("how")), _goal(e)): e for e in results.of("targets", budget)}
    goals = unique(goal for _, _, goal in found)
    rows = []
    for arm, how in dict.fromkeys((arm, how) for arm, how, _ in found):
        entries = [found.get((arm, how, goal)) for goal in goals]
        cells = [_reached(entry, key) for entry in entries for key in ("k", "steps")]
        rows.append([name_cell(arm), cell(how), *cells])
    columns = ["method", "adaptation", *(f"{what} to {goal}" for goal in goals for what in ("examples", "inner steps"))]
    title = f"Fewest examples and inner steps to a target · {budget_title(budget)}"
    return Table(f"{budget}-targets", title, columns, rows, wide=True) if rows else None


def forgetting(results: Results, budget: str) -> Table | None:
    """A row for each method, a column for each adaptation."""
    found = {(str(e["arm"]), int(e["k"]), str(e.get("how"))): e for e in results.of("forgetting", budget)}
    adapted = sorted({(k, how) for _, k, how in found})
    rows = [
        [name_cell(arm), *(_divergence(found.get((arm, k, how))) for k, how in adapted)]
        for arm in unique(arm for arm, _, _ in found)
    ]
    columns = ["method", *(f"k = {k}, {'not adapted' if how == 'none' else how}" for k, how in adapted)]
    title = f"Forgetting: KL from the base, nats a token · {budget_title(budget)}"
    return Table(f"{budget}-forgetting", title, columns, rows) if rows else None


def _goal(entry: Entry) -> str:
    metric = next((m for m in METRICS if m.name == entry.get("metric")), METRICS[0])
    sign, unit = ("≤", "") if metric.lower_is_better else ("≥", " %")
    return f"{metric.name} {sign} {metric.plain(entry['target'])}{unit}"


def _reached(entry: Entry | None, key: str) -> Cell:
    if entry is None:
        return Cell(NOTHING)
    return Cell("not reached") if entry.get(key) is None else cell(entry[key], number(entry[key]))


def _divergence(entry: Entry | None) -> Cell:
    if entry is None:
        return Cell(NOTHING)
    low, high = entry.get("low"), entry.get("high")
    interval = () if low is None or high is None else (f"[{_nats(low)}, {_nats(high)}]",)
    return cell(entry.get("kl"), _nats(entry.get("kl")), detail=interval)


def _rate(value: float | None) -> str:
    return NOTHING if value is None else signed(f"{value:.1e}")


def _nats(value: float | None) -> str:
    return NOTHING if value is None else signed(f"{value:.3f}")
