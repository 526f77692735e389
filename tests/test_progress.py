"""What a command is busy with: said at once, moving on a terminal, in plain lines elsewhere, and ending at all of n."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from innerloop import progress
from innerloop.engine.metrics import Metrics, ValidationScore
from innerloop.progress import busy
from small_runs import World, config_file


def metrics(step: int, loss: float) -> Metrics:
    return Metrics(step, loss, None, None, 1.0, 10, 12, passes=1, inner_steps=1)


# plain lines


def test_the_first_line_comes_before_anything_else(capsys: pytest.CaptureFixture[str]) -> None:
    with busy("reading run.yaml"):
        assert capsys.readouterr() == ("", "reading run.yaml\n")


def test_each_thing_ends_with_a_line_of_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with busy("reading") as now:
        now.say("scoring", 0, 3)
        for done in range(4):
            now.say("scoring", done, 3)
        now.say("loading")
        for step in (1, 2):
            now.step("", metrics(step, 2.5 / step), 2)
        now.step("ada", metrics(1, 9.0), 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "reading",
        "scoring  3/3",
        "loading",
        "training  2/2  loss 1.250",
        "training ada  1/1  loss 9.000",
    ]


def test_a_step_shows_the_last_evaluation_and_where_the_best_was(capsys: pytest.CaptureFixture[str]) -> None:
    with busy("reading") as now:
        now.evaluated(ValidationScore(0, None, 0.0, {}), None)
        now.step("", metrics(1, 2.0), 2)
        best = ValidationScore(1, 1.25, 0.5, {})
        now.evaluated(best._replace(step=2, nats=1.5), best)
        now.step("", metrics(2, 2.0), 2)
        now.step("next", metrics(1, 2.0), 1)
    said = capsys.readouterr().err.splitlines()
    assert "training  2/2  loss 2.000  eval 1.500 nats, 50% exact, best at step 1" in said


def test_what_ends_early_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    """The control of the above: nothing is rounded up to its end."""
    with busy("reading") as now:
        now.say("scoring", 1, 3)
        now.say("next")
    assert "scoring  1/3\n" in capsys.readouterr().err


def test_what_takes_long_is_said_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.01)
    with busy("reading") as now:
        now.say("scoring", 2, 9)
        said, until = "", time.monotonic() + 60
        while "scoring  2/9" not in said and time.monotonic() < until:
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert "scoring  2/9" in said


# a terminal


def on_a_terminal(*argv: str | Path, columns: int = 80) -> str:
    """What a terminal gets of the command, both streams."""
    parent, child = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm"}
    command = [sys.executable, "-m", "innerloop", *map(str, argv)]
    process = subprocess.Popen(command, stdout=child, stderr=child, stdin=subprocess.DEVNULL, env=environment)
    os.close(child)
    said = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        said += piece
    os.close(parent)
    process.wait()
    return said.decode()


def plain(said: str) -> list[str]:
    """Lines as they are left on the screen, without colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    return [line.rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_a_terminal_gets_a_moving_line_and_none_that_it_would_break(world: World, tmp_path: Path, columns: int) -> None:
    config = config_file(world, tmp_path, changes={"outer.steps": 3})
    said = on_a_terminal("check" if columns != 80 else "train", config, columns=columns)
    assert "\x1b[" in said
    assert "loading the model" in said
    left = plain(said)
    assert any(line.startswith("method   fomaml-lora") for line in left)
    whole = [
        line for line in left if all(len(word) < columns / 2 for word in line.split())
    ]  # a path stays in one piece
    longest = max(whole, key=len)
    assert len(longest) <= columns, longest
    if columns == 80:
        assert any(line.startswith("training  3/3  loss") for line in left)


def test_a_fault_is_broken_between_words(world: World, tmp_path: Path) -> None:
    config = config_file(world, tmp_path, changes={"tasks.held_out": ["zork"], "tasks.support": "eight"})
    left = plain(on_a_terminal("check", config, columns=60))
    words = " ".join(line.strip() for line in left)
    assert "no task or family has this name" in words
    assert "whole number above 0" in words
