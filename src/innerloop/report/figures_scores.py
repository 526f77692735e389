"""Figures of scores: how well each arm does, and how far it is from joint-lora.

right         score of each arm at one k, as bars
curves        score against k, averaged over tasks, with bands
differences   arm minus joint-lora with its interval, and the smallest difference that could have been detected
heat          arm minus joint-lora for each task
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from innerloop.report.figure_style import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    VERMILLION,
    add_legend,
    marks,
    new_figure,
)
from innerloop.report.figure_view import View
from innerloop.report.page import Figure, counted, shortened
from innerloop.report.words import how_title
from innerloop.results.entries import Difference, MeanScore
from innerloop.results.names import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLACK, _WHITE, _MIDDLE = "#000001", "#fefefe", "#f7f7f7"  # of heat maps: the same on a dark page


def right(view: View, k: int, found: Mapping[str, MeanScore]) -> Figure:
    """A bar and its 95 % interval for each arm."""
    canvas, (axes,) = new_figure(0.75 + 0.34 * len(found))
    metric = view.metric
    for place, (arm, score) in enumerate(found.items()):
        look, mean = view.looks[arm], score.mean * metric.scale
        fill, edge = (PAPER, look.color) if look.hollow else (look.color, INK)
        axes.barh(place, mean, 0.6, facecolor=fill, edgecolor=edge, linewidth=0.6)
        reach = mean
        if score.low is not None and score.high is not None:
            low, reach = score.low * metric.scale, max(mean, score.high * metric.scale)
            axes.hlines(place, low, reach, color=PAPER, linewidth=2.4)
            axes.hlines(place, low, reach, color=INK, linewidth=1.1)
        axes.annotate(
            metric.plain(score.mean), (reach, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_yticks(range(len(found)), [shortened(arm, 18) for arm in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.12 or 1)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(_metric_title(view))
    what = "Right" if metric.unit == "points" else metric.title.capitalize()
    title = f"{what} on unseen tasks after {counted(k, 'example')}"
    caption = f"Mean over tasks, seeds and draws; lines are 95 % intervals, each for its own arm.{view.left_out(found)}"
    told = "; ".join(f"{arm} {view.tell(score)}" for arm, score in found.items())
    return view.finish(canvas, f"right-{metric.name}", title=title, caption=caption, alt=f"{title}: {told}.")


def curves(view: View) -> Figure | None:
    """MeanScore against k: a line and a 95 % band for each arm; an arm that is never adapted is a level line."""
    shown = [arm for arm in view.arms() if view.score(arm)]
    if not shown:
        return None
    canvas, (axes,) = new_figure(3.5)
    for arm in shown:
        _line(axes, view, arm, view.results.curve(view.budget, arm, view.how, view.metric.name))
    _k_axis(axes, view.results.ks)
    axes.set_ylim(*_spanning(axes.get_ylim(), view.metric.least))
    axes.set_xlabel("k: examples of the unseen task")
    axes.set_title(_metric_title(view))
    add_legend(canvas, {arm: view.looks[arm] for arm in shown})
    caption = (
        f"Mean over {counted(len(view.results.tasks('unseen')), 'held-out task')}, {how_title(view.how)}; "
        "bands are 95 % intervals. Arms are compared in pairs, example by example, so bands may overlap where a "
        f"difference is certain: read differences below.{view.left_out(shown)}"
    )
    told = "; ".join(f"{arm} {view.tell(score)} at k = {score.k}" for arm in shown if (score := view.score(arm)))
    title = f"{view.metric.title.capitalize()} against k"
    return view.finish(canvas, f"curves-{view.metric.name}", title=title, caption=caption, alt=f"{title}: {told}.")


def differences(view: View) -> Figure | None:
    """Arm minus joint-lora at the largest k: a point and its 95 % interval for each arm."""
    metric = view.metric
    found = {arm: entry for arm in view.arms() if (entry := view.difference(arm))}
    if not found:
        return None
    canvas, (axes,) = new_figure(0.85 + 0.26 * len(found))
    _forest(axes, view, found)
    caption = (
        f"At k = {view.k}: means over tasks, seeds, draws and examples; lines are 95 % intervals, each for its own "
        f"comparison alone. The line at 0 is {REFERENCE}."
    )
    if smallest := getattr(view.results.detectable, metric.name):
        axes.set_xlim(*axes.get_xlim())  # a shade wider than the panel must not squeeze what it is about
        axes.axvspan(-smallest * metric.scale, smallest * metric.scale, color=MUTED, alpha=0.13, linewidth=0, zorder=0)
        caption += f" Shaded: differences below {metric.size(smallest)} {metric.unit}, which this comparison may miss."
    caption += _not_compared(view, found)
    title = f"Difference from {REFERENCE} in {metric.name}"
    told = [f"{arm} {metric.words(entry.mean)}" for arm, entry in found.items()]
    alt = f"{title} at k = {view.k}: {'; '.join(told)}."
    return view.finish(canvas, f"differences-{metric.name}", title=title, caption=caption, alt=alt)


def heat(view: View) -> Figure | None:
    """Arm minus joint-lora for each task, the value in its cell; the first row is the mean over tasks."""
    found = {arm: entry for arm in view.arms() if (entry := view.difference(arm))}
    if not found:
        return None
    names = [
        task for task in view.results.tasks(view.table or "unseen") if any(task in e.tasks for e in found.values())
    ]
    table_NA = np.array(
        [[e.mean for e in found.values()], *([e.tasks.get(t, np.nan) for e in found.values()] for t in names)],
        dtype=float,
    )  # N = tasks and their mean, A = arms
    canvas, (axes,) = new_figure(1.15 + 0.27 * len(table_NA))
    _cells(axes, view, table_NA * view.metric.scale)
    axes.set_yticks(range(len(table_NA)), ["all tasks", *(shortened(task, 24) for task in names)])
    axes.set_xticks(range(len(found)), [shortened(arm, 18) for arm in found], rotation=35, ha="right")
    axes.axhline(0.5, color=INK, linewidth=1)
    points = ", points" if view.metric.unit == "points" else ""
    blue, orange = ("lower", "higher") if view.metric.lower_is_better else ("higher", "lower")
    axes.set_title(f"{view.metric.title}{points}\nblue: {blue}, orange: {orange} than {REFERENCE}")
    title = f"Difference in {view.metric.name} for each task"
    caption = (
        f"At k = {view.k}. {view.metric.title.capitalize()}: {view.metric.better}, so blue cells are "
        f"{'negative' if view.metric.lower_is_better else 'positive'}. One cell is one task's few examples and has no "
        f"interval here: read rows and columns, not cells.{_not_compared(view, found)}"
    )
    told = "; ".join(f"{arm} {view.metric.change(entry.mean)} over all tasks" for arm, entry in found.items())
    return view.finish(canvas, f"heat-{view.metric.name}", title=title, caption=caption, alt=f"{title}: {told}.")


def _metric_title(view: View) -> str:
    unit = "%, " if view.metric.unit == "points" else ""
    return f"{view.metric.title} ({unit}{view.metric.better})"


def _not_compared(view: View, found: Mapping[str, Difference]) -> str:
    return view.left_out({*found, REFERENCE}, without=f"not compared at k = {view.k}")


def _line(axes: "Axes", view: View, arm: str, points: Sequence[MeanScore]) -> None:
    look, scale = view.looks[arm], view.metric.scale
    k, middle, low, high = np.array([(p.k, p.mean, p.low, p.high) for p in points], dtype=float).T
    order = 4 if arm == REFERENCE else 3
    if len(k) == 1 and k[0] == 0 < max(view.results.ks):  # never adapted: the same at every k
        axes.axhline(middle[0] * scale, color=look.color, linestyle=look.line, linewidth=1.1, zorder=2)
    axes.plot(k, middle * scale, color=look.color, linestyle=look.line, zorder=order, **marks(look))
    if len(k) == 1:
        axes.vlines(k, low * scale, high * scale, color=look.color, linewidth=1.1, zorder=2)
    else:
        axes.fill_between(k, low * scale, high * scale, color=look.color, alpha=0.13, linewidth=0, zorder=1)


def _spanning(limits: tuple[float, float], least: float) -> tuple[float, float]:
    """The limits, widened around their middle to at least that span."""
    missing = max(0.0, least - (limits[1] - limits[0])) / 2
    return limits[0] - missing, limits[1] + missing


def _k_axis(axes: "Axes", ks: Sequence[int]) -> None:
    """Evenly in log2(1 + k): the steps between a few examples count as much as those between many."""
    axes.set_xscale("function", functions=(lambda k: np.log2(1 + np.maximum(k, -0.9)), lambda x: np.exp2(x) - 1))
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", visible=False)


def _forest(axes: "Axes", view: View, found: Mapping[str, Difference]) -> None:
    scale = view.metric.scale
    for row, (arm, entry) in enumerate(found.items()):
        look = view.looks[arm]
        if entry.low is not None and entry.high is not None:
            axes.hlines(row, entry.low * scale, entry.high * scale, color=look.color, linewidth=1.8)
        axes.plot(entry.mean * scale, row, linestyle="none", color=look.color, **marks(look))
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_xlim(*_spanning(axes.get_xlim(), view.metric.least))
    axes.set_yticks(range(len(found)), [shortened(arm, 22) for arm in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"{view.metric.title}{', points' if view.metric.unit == 'points' else ''} ({view.metric.better})")


def _cells(axes: "Axes", view: View, values_NA: np.ndarray) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    sizes = np.abs(values_NA[np.isfinite(values_NA)])
    limit = max(float(sizes.max()), 1e-12) if sizes.size else 1.0
    rows, columns = values_NA.shape
    for row, column in np.ndindex(rows, columns):
        value = float(values_NA[row, column])
        corner = (column - 0.5, row - 0.5)
        if not np.isfinite(value):
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor=MUTED, hatch="////", linewidth=0))
            continue
        end = BLUE if (value < 0) == view.metric.lower_is_better else VERMILLION
        share = abs(value) / limit
        color = [float(a + (b - a) * share) for a, b in zip(to_rgb(_MIDDLE), to_rgb(end), strict=True)]
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, edgecolor=_WHITE, linewidth=0.6))
        text = view.metric.change(value / view.metric.scale)
        weight = "bold" if row == 0 else "normal"
        ink = _BLACK if _luminance(color) > 0.18 else _WHITE
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink, fontweight=weight)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _luminance(color: Sequence[float]) -> float:
    """Relative luminance (WCAG 2) of sRGB in [0, 1]; above 0.18 black has the higher contrast."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
