"""How the seconds of a fomaml-lora step grow with tasks, inner steps, tokens, rank and model: on this machine's CPU.

    export PYTHONPATH=tests:benchmarks
    python -m robustness.growth --output benchmarks/results/growth.json     (12 minutes on two cores)

Point, axes      a step to time, and the points by what grows along them
measured         seconds of every point, all in turn
grown            axis -> its points and their fit
fit, quantile    slope of log seconds over log size by least squares, its 95 % interval by Student's t
growth_table     the result as Markdown lines
growth_figure    the result as SVG text and PNG bytes, a panel an axis

Llama shapes with random weights and a vocabulary of 8,192, float32; random tokens, the second half of each example
scored. The step that grows: 4 tasks x (3 + 1) passes x 4 examples x 32 tokens, LoRA r=16 on all linears, on the
smallest model. The run's own trainer chooses how many tasks go through one forward, and a step includes the making of
its batch. All points take turns, so that a slow spell of the machine meets them all; medians. The interval is as wide
as the medians lie beside their line: for noise, and where growth is no power.
"""

import argparse
import bisect
import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from record import header, write_result
from synthetic import Runner, Work, random_model

from innerloop.loading.shapes import skeleton

if TYPE_CHECKING:
    from transformers import PretrainedConfig

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "growth.json"
REPEATS, SLOPE_AT_MOST, TASK_AT_MOST = 5, 1.05, 0.9
FEW, MANY = 1, 16  # tasks, between which the cost of one is compared
BASE = Work(method="fomaml-lora", tasks=4, examples=4, tokens=32, steps=3, rank=16)
SHAPES = [  # width, inner width, layers, heads, heads of keys
    (256, 768, 10, 4, 2),
    (384, 1024, 12, 6, 2),
    (512, 1536, 17, 8, 4),
    (768, 2048, 20, 12, 4),
    (1024, 2816, 30, 16, 8),
]
TINY_SHAPES = [(16 * scale, 24 * scale, 2, 4, 2) for scale in range(1, 6)]


class Point(NamedTuple):
    """shape: its place among the shapes."""

    shape: int
    work: Work


class Fit(NamedTuple):
    """Seconds = constant * size ** slope; low, high: of the slope."""

    slope: float
    low: float
    high: float
    constant: float


def llama(width: int, inner: int, layers: int, heads: int, key_heads: int) -> "PretrainedConfig":
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=8192,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        tie_word_embeddings=True,
    )


def axes(shapes: "Sequence[PretrainedConfig]", base: Work) -> dict[str, dict[int, Point]]:
    """Axis -> size -> point."""

    def along(key: str, sizes: Iterable[int]) -> dict[int, Point]:
        return {size: Point(0, replace(base, **{key: size})) for size in sizes}

    return {
        "tasks": along("tasks", (1, 2, 4, 8, 16, 32)),
        "inner steps": along("steps", (1, 2, 4, 8, 16)),
        "tokens an example": along("tokens", (base.tokens << doublings for doublings in range(5))),
        "rank": along("rank", (4, 8, 16, 32, 64)),
        "parameters": {skeleton(shape).num_parameters(): Point(place, base) for place, shape in enumerate(shapes)},
    }


def measured(runners: Mapping[Point, Runner], *, repeats: int) -> dict[Point, list[float]]:
    """After one step each that isn't timed."""
    for runner in runners.values():
        runner.step()
    seconds: dict[Point, list[float]] = {point: [] for point in runners}
    for _ in range(repeats):
        for point, runner in runners.items():
            seconds[point].append(runner.seconds())
    return seconds


def benchmark(*, tiny: bool, repeats: int) -> dict[str, Any]:
    shapes = [llama(*widths) for widths in (TINY_SHAPES if tiny else SHAPES)]
    models = [random_model(shape) for shape in shapes]
    grid = axes(shapes, replace(BASE, examples=1, tokens=4) if tiny else BASE)
    points = dict.fromkeys(point for line in grid.values() for point in line.values())  # the base is on every axis
    runners = {point: Runner(models[point.shape], point.work) for point in points}
    seconds = measured(runners, repeats=repeats)
    rows = {axis: grown(line, runners, seconds) for axis, line in grid.items()}
    each = {count: statistics.median(seconds[grid["tasks"][count]]) / count for count in (FEW, MANY)}
    per_task = {"few": FEW, "many": MANY, "ratio": each[MANY] / each[FEW], "at_most": TASK_AT_MOST}
    facts = {"tiny": tiny, "shapes": [shape.to_diff_dict() for shape in shapes], "slope_at_most": SLOPE_AT_MOST}
    return header() | facts | {"axes": rows, "per_task": per_task}


def grown(
    line: Mapping[int, Point], runners: Mapping[Point, Runner], seconds: Mapping[Point, list[float]]
) -> dict[str, Any]:
    """Points and fits: over the size, and over the tokens of a step where these grow with it."""
    medians = [statistics.median(seconds[point]) for point in line.values()]
    tokens = [runners[point].trainer.method.tokens(runners[point].first) for point in line.values()]
    points = [
        {
            "size": size,
            "tokens": count,
            "tasks_per_forward": runners[point].tasks_per_forward,
            "seconds": seconds[point],
        }
        for (size, point), count in zip(line.items(), tokens, strict=True)
    ]
    over_tokens = fit(tokens, medians)._asdict() if len(set(tokens)) > 1 else None
    return {"points": points, "fit": fit(list(line), medians)._asdict(), "over_tokens": over_tokens}


def fit(sizes: Sequence[float], seconds: Sequence[float]) -> Fit:
    """Of at least 3 points."""
    xs, ys = [math.log(size) for size in sizes], [math.log(each) for each in seconds]
    slope, intercept = statistics.linear_regression(xs, ys)
    squares = sum((y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    middle, freedom = statistics.fmean(xs), len(xs) - 2
    error = math.sqrt(squares / freedom / sum((x - middle) ** 2 for x in xs))
    half = quantile(freedom) * error
    return Fit(slope, slope - half, slope + half, math.exp(intercept))


def quantile(freedom: int, *, level: float = 0.95) -> float:
    """The q with P(|t| < q) = level. With t = sqrt(freedom) tan a, a's density goes with cos(a) ** (freedom - 1)."""
    slices = 20_000
    angles = [(index + 0.5) / slices * math.pi / 2 for index in range(slices)]
    shares = list(itertools.accumulate(math.cos(angle) ** (freedom - 1) for angle in angles))
    return math.sqrt(freedom) * math.tan(angles[bisect.bisect(shares, level * shares[-1])])


def growth_table(results: dict[str, Any]) -> list[str]:
    aim = f"at most {results['slope_at_most']:g}"
    lines = [
        "| what grows | from | to | seconds per step | slope (95 %) | slope over tokens (95 %) | aim |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for axis, row in results["axes"].items():
        first, last = row["points"][0], row["points"][-1]
        span = " to ".join(f"{statistics.median(point['seconds']):.3g}" for point in (first, last))
        slopes = f"{_slope(row['fit'])} | {_slope(row['over_tokens'])}"
        lines.append(f"| {axis} | {first['size']:,} | {last['size']:,} | {span} | {slopes} | {aim} |")
    task = results["per_task"]
    said = f"A task's seconds with {task['many']} tasks per step: {task['ratio']:.2f} of those with {task['few']}"
    return [*lines, "", f"{said} (aim: at most {task['at_most']:g})."]


def _slope(fitted: dict[str, float] | None) -> str:
    return f"{fitted['slope']:.2f} ({fitted['low']:.2f} to {fitted['high']:.2f})" if fitted else ""


def growth_figure(results: dict[str, Any]) -> tuple[str, bytes]:
    from innerloop.report import figure_style as look

    with look.style():
        figure, panels = look.new_figure(6.0, 3, 2, sharey=True)  # so that slopes can be compared
        for panel, (axis, row) in zip(panels, results["axes"].items(), strict=False):
            sizes = [point["size"] for point in row["points"]]
            every = [point["seconds"] for point in row["points"]]
            medians = [statistics.median(each) for each in every]
            spread = [
                [middle - min(each) for middle, each in zip(medians, every, strict=True)],
                [max(each) - middle for middle, each in zip(medians, every, strict=True)],
            ]
            line = [row["fit"]["constant"] * size ** row["fit"]["slope"] for size in sizes]
            panel.plot(sizes, line, color=look.MUTED, linewidth=1.0)
            panel.errorbar(sizes, medians, spread, fmt="o", color=look.BLUE, markersize=4)
            panel.set(xscale="log", yscale="log", xlabel=axis)
            panel.set_title(_slope(row["fit"]))
            _plain_ticks(panel, sizes)
        for panel in panels[len(results["axes"]) :]:
            panel.set_axis_off()
        figure.suptitle("seconds per step, and the slope (95 %)", x=0.01, ha="left", fontsize=8.5)
        return look.render(figure)


def _plain_ticks(panel: Any, sizes: list[int]) -> None:
    """Numbers as they are: the house's figures read no formulas."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    panel.set_xticks(sizes, [f"{size / 1e6:.0f} M" if size >= 1e6 else f"{size:,}" for size in sizes])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="the figure goes beside it, as .svg and .png")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--tiny", action="store_true", help="models of a few thousand parameters, to try the script")
    parser.add_argument("--table", action="store_true", help=f"only print the table of --output, or of {RESULT.name}")
    options = parser.parse_args()
    if options.table:
        print("\n".join(growth_table(json.loads((options.output or RESULT).read_text()))))
        return
    results = benchmark(tiny=options.tiny, repeats=options.repeats)
    if options.output:
        write_result(options.output, results)
        svg, png = growth_figure(results)
        options.output.with_suffix(".svg").write_text(svg, encoding="utf-8")
        options.output.with_suffix(".png").write_bytes(png)
    print("\n".join(growth_table(results)))


if __name__ == "__main__":
    main()
