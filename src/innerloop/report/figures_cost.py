"""Figures of what the scores cost.

trade    score against tokens, seconds and memory, the Pareto front marked
bars     parameters, tokens, seconds and peak memory of each method
pareto   which of some points no other point beats
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from innerloop.report.figure_style import INK, MUTED, PAPER, add_legend, marks, new_figure
from innerloop.report.figure_view import View
from innerloop.report.page import NOTHING, PREDICTED, Absent, Figure, listed, short, shortened, size
from innerloop.report.words import NOT_DONE
from innerloop.results.names import COST
from innerloop.results.schema import ArmRow, Score, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Quantity(NamedTuple):
    """A cost of a row. field: its name in `predicted`; value: None where a row has none; unit: of an axis."""

    title: str
    field: str
    value: Callable[[ArmRow], float | None]
    show: Callable[[float], str]
    unit: tuple[float, str] = (1, "")


def memory(rows: Sequence[ArmRow]) -> Quantity:
    """GPU memory where every trained row has it, else resident memory: one kind in one figure."""
    trained = [row for row in rows if row.peak_bytes and row.tokens]
    kind = "allocated" if trained and all("allocated" in row.peak_bytes for row in trained) else "rss"
    title = "peak GPU memory (allocated)" if kind == "allocated" else "peak memory (resident)"
    gib = (float(1 << 30), ", GiB")
    return Quantity(title, f"peak_bytes.{kind}", lambda row: row.peak_bytes.get(kind), size, gib)


def quantities(rows: Sequence[ArmRow]) -> list[Quantity]:
    return [
        Quantity("parameters trained", "parameters", lambda row: row.parameters, short),
        Quantity("tokens", "tokens", lambda row: row.tokens, short),
        Quantity("seconds", "seconds", lambda row: row.seconds, short),
        memory(rows),
    ]


def pareto(costs: Sequence[float], goods: Sequence[float]) -> list[int]:
    """The points that no other point beats: none costs as little or less and is better, or as good and cheaper."""
    pairs = list(zip(costs, goods, strict=True))
    beaten = [any(c <= cost and g >= good and (c, g) != (cost, good) for c, g in pairs) for cost, good in pairs]
    return sorted((i for i, lost in enumerate(beaten) if not lost), key=lambda i: pairs[i])


def trade(view: View) -> Figure | Absent:
    """Score at the largest k against tokens, seconds and memory of the training; a panel for each."""
    scores = {arm: score for arm in view.arms() if (score := view.score(arm))}
    rows = {arm: row for arm in scores if (row := view.results.row(view.budget, arm))}
    panels_of = {
        q: {a: v for a, r in rows.items() if (v := q.value(r)) is not None} for q in quantities([*rows.values()])[1:]
    }
    panels_of = {quantity: costs for quantity, costs in panels_of.items() if costs}
    if not panels_of:
        return view.absent("trade", f"No {view.metric.name} against cost: no arm has both in these results.")
    canvas, panels = new_figure(0.9 + 1.75 * len(panels_of), len(panels_of))
    shown = [arm for arm in scores if any(arm in costs for costs in panels_of.values())]
    fronts = [
        f"{quantity.title}: {listed(_scatter(axes, view, quantity, scores, costs))}"
        for axes, (quantity, costs) in zip(panels, panels_of.items(), strict=True)
    ]
    panels[0].set_title(f"{view.metric.title}{' %' if view.metric.unit == 'points' else ''} ({view.metric.better})")
    add_legend(canvas, {arm: view.looks[arm] for arm in shown}, [_ring()], lines=False)
    unadapted = [arm for arm in shown if scores[arm].k != view.k]
    caption = (
        f"At k = {view.k}{f' ({listed(unadapted)}: k = 0)' if unadapted else ''}; vertical lines are 95 % intervals. "
        "Ringed and joined: the Pareto front, arms that no other arm beats in both, by their means alone. "
        f"{'≈ marks a predicted cost. ' if _any_predicted(rows, panels_of) else ''}"
        f"{view.left_out(shown, without='no cost').strip()}"
    ).strip()
    title = f"{view.metric.title.capitalize()} against cost of training"
    alt = f"{title}. On the Pareto front, by {'; by '.join(fronts)}."
    return view.finish(canvas, f"trade-{view.metric.name}", title=title, caption=caption, alt=alt)


def bars(view: View) -> Figure | Absent:
    """A bar for each method and cost; one that failed says so in its place."""
    rows = {row.arm: row for row in view.results.rows_of(view.budget)}
    panels_of = [q for q in quantities([*rows.values()]) if any(q.value(row) is not None for row in rows.values())]
    if not panels_of:
        return view.absent("cost", "No costs are in these results.")
    height = 0.55 + 0.24 * len(rows)
    canvas, panels = new_figure(0.35 + 2 * height, 2, 2, sharey=True)
    for axes, quantity in zip(panels, panels_of, strict=False):
        _bars(axes, view, quantity, rows)
    for axes in panels[len(panels_of) :]:
        axes.set_axis_off()
    steps = unique(str(row.steps) for row in rows.values() if row.steps is not None)
    about = (
        f"Runs of {listed(steps)} steps, for these figures only, never scored. "
        if view.budget == COST and steps
        else ""
    )
    hatched = "Hatched, with ≈: predicted. " if _any_predicted(rows, panels_of) else "All measured. "
    caption = f"{about}Means over seeds. {hatched}Every scale begins at 0."
    told = "; ".join(
        f"{q.title}: " + ", ".join(f"{arm} {q.show(v)}" for arm, row in rows.items() if (v := q.value(row)) is not None)
        for q in panels_of
    )
    return view.finish(canvas, "cost", title="What each method costs", caption=caption, alt=f"Cost bars. {told}.")


def _scatter(
    axes: "Axes", view: View, quantity: Quantity, scores: Mapping[str, Score], costs: Mapping[str, float]
) -> list[str]:
    """Draws the points and returns the arms of the front."""

    metric, arms, (unit, suffix) = view.metric, [*costs], quantity.unit
    goods = [scores[arm].mean * (-1 if metric.lower_is_better else 1) for arm in arms]
    front = [arms[i] for i in pareto([costs[arm] for arm in arms], goods)]
    at = {arm: (costs[arm] / unit, scores[arm].mean * metric.scale) for arm in arms}
    axes.plot(
        *zip(*(at[arm] for arm in front), strict=True), drawstyle="steps-post", color=MUTED, linewidth=1, zorder=1
    )
    axes.plot(*zip(*(at[arm] for arm in front), strict=True), **_RING, zorder=2)
    for arm in arms:
        look, score = view.looks[arm], scores[arm]
        if score.low is not None and score.high is not None:
            ends = score.low * metric.scale, score.high * metric.scale
            axes.vlines(at[arm][0], *ends, color=look.color, linewidth=1, alpha=0.7, zorder=3)
        axes.plot(*at[arm], color=look.color, linestyle="none", zorder=4, **marks(look))
        if (row := view.results.row(view.budget, arm)) and row.is_predicted(quantity.field):
            axes.annotate(PREDICTED.strip(), at[arm], (5, 4), textcoords="offset points", style="italic")
    axes.set_xlabel(quantity.title + suffix)
    axes.margins(x=0.07, y=0.12)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    return front


_RING: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 11,
    "markerfacecolor": "none",
    "markeredgecolor": MUTED,
    "markeredgewidth": 1,
}


def _ring() -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label="Pareto front", **_RING)


def _bars(axes: "Axes", view: View, quantity: Quantity, rows: Mapping[str, ArmRow]) -> None:
    values = {arm: quantity.value(row) for arm, row in rows.items()}
    largest = max((value for value in values.values() if value), default=1.0)
    for place, (arm, row) in enumerate(rows.items()):
        value, look = values[arm], view.looks[arm]
        predicted = row.is_predicted(quantity.field)
        if value is not None:
            hatch = "/////" if predicted else ""
            fill, edge = (PAPER, look.color) if predicted or look.hollow else (look.color, INK)
            axes.barh(place, value, 0.62, facecolor=fill, edgecolor=edge, hatch=hatch, linewidth=0.6)
        word = NOT_DONE.get(row.status, NOTHING)
        text = word if value is None else f"{PREDICTED if predicted else ''}{quantity.show(value)}"
        style = "italic" if predicted else "normal"
        axes.annotate(
            text, (value or 0, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5, style=style
        )
    axes.set_title(quantity.title)
    axes.set_xlim(0, largest * 1.45)
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), [shortened(arm, 16) for arm in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)


def _any_predicted(rows: Mapping[str, ArmRow], shown: Any) -> bool:
    return any(row.is_predicted(quantity.field) for row in rows.values() for quantity in shown)
