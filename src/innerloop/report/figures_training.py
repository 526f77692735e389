"""Figures of how training went, and of how a test task is adapted to.

training     support loss, query loss and their gap while training
adaptation   the test loss after each inner step
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from innerloop.report.figure_style import INK, MUTED, add_legend, marks, new_figure
from innerloop.report.figure_view import View
from innerloop.report.page import Figure, listed, short
from innerloop.report.words import absence
from innerloop.results.entries import Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes


POINTS = 150  # of a curve; longer ones are means of neighbouring steps, and the caption says so


def training(view: View) -> Figure | None:
    """For each trained arm and seed: losses on the left, query minus adapted support loss on the right."""
    runs: dict[str, list[Curves]] = {}
    for entry in view.results.training:
        if entry.budget == view.budget and entry.loss:
            runs.setdefault(entry.arm, []).append(entry)
    if not runs:
        return None
    canvas, panels = new_figure(0.75 + 1.2 * len(runs), len(runs), 2, sharex=True)
    for (arm, entries), (left, right) in zip(runs.items(), zip(panels[::2], panels[1::2], strict=True), strict=True):
        _training_row(left, right, view, arm, entries)
    panels[1].set_title("gap: query − adapted support", fontsize=7.5)
    by_tokens = all(entry.tokens for entries in runs.values() for entry in entries)
    for axes in panels[-2:]:
        axes.set_xlabel("tokens" if by_tokens else "outer steps")
    canvas.supylabel("nats per answer token", fontsize=8, color=MUTED)
    add_legend(canvas, {}, _training_handles())
    width = max(-(-len(entry.loss) // POINTS) for entries in runs.values() for entry in entries)
    caption = (
        "Solid: the loss whose gradient trains, on query examples where the method has an inner loop, on all examples "
        "where it has none. Dotted and dashed: loss on the support examples before and after the inner loop. A gap "
        "above 0 is what adapting to the support set doesn't carry over. One line per seed"
        f"{f'; a point is the mean of {width} outer steps' if width > 1 else ', every outer step'}."
    )
    alt = f"Training curves of {listed([*runs])}: losses, and the gap between query and support loss, against tokens."
    return view.finish(canvas, "training", title="Training", caption=caption + _untrained(view, runs), alt=alt)


def adaptation(view: View) -> Figure | None:
    """Mean test loss after each inner step at the largest k that has a curve."""
    from matplotlib.ticker import MaxNLocator

    entries = [e for e in view.results.adaptation if (e.budget, e.how) == (view.budget, view.how) and e.curve]
    k = max((entry.k for entry in entries), default=0)
    lines = {entry.arm: entry.curve for entry in entries if entry.k == k}
    if not lines:
        return None
    canvas, (axes,) = new_figure(3.1)
    for arm, curve in lines.items():
        look = view.looks[arm]
        step, nats = (np.array(column, dtype=float) for column in zip(*curve, strict=True))
        every = max(1, len(step) // 6)
        axes.plot(step, nats, color=look.color, linestyle=look.line, markevery=every, **marks(look))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("inner steps")
    axes.set_title("test loss, nats per answer token (lower is better)")
    add_legend(canvas, {arm: view.looks[arm] for arm in lines})
    title = f"Test loss after each inner step, k = {k}"
    told = "; ".join(f"{arm} from {curve[0][1]:.3f} to {curve[-1][1]:.3f}" for arm, curve in lines.items())
    caption = f"Mean over held-out tasks, seeds and draws, without intervals.{view.left_out(lines, without='no curve')}"
    return view.finish(canvas, "adaptation", title=title, caption=caption, alt=f"{title}: {told} nats.")


def _training_row(left: "Axes", right: "Axes", view: View, arm: str, entries: Sequence[Curves]) -> None:
    look = view.looks[arm]
    for entry in entries:
        loss = _thin(entry.loss)
        x = _thin(entry.tokens or range(1, len(entry.loss) + 1))
        last = _thin(entry.support_last, len(loss))
        left.plot(x, loss, color=look.color, linewidth=1.3, alpha=0.9)
        left.plot(x, _thin(entry.support_first, len(loss)), color=look.color, linewidth=0.9, linestyle=(0, (1, 1.5)))
        left.plot(x, last, color=look.color, linewidth=0.9, linestyle=(0, (4, 2)))
        right.plot(x, loss - last, color=look.color, linewidth=1.1)
    if not any(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in right.lines):
        right.text(
            0.5, 0.5, "no inner loop, so no gap", transform=right.transAxes, ha="center", fontsize=7.5, color=MUTED
        )
        right.set_yticks([])
    else:
        right.axhline(0, color=MUTED, linewidth=0.8)
    left.set_title(arm, fontsize=7.5)
    for axes in (left, right):
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(lambda value, _: short(value))


def _training_handles() -> list[Any]:
    from matplotlib.lines import Line2D

    styles = {"training loss": "-", "support, before": (0, (1, 1.5)), "support, after": (0, (4, 2))}
    return [Line2D([], [], color=INK, linewidth=1.1, linestyle=style, label=label) for label, style in styles.items()]


def _thin(values: Any, length: int = 0) -> np.ndarray:
    """At most POINTS means of neighbours, nan where none has a value; all nan, of `length`, for no values at all."""
    numbers = np.array([np.nan if value is None else value for value in values or []], dtype=float)
    if not len(numbers):
        return np.full(length, np.nan)
    width = -(-len(numbers) // POINTS)
    starts = np.arange(0, len(numbers), width)
    there = np.isfinite(numbers)
    with np.errstate(invalid="ignore"):  # 0 of 0 is nan
        return np.add.reduceat(np.where(there, numbers, 0.0), starts) / np.add.reduceat(there, starts, dtype=float)


def _untrained(view: View, runs: Mapping[str, Any]) -> str:
    trained = [arm for arm in view.arms() if (row := view.results.row(view.budget, arm)) and row.budget]
    missing = [f"{arm} ({absence(view.results, view.budget, arm)})" for arm in trained if arm not in runs]
    return f" Left out: {'; '.join(missing)}." if missing else ""
