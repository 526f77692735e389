"""A run's folder, before it is written and when it is found again.

occupied, empty_folder    whether a new run can have a folder, and that folder
read_manifest   what an earlier start said in it
METRICS, Lines, read_lines   what was measured: a line for each outer step, and for each evaluation between them
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from innerloop.errors import Fault, Faults, UserError
from innerloop.files import LOCK, MANIFEST, is_leftover, make_folder

GO_ON = 'resume=True, resume_from_checkpoint="auto", or innerloop train with --resume auto'


def occupied(folder: Path) -> list[Fault]:
    """Why no new run can have this folder; nothing where it is empty or isn't there yet. Makes none."""
    right = "a folder that doesn't exist yet, or an empty one"
    try:
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        names = set[str]()
        if folder.exists():
            names = {path.name for path in folder.iterdir() if not is_leftover(path)} - {LOCK}
        elif not above.is_dir():
            return [Fault(f"no folder for a run: {above} is a file", "output_dir", str(folder), right)]
        if not names and not os.access(above, os.W_OK | os.X_OK):
            return [Fault(f"no folder for a run: {above} can't be written to", "output_dir", str(folder), right)]
    except OSError as error:
        return [Fault(f"no folder for a run: {error.strerror}", "output_dir", str(folder), right)]
    if not names:
        return []
    with suppress(UserError):
        said = read_manifest(folder)
        if said is not None:
            right = f"{GO_ON if said['status'] != 'done' else 'load_run, for what it learned'}; or {right}"
    return [Fault("this folder is not empty", "output_dir", str(folder), right)]


def empty_folder(folder: Path) -> None:
    """Makes a folder for a new run. Raises UserError where it holds something: nothing is overwritten."""
    Faults(occupied(folder)).raise_if_any()
    try:
        make_folder(folder)
    except OSError as error:
        problem = f"no folder for a run: {error.strerror}"
        raise UserError(Fault(problem, "output_dir", str(folder), "a folder that can be made")) from None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """None where a run never got as far. Raises UserError for a file that no run wrote."""
    path = folder / MANIFEST
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(Fault(f"not a manifest: {error}", str(path))) from None
    if not isinstance(said, dict) or not {"status", "config", "model"} <= said.keys():
        raise UserError(Fault("not a manifest", str(path), expected="what a run wrote"))
    return said


METRICS = "metrics.jsonl"


class Lines(NamedTuple):
    """steps: of the outer steps; evaluations: of validation tasks, each with its own under `eval`."""

    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


def read_lines(text: str) -> Lines:
    """The text of a run's metrics.jsonl. A last line that was not written to its end is left out."""
    found = Lines([], [])
    for line in text.split("\n")[:-1]:
        said = json.loads(line)
        (found.evaluations if "eval" in said else found.steps).append(said)
    return found
