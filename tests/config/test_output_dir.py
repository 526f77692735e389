"""A run's folder is taken where it is empty, and left as it is where it holds anything."""

from pathlib import Path

import pytest

from innerloop.config.output_dir import empty_folder, read_lines, read_manifest
from innerloop.errors import UserError
from innerloop.files import LOCK
from innerloop.runs.journal import Journal
from small_runs import files_of


def test_an_empty_folder_is_taken_and_a_used_one_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / ".manifest.json.123-0a1b2c3d").write_text("half")  # of a start that was killed
    empty_folder(tmp_path)
    Journal(tmp_path, {"config": {}, "model": {}}).finish("done")
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=r"output_dir: this folder is not empty") as refused:
        empty_folder(tmp_path)
    assert "--resume" not in str(refused.value)
    assert files_of(tmp_path) == before
    hidden = tmp_path / "other"
    hidden.mkdir()
    (hidden / ".notes").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        empty_folder(hidden)
    assert [path.name for path in hidden.iterdir()] == [".notes"]


def test_a_folder_with_an_unfinished_run_says_what_goes_on_with_it(tmp_path: Path) -> None:
    Journal(tmp_path, {"config": {}, "model": {}})
    with pytest.raises(UserError, match=r"expected: resume=True, .*--resume auto; or a folder"):
        empty_folder(tmp_path)


def test_a_manifest_is_what_a_run_wrote(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is read_manifest(tmp_path / "nowhere") is None
    for text in ("", "{", "[]", '{"status": "done"}', "\udcff"):
        (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(UserError, match="not a manifest"):
            read_manifest(tmp_path)


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="output_dir: no folder for a run"):
            empty_folder(folder)
    assert files_of(tmp_path) == {"file": b"mine"}


def test_lines_of_steps_and_of_evaluations_are_told_apart_and_half_a_line_is_left_out() -> None:
    step, evaluation = '{"step": 2, "loss": 1.5}', '{"step": 2, "eval": {"nats": 1.5}}'
    found = read_lines(f"{step}\n{evaluation}\n{step[:-3]}")
    assert found.steps == [{"step": 2, "loss": 1.5}]
    assert found.evaluations == [{"step": 2, "eval": {"nats": 1.5}}]
    assert read_lines("") == ([], [])
