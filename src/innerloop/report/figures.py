"""Every figure of a report, drawn from its Results alone: each of one budget, one table and one adaptation.

draw   the figures that the results have the numbers for

A figure's place is its part of the page ("right", "curves", "differences", "heat", "cost", "adaptation", "training",
"seen") and its budget.
"""

from collections.abc import Iterator

from innerloop.report import figures_cost, figures_scores, figures_training
from innerloop.report.figure_style import looks, style
from innerloop.report.figure_view import View
from innerloop.report.front import focus, standing
from innerloop.report.page import Figure
from innerloop.report.words import MAIN_METRICS
from innerloop.results.names import COST
from innerloop.results.schema import Results, unique


def draw(results: Results) -> list[Figure]:
    """In the order of the page. The same results give the same bytes."""
    with style():
        return [figure for figure in _draw(results) if figure]


def _draw(results: Results) -> Iterator[Figure | None]:
    costs = [COST] if any(row.cost_only for row in results.rows) else []
    budgets = [*results.budgets, *costs]
    look = looks(unique(arm for budget in budgets for arm in results.arms(budget)))
    if at := focus(results):
        view = View(results, look, at.budget, at.how, at.metric)
        yield figures_scores.right(view, at.k, standing(results, at))
    for budget in results.budgets:
        for how in results.hows(budget):
            yield from _unseen(View(results, look, budget, how))
        yield from _seen(View(results, look, budget, table="seen"))
        yield figures_training.training(View(results, look, budget, table=None))
    for budget in budgets:
        yield figures_cost.bars(View(results, look, budget, table=None))


def _unseen(view: View) -> Iterator[Figure | None]:
    for drawing in (figures_scores.curves, figures_scores.differences, figures_scores.heat):
        yield from (drawing(view.of(metric)) for metric in MAIN_METRICS)
    yield figures_training.adaptation(view)


def _seen(view: View) -> Iterator[Figure | None]:
    if view.results.holds("seen", view.budget):
        for drawing in (figures_scores.differences, figures_scores.heat):
            yield from (drawing(view.of(metric)) for metric in MAIN_METRICS)
