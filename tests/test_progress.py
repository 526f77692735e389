"""Bars on standard error: what was said last is what they show."""

import pytest

from innerloop.progress import stage_bars, step_bars
from innerloop.runs.trainer import Metrics


def metrics(step: int, loss: float) -> Metrics:
    return Metrics(step, loss, None, None, 1.0, 10, 12)


def test_a_bar_of_steps_shows_the_last_loss(capsys: pytest.CaptureFixture[str]) -> None:
    with step_bars(3) as on_step:
        on_step("", metrics(1, 2.5))
        on_step("", metrics(2, 1.25))
        on_step("other", metrics(1, 9.0))
    said = capsys.readouterr()
    assert said.out == ""
    assert "training  loss 1.250" in said.err
    assert "2/3" in said.err
    assert "other  loss 9.000" in said.err


def test_what_comes_next_ends_the_bar_before(capsys: pytest.CaptureFixture[str]) -> None:
    with stage_bars() as say:
        say("first", "training", 1, 4)
        say("first", "scoring", 1, 2)
        say("second", "training", 0, 4)
    said = capsys.readouterr()
    assert said.out == ""
    assert "first  scoring" in said.err
    assert "2/2" in said.err
    assert "second  training" in said.err
    assert "0/4" in said.err
