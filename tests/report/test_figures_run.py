"""Figures of one run: what is measured is drawn, means are those of the last steps, and nothing else is drawn."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.report.figure_style import style
from innerloop.report.figures_run import answered, ends, gains, losses, running, window
from innerloop.report.run_record import RunRecord, read_run
from report.conftest import texts
from report.run_example import evaluation, run_folder, step


def run_of(folder: Path, *lines: dict) -> RunRecord:
    return read_run(run_folder(folder, lines))


def test_each_figure_is_drawn_of_what_is_there(tmp_path: Path) -> None:
    run = run_of(tmp_path, *(step(n) for n in range(1, 30)), evaluation(0, 3.0, 0.1), evaluation(29, 2.0, 0.4))
    with style():
        figures = [losses(run.steps, run.evaluations), gains(run.steps), answered(run.evaluations)]
        assert [figure.name for figure in figures if figure] == ["run-losses", "run-adapting", "run-answered"]
        shown = [texts(figure.svg) for figure in figures if figure]
        assert {"training loss", "validation tasks, after adapting"} <= set(shown[0])
        assert "support, before adapting" in shown[1]
        assert "from 10.0 to 40.0 %" in getattr(figures[2], "alt", "")
        bare = losses(run.steps)
        assert bare is not None
        assert "validation tasks, after adapting" not in texts(bare.svg)


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    without = {"support_loss_first": None, "support_loss_last": None}
    run = run_of(tmp_path, *(step(n, **without) for n in range(1, 5)), evaluation(4, 2.0))
    with style():
        assert losses(run.steps, run.evaluations)
        assert (losses([]), gains(run.steps), answered(run.evaluations)) == (None, None, None)


def test_one_line_for_each_adapter_and_one_name_for_all(tmp_path: Path) -> None:
    lines = [step(n, adapter=name) for name in ("a", "b") for n in range(1, 9)]
    with style():
        figure = losses(run_of(tmp_path, *lines).steps)
        alone = losses(run_of(tmp_path / "one", *lines[:8]).steps)
    assert figure is not None
    assert alone is not None
    assert texts(figure.svg).count("training loss") == 1
    assert figure.svg.count("stroke-width: 1.8") > alone.svg.count("stroke-width: 1.8")


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=80))
def test_a_running_mean_is_the_mean_of_the_last_steps(values: list[float]) -> None:
    width = window(len(values))
    expected = [np.mean(values[max(0, place + 1 - width) : place + 1]) for place in range(len(values))]
    assert running(np.array(values)) == pytest.approx(expected, abs=1e-9)


def test_ends_are_means_of_a_fifth_and_of_20_steps_at_most() -> None:
    assert ends([*map(float, range(10))]) == (0.5, 8.5)
    assert ends([*map(float, range(1000))]) == (9.5, 989.5)
    assert ends([3.0]) == (3.0, 3.0)
