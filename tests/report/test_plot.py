"""The course of a run is one picture, which a notebook shows and a file keeps."""

import json
from pathlib import Path

import pytest

from innerloop.errors import UserError
from innerloop.report.plot import plot
from small_runs import Runs

STEP = {"step": 1, "loss": 2.0, "support_loss_first": 3.0, "support_loss_last": 1.0}


def run_folder(folder: Path, *lines: dict[str, object]) -> Path:
    manifest = {"status": "running", "config": {}, "model": {"name": "tiny"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_run_is_drawn_and_kept(runs: Runs, tmp_path: Path) -> None:
    found = plot(runs("fomaml-lora").folder)
    assert found._repr_png_().startswith(b"\x89PNG")
    for name, first in (("run.png", b"\x89PNG"), ("run.SVG", b"<?xml")):
        found.save(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(first)
    assert len(repr(found)) < 200
    for path in (tmp_path / "run.pdf", tmp_path / "run", tmp_path / "run.png" / "run.png"):
        with pytest.raises(UserError):
            found.save(path)


def test_it_has_the_lines_that_there_are(tmp_path: Path) -> None:
    every = {"support, before adapting", "support, after", "training loss", "validation tasks, after adapting"}

    def shown(*lines: dict[str, object]) -> set[str]:
        svg = plot(run_folder(tmp_path, *lines)).figure.svg
        return {label for label in every if label in svg}

    evaluated = {"step": 1, "eval": {"nats": 1.5, "exact": 0.5}}
    assert shown(STEP, {**STEP, "step": 2}, evaluated) == every
    assert shown(STEP) == every - {"validation tasks, after adapting"}
    assert shown({"step": 1, "loss": 2.0}) == {"training loss"}


def test_a_run_without_a_step_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no step"):
        plot(run_folder(tmp_path))
    with pytest.raises(UserError, match="no run here"):
        plot(tmp_path / "nowhere")
