"""Curves, differences and heat maps of scores show every value, in colours and on scales that can be read."""

import colorsys
import re
from typing import Any

import numpy as np
import pytest

from innerloop.report import figures_scores
from innerloop.report.figure_style import style
from innerloop.report.page import Figure
from innerloop.report.words import MAIN_METRICS
from report.conftest import Written, small, texts, view
from results_example import HELD_OUT


@pytest.mark.parametrize("metric", MAIN_METRICS, ids=lambda metric: metric.name)
def test_a_heat_map_prints_every_difference(written: Written, metric: Any) -> None:
    shown = texts((written.folder / "figures" / f"tokens-unseen-own-heat-{metric.name}.svg").read_text("utf-8"))
    entries = [e for e in written.contents["differences"] if e["metric"] == metric.name and e["k"] == 8]
    entries = [e for e in entries if (e["table"], e["budget"], e["how"]) == ("unseen", "tokens", "own")]
    expected = [metric.change(value) for e in entries for value in (*e["tasks"].values(), e["mean"])]
    assert len(expected) == 4 * (len(HELD_OUT) + 1)
    assert sorted(text for text in shown if re.fullmatch(r"[+−]?\d+\.\d+", text)) == sorted(expected)


def test_blue_is_better_in_both_metrics(written: Written) -> None:
    """Of the cells of the mean over tasks: meta-lora is better, in-context worse."""
    for metric in MAIN_METRICS:
        svg = (written.folder / "figures" / f"tokens-unseen-own-heat-{metric.name}.svg").read_text("utf-8")
        fills = [found.lstrip("#") for found in re.findall(r"style=\"fill: (#[0-9a-f]{6}); stroke: #fefefe", svg)]
        hues = [colorsys.rgb_to_hsv(*(int(fill[i : i + 2], 16) / 255 for i in (0, 2, 4)))[0] for fill in fills[:4]]
        assert 0 < hues[0] < 0.15, "orange"
        assert 0.5 < hues[3] < 0.65, "blue"


def test_the_values_in_a_heat_map_can_be_read(written: Written) -> None:
    """Each is black or white, whichever is further from its cell: 4.5 to 1 at least."""
    for path in (written.folder / "figures").glob("*-heat-*.svg"):
        svg = path.read_text("utf-8")
        cells = re.findall(r"style=\"fill: (#[0-9a-f]{6}); stroke: #fefefe", svg)
        inks = re.findall(r"<text [^>]*fill: (#000001|#fefefe)", svg)
        assert len(cells) == len(inks) > 8
        assert min(contrast(cell, ink) for cell, ink in zip(cells, inks, strict=True)) >= 4.5


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two sRGB colours."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_a_detectable_difference_larger_than_all_others_does_not_squeeze_them() -> None:
    with style():
        narrow, wide = (
            figures_scores.differences(view(small(detectable={"nats": size, "assumptions": ""})))
            for size in (0.01, 9.0)
        )
    assert texts(narrow.svg) == texts(wide.svg), "the same ticks"
    assert "below 9.000 nats" in wide.caption


def test_a_curve_of_equal_scores_does_not_magnify_rounding() -> None:
    results = small()
    for score in results["scores"]:
        noise = {"mean": 1e-17, "low": -1e-17, "high": 2e-17}
        score |= noise if score["metric"] == "accuracy" else {}
    with style():
        figure = figures_scores.curves(view(results, metric=MAIN_METRICS[1]))
    assert isinstance(figure, Figure)
    ticks = [float(text.replace("−", "-")) for text in texts(figure.svg) if re.fullmatch(r"−?\d+(\.\d+)?", text)]
    assert max(ticks) - min(ticks) >= 4
