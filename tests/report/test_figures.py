"""Figures: two files each, the same bytes every time, one look an arm, and never two budgets or tables in one."""

import re
from pathlib import Path

import matplotlib
import pytest

from innerloop.report import figures_scores
from innerloop.report.figure_style import looks, style
from innerloop.report.figure_view import View
from innerloop.report.figures import draw
from innerloop.report.page import shortened
from report.conftest import ARMS, Written, small, texts, view
from results_example import HOSTILE_TASK, MATH_TASK, example, read


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
    assert len(first) == 7
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


def test_without_numbers_nothing_is_drawn() -> None:
    nothing = {key: [] for key in ("scores", "differences", "adaptation", "training")}
    numbers = ("parameters", "percent", "examples_per_task", "tokens", "seconds", "peak_bytes")
    missing = [row for row in example()["rows"] if row["status"] == "missing"]
    rows = [{name: value for name, value in row.items() if name not in numbers} for row in missing]
    assert draw(read({**example(), "rows": rows, **nothing})) == []


def test_figures_are_drawn_without_pyplot() -> None:
    """Its figures stay in memory, and its state is the whole process's."""
    folder = Path(figures_scores.__file__).parent
    assert not [path.name for path in folder.glob("*.py") if "pyplot" in path.read_text("utf-8")]
