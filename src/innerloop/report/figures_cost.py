"""The figure of what the scores cost.

bars     parameters, tokens, seconds and peak memory of each method
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from innerloop.report.figure_style import INK, PAPER, new_figure
from innerloop.report.figure_view import View
from innerloop.report.page import NOTHING, PREDICTED, Figure, listed, short, shortened, size
from innerloop.report.words import NOT_DONE
from innerloop.results.entries import ArmRow
from innerloop.results.names import COST
from innerloop.results.schema import unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Quantity(NamedTuple):
    """A cost of a row. field: its name in `predicted`; value: None where a row has none."""

    title: str
    field: str
    value: Callable[[ArmRow], float | None]
    show: Callable[[float], str]


def memory(rows: Sequence[ArmRow]) -> Quantity:
    """GPU memory where every trained row has it, else resident memory: one kind in one figure."""
    trained = [row for row in rows if row.peak_bytes and row.tokens]
    kind = "allocated" if trained and all("allocated" in row.peak_bytes for row in trained) else "rss"
    title = "peak GPU memory (allocated)" if kind == "allocated" else "peak memory (resident)"
    return Quantity(title, f"peak_bytes.{kind}", lambda row: row.peak_bytes.get(kind), size)


def quantities(rows: Sequence[ArmRow]) -> list[Quantity]:
    return [
        Quantity("parameters trained", "parameters", lambda row: row.parameters, short),
        Quantity("tokens", "tokens", lambda row: row.tokens, short),
        Quantity("seconds", "seconds", lambda row: row.seconds, short),
        memory(rows),
    ]


def bars(view: View) -> Figure | None:
    """A bar for each method and cost; one that failed says so in its place."""
    rows = {row.arm: row for row in view.results.rows_of(view.budget)}
    panels_of = [q for q in quantities([*rows.values()]) if any(q.value(row) is not None for row in rows.values())]
    if not panels_of:
        return None
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
    predicted = any(row.is_predicted(quantity.field) for row in rows.values() for quantity in panels_of)
    hatched = "Hatched, with ≈: predicted. " if predicted else "All measured. "
    caption = f"{about}Means over seeds. {hatched}Every scale begins at 0."
    told = "; ".join(
        f"{q.title}: " + ", ".join(f"{arm} {q.show(v)}" for arm, row in rows.items() if (v := q.value(row)) is not None)
        for q in panels_of
    )
    return view.finish(canvas, "cost", title="What each method costs", caption=caption, alt=f"Cost bars. {told}.")


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
