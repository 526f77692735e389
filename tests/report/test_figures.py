"""Figures: two files each, the same bytes every time, one look an arm, and never two budgets or tables in one."""

import colorsys
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from innerloop.learning.methods import METHODS
from innerloop.report import figures_scores
from innerloop.report.figure_style import looks, marker_path, style
from innerloop.report.figure_view import View
from innerloop.report.figures import draw
from innerloop.report.figures_training import POINTS, _thin
from innerloop.report.page import Absent, Figure, shortened
from innerloop.report.words import MAIN_METRICS
from report.conftest import Written
from results_example import HELD_OUT, HOSTILE_TASK, MATH_TASK, example, read

ARMS = ("base", "in-context", *METHODS)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def small(**changes: Any) -> dict[str, Any]:
    """One budget, one adaptation, two tasks."""
    given = example()
    for key in ("scores", "differences", "adaptation", "training"):
        kept = [e for e in given[key] if e.get("budget") in ("tokens", "") and e.get("how", "own") in ("own", "none")]
        given[key] = [entry for entry in kept if entry.get("table") != "seen"]
    given["rows"] = [row for row in given["rows"] if row["budget"] in ("tokens", "")]
    given["protocol"]["held_out"] = HELD_OUT[:2]
    for entry in (*given["scores"], *given["differences"]):
        entry["tasks"] = {task: entry["tasks"][task] for task in HELD_OUT[:2]}
    return given | changes


def view(results: dict[str, Any], **changes: Any) -> View:
    return View(read(results), looks(ARMS), "tokens", "own", **changes)


def test_every_figure_is_an_svg_and_a_png(written: Written) -> None:
    names = {path.stem for path in written.paths if path.parent.name == "figures"}
    assert {path.name for path in (written.folder / "figures").iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("svg", "png")
    }
    for name in names:
        png = (written.folder / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        svg = (written.folder / "figures" / f"{name}.svg").read_text("utf-8")
        assert len(texts(svg)) > 3
        assert not re.search(r"<script|<image|href=\"(?!#)|dc:date|url\((?!#)", svg), "no link, no date"
    expected = ("curves-nats", "differences-nats", "heat-nats", "adaptation")
    assert {f"{budget}-unseen-own-{kind}" for budget in ("tokens", "seconds") for kind in expected} <= names
    assert {"tokens-unseen-tuned-heat-accuracy", "tokens-seen-heat-nats", "seconds-training", "cost-cost"} <= names


def test_the_same_results_are_the_same_bytes() -> None:
    """Of one metric: every kind of figure that there is."""
    nats = small()
    for key in ("scores", "differences"):
        nats[key] = [entry for entry in nats[key] if entry["metric"] == "nats"]
    first, second = draw(read(nats)), draw(read(nats))
    assert first == second
    assert sum(isinstance(item, Figure) for item in first) == 6
    nats["scores"][0]["mean"] += 0.3
    with style():
        assert figures_scores.curves(view(nats)) not in first
        nats["scores"][0]["mean"] -= 0.3
        assert figures_scores.curves(view(nats)) in first


def test_the_users_own_settings_neither_change_a_figure_nor_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    where = view(small())
    with style():
        before = figures_scores.curves(where)
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    with style():
        assert figures_scores.curves(where) == before
    assert matplotlib.rcParams["lines.linewidth"] == 9.0


def test_an_arm_has_one_look_in_colour_and_in_grey() -> None:
    known = looks(ARMS)
    assert looks(["meta-lora", "base"])["meta-lora"] == known["meta-lora"], "whatever else is shown"
    assert len(set(known.values())) == len(ARMS)
    assert len({(look.marker, look.hollow, look.line) for look in known.values()}) == len(ARMS), "without colour"
    others = looks([*ARMS, "newest", "another"])
    assert {arm: others[arm] for arm in ARMS} == known
    assert others["newest"] != others["another"]
    assert not {others["newest"], others["another"]} & set(known.values())
    assert all(re.fullmatch(r"[MLQCZ \d.-]+", marker_path(look)) for look in known.values())


def test_no_figure_mixes_budgets_or_tables(written: Written) -> None:
    for path in (written.folder / "figures").glob("*.svg"):
        subject = " ".join(texts(path.read_text("utf-8"))[-12:]) + " ".join(texts(path.read_text("utf-8")))
        budgets = {word for word in ("equal tokens", "equal seconds", "cost only") if word in subject}
        assert budgets == {
            {"tokens": "equal tokens", "seconds": "equal seconds"}.get(path.stem.split("-")[0], "cost only")
        }
        assert ("T1 seen" in subject) == ("-seen-" in path.stem)
        assert ("T2 unseen" in subject) == ("-unseen-" in path.stem)


def test_failed_and_missing_arms_are_named_and_not_drawn(written: Written) -> None:
    folder = written.folder / "figures"
    shown = texts((folder / "seconds-unseen-own-curves-nats.svg").read_text("utf-8"))
    assert "meta-lora" in shown
    assert "fomaml-lora" not in shown
    assert {"failed", "not run yet"} <= set(texts((folder / "seconds-cost.svg").read_text("utf-8")))
    with style():
        figure = figures_scores.curves(View(read(example()), looks(ARMS), "seconds", "own"))
    assert "lora (not run yet: interrupted at step 12 of 60); fomaml-lora (failed: out of memory" in figure.caption


def test_names_of_tasks_are_text(written: Written) -> None:
    shown = texts((written.folder / "figures" / "tokens-unseen-own-heat-nats.svg").read_text("utf-8"))
    assert {shortened(HOSTILE_TASK, 24), shortened(MATH_TASK, 24)} <= set(shown), "no tags, and no mathematics"


def test_what_is_absent_is_a_sentence() -> None:
    nothing = {key: [] for key in ("scores", "differences", "adaptation", "training")}
    numbers = ("parameters", "percent", "examples_per_task", "tokens", "seconds", "peak_bytes")
    missing = [row for row in example()["rows"] if row["status"] == "missing"]
    rows = [{name: value for name, value in row.items() if name not in numbers} for row in missing]
    drawn = draw(read({**example(), "rows": rows, **nothing}))
    assert drawn
    assert all(isinstance(item, Absent) and item.sentence.startswith("No ") for item in drawn)


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


def test_long_training_curves_are_means_of_neighbours() -> None:
    values = np.random.default_rng(0).normal(size=1001)
    thin, width = _thin(values.tolist()), -(-1001 // POINTS)
    assert len(thin) <= POINTS
    assert np.allclose(thin, [values[i : i + width].mean() for i in range(0, 1001, width)])
    assert np.array_equal(_thin([1.0, None, 3.0]), [1, np.nan, 3], equal_nan=True)
    assert np.isnan(_thin(None, 4)).all()


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


def test_figures_are_drawn_without_pyplot() -> None:
    """Its figures stay in memory, and its state is the whole process's."""
    folder = Path(figures_scores.__file__).parent
    assert not [path.name for path in folder.glob("*.py") if "pyplot" in path.read_text("utf-8")]
