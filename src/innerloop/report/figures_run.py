"""Figures of one run, from what it has measured so far.

Legend: S = outer steps, N = nats per scored token.

losses       training, support and validation losses against the outer step
gains        what adapting gains on the support, and the gap that is left to the query examples
course       all losses in one figure
answered     exact answers on the validation tasks
running      the mean of a series over its last steps
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from innerloop.report.figure_style import BLUE, GREEN, INK, MUTED, ORANGE, VERMILLION, new_figure, render
from innerloop.report.page import Figure, short
from innerloop.report.run_record import EvalLine, StepLine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = NDArray[np.float64]
SMOOTHING, FEWEST = 0.1, 5  # share of the steps, and steps, of a mean that shows a trend through the noise of few tasks


def losses(steps: Sequence[StepLine], evaluations: Sequence[EvalLine] = ()) -> Figure | None:
    """None where no step has been taken yet."""
    if not steps:
        return None
    canvas, (axes,) = new_figure(3.1)
    for of_one in by_adapter(steps).values():
        x_S, loss_SN = _column(of_one, "step"), _column(of_one, "loss")
        axes.plot(x_S, loss_SN, color=BLUE, linewidth=0.6, alpha=0.35)
        axes.plot(x_S, running(loss_SN), color=BLUE, linewidth=1.8, label="training loss")
    _validated(axes, evaluations)
    _finish(axes, "loss, nats per token (lower is better)")
    title = "Loss while training"
    caption = (
        f"Thin: every step; thick: its running mean over {window(len(steps))} steps. Training loss: what the gradient "
        "is of, on query examples where the method has an inner loop."
    )
    first, last = ends([step.loss for step in steps])
    alt = f"{title}: from {first:.3f} to {last:.3f} over {len(steps)} steps."
    return _drawn(canvas, "losses", title, caption, alt)


def gains(steps: Sequence[StepLine]) -> Figure | None:
    """None for a method without an inner loop."""
    known = [s for s in steps if s.support_loss_first is not None and s.support_loss_last is not None]
    if not known:
        return None
    canvas, (axes,) = new_figure(3.1)
    x_S = _column(known, "step")
    first_SN, last_SN, loss_SN = (_column(known, name) for name in ("support_loss_first", "support_loss_last", "loss"))
    for values, color, style, label in (
        (first_SN, ORANGE, (0, (1, 1.5)), "support, before adapting"),
        (last_SN, GREEN, (0, (4, 2)), "support, after"),
        (loss_SN, BLUE, "-", "query, after"),
    ):
        axes.plot(x_S, running(values), color=color, linestyle=style, linewidth=1.6, label=label)
    axes.fill_between(x_S, running(last_SN), running(loss_SN), color=MUTED, alpha=0.15, linewidth=0)
    _finish(axes, "loss, nats per token (lower is better)")
    title = "What adapting brings"
    caption = (
        "Running means. From dotted to dashed: what the inner steps gain on a task's own support examples. Shaded: the "
        "gap to its query examples, what was learned of the examples and not of the task."
    )
    alt = f"{title}: support {ends([*first_SN])[1]:.3f} before and {ends([*last_SN])[1]:.3f} after adapting at the end."
    return _drawn(canvas, "adapting", title, caption, alt)


def course(steps: Sequence[StepLine], evaluations: Sequence[EvalLine] = ()) -> Figure | None:
    """All losses on one pair of axes; None where no step has been taken yet."""
    if not steps:
        return None
    canvas, (axes,) = new_figure(3.1)
    lines = (
        ("support_loss_first", ORANGE, (0, (1, 1.5)), "support, before adapting"),
        ("support_loss_last", GREEN, (0, (4, 2)), "support, after"),
        ("loss", BLUE, "-", "training loss"),
    )
    for of_one in by_adapter(steps).values():
        for name, color, dashes, label in lines:
            values = _column(of_one, name)
            if np.isfinite(values).any():
                axes.plot(_column(of_one, "step"), running(values), color=color, linestyle=dashes, label=label)
    _validated(axes, evaluations)
    _finish(axes, "loss, nats per token (lower is better)")
    first, last = ends([step.loss for step in steps])
    alt = f"Training loss from {first:.3f} to {last:.3f} over {len(steps)} steps"
    return _drawn(canvas, "course", "Losses while training", "Running means of what each step measured.", alt)


def answered(evaluations: Sequence[EvalLine]) -> Figure | None:
    """None where no evaluation counted them."""
    known = [(each.step, 100 * each.eval.exact) for each in evaluations if each.eval.exact is not None]
    if not known:
        return None
    canvas, (axes,) = new_figure(3.1)
    x, right = zip(*known, strict=True)
    axes.plot(x, right, color=VERMILLION, marker="D", linewidth=1.4, label="validation tasks, after adapting")
    axes.set_ylim(bottom=0)
    _finish(axes, "exact answers, % (higher is better)")
    title = "Exact answers on validation tasks"
    alt = f"{title}: from {right[0]:.1f} to {right[-1]:.1f} %."
    return _drawn(
        canvas,
        "answered",
        title,
        "Answers that greedy decoding gives exactly. Each task adapts by itself, to the same examples every time.",
        alt,
    )


def by_adapter(steps: Sequence[StepLine]) -> dict[str, list[StepLine]]:
    found: dict[str, list[StepLine]] = {}
    for step in steps:
        found.setdefault(step.adapter, []).append(step)
    return found


def window(count: int) -> int:
    return min(count, max(FEWEST, round(SMOOTHING * count)))


def running(values: Values) -> Values:
    """Each with the mean of itself and those before it, `window` of them together."""
    width = window(len(values))
    sums = np.cumsum(np.insert(values, 0, 0.0))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - width)
    return (sums[stop] - sums[start]) / (stop - start)


def ends(values: Sequence[float]) -> tuple[float, float]:
    """The means of the first and the last steps: a fifth of them, 20 at most."""
    count = max(1, min(20, len(values) // 5))
    return float(np.mean(values[:count])), float(np.mean(values[-count:]))


def _column(steps: Sequence[StepLine], name: str) -> Values:
    return np.array([getattr(step, name) for step in steps], dtype=np.float64)


def _validated(axes: "Axes", evaluations: Sequence[EvalLine]) -> None:
    scored = [(each.step, each.eval.nats) for each in evaluations if each.eval.nats is not None]
    if scored:
        x, nats = zip(*scored, strict=True)
        axes.plot(x, nats, color=VERMILLION, marker="D", linewidth=1.4, label="validation tasks, after adapting")


def _finish(axes: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title)
    axes.set_xlabel("outer steps")
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.grid(axis="x", visible=False)
    handles: Mapping[Any, Any] = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # one a label
    figure = axes.figure.get_figure(root=True)
    assert figure is not None
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, labelcolor=INK)


def _drawn(canvas: Any, name: str, title: str, caption: str, alt: str) -> Figure:
    svg, png = render(canvas)
    return Figure(f"run-{name}", (name, "", ""), title, caption, alt, svg, png)
