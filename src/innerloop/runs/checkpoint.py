"""Checkpoints of a run: whole or absent, never overwritten, and checked before they are used.

    checkpoints/step-00000040/   state.safetensors   values, the outer optimizer's moments
                                 state.json          counters, and what was measured so far
                                 metrics.jsonl       the lines so far
                                 manifest.json       size and sha256 of each: written last
    checkpoints/latest           the name of the newest

Saved          the state that training continues from
Checkpoints    save(state), newest()
newest         the newest sound one, and what is wrong with those after it
require_room   whether the disk has room for what a run will write
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from innerloop.errors import Fault, RunError, UserError
from innerloop.files import damage, replaced_folder, seal, write_whole
from innerloop.numerics.tensors import not_finite

FOLDER, LATEST = "checkpoints", "latest"
STATE, FACTS, LINES = "state.safetensors", "state.json", "metrics.jsonl"
_NAME = re.compile(r"step-[0-9]{8,}")
_SLACK = 2**20  # bytes of headers, folders and JSON


@dataclass(frozen=True)
class Saved:
    """step: outer steps so far, of all adapters; tensors: by name; facts: JSON; metrics: lines of metrics.jsonl."""

    step: int
    tensors: Mapping[str, Tensor]
    facts: dict[str, Any]
    metrics: str


class Found(NamedTuple):
    """skipped: (folder, what is wrong with it) of those that are newer than `state`."""

    state: Saved | None
    path: Path | None
    skipped: list[tuple[Path, str]]


class Checkpoints:
    """Those of one run; the caller holds the run's lock. keep: how many stay."""

    def __init__(self, run: Path, *, keep: int) -> None:
        self.folder, self.keep = run / FOLDER, keep

    def save(self, state: Saved) -> None:
        """Written beside and flushed, renamed into place; then `latest` moves, then old ones go.

        Nothing happens where this step has one. Raises OSError or SafetensorError where the disk refuses, and RunError
        for values that are not finite; what was there before is then as it was.
        """
        target = self.folder / f"step-{state.step:08d}"
        if target.exists():
            return
        if broken := not_finite(state.tensors):
            raise RunError(f"step {state.step}: {broken[0]} holds NaN or infinity: no checkpoint was written")
        require_room(self.folder.parent, size_of(state.tensors) + 2 * len(state.metrics))
        with replaced_folder(target) as fresh:
            save_file({name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}, fresh / STATE)
            (fresh / FACTS).write_text(json.dumps(state.facts, indent=1), encoding="utf-8")
            (fresh / LINES).write_text(state.metrics, encoding="utf-8")
            seal(fresh)
        write_whole(self.folder / LATEST, f"{target.name}\n".encode())
        self._prune()

    def set_aside(self, damaged: Path) -> None:
        """Makes way for a checkpoint of the same step; it goes with the next one that is saved."""
        aside = damaged.with_name(f"{damaged.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        damaged.rename(aside)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _prune(self) -> None:
        kept = {path.name for path in _published(self.folder)[: self.keep]}
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)


def newest(run: Path) -> Found:
    """Every byte of a checkpoint is checked before it is read; one that is damaged is skipped for the one before."""
    skipped: list[tuple[Path, str]] = []
    for path in _published(run / FOLDER):
        wrong = damage(path)
        if not wrong:
            try:
                return Found(_read(path), path, skipped)
            except (OSError, ValueError, SafetensorError) as error:
                wrong = f"can't be read: {error}"
        skipped.append((path, wrong))
    return Found(None, None, skipped)


def fill(into: Mapping[str, Tensor], stored: Mapping[str, Tensor], where: Path) -> None:
    """Copies stored values into tensors that are there: a file's own memory is aligned otherwise, and that may change
    the last bit of what is computed with it. Raises UserError where names, shapes or dtypes differ."""
    for name in sorted(into.keys() | stored.keys()):
        described = [_described(values.get(name)) for values in (stored, into)]
        if described[0] != described[1]:
            raise UserError(Fault(f"the checkpoint's {name} is another", str(where), *described))
    for name, value in into.items():
        value.copy_(stored[name])


def size_of(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.nbytes for value in tensors.values())


def require_room(folder: Path, needed: int) -> None:
    """Raises OSError where the disk of `folder` has not that many bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed + _SLACK:
        said = f"{os.strerror(errno.ENOSPC)}: {free:,} bytes are free, {needed + _SLACK:,} are needed"
        raise OSError(errno.ENOSPC, said, str(folder))


def _published(folder: Path) -> list[Path]:
    """The newest first."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def _read(path: Path) -> Saved:
    facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    metrics = (path / LINES).read_text(encoding="utf-8")
    return Saved(int(path.name.removeprefix("step-")), load_file(path / STATE), facts, metrics)


def _described(value: Tensor | None) -> str:
    return "none" if value is None else f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
