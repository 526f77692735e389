"""Runs on disk, side by side: what each is, how far it came, and in which settings two of them differ.

Legend: loss = loss per scored token, the mean of the last 20 steps (nats); validation = nats per answer token of the
last evaluation.

Listed       one run's folder, in a line
list_runs    every run below a folder, the newest first
table        such lines in columns
differences  the settings of two runs that are not the same; ABSENT where a run doesn't read one
how_it_ended  a manifest -> lines: the best evaluation, which values were exported, and why a run ended early

A folder may come from somebody else, or be half-written: what can't be read is listed as such, and nothing is loaded.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from innerloop.config.output_dir import METRICS, read_manifest
from innerloop.config.schema import KEYS, get
from innerloop.errors import Fault, UserError
from innerloop.files import MANIFEST

DEPTH = 4  # folders below the one that is looked through; a comparison's cells lie three below it
TAIL_BYTES = 65_536  # of metrics.jsonl, for its last lines
LAST = 20  # steps that a loss is the mean of: one step's is noise


@dataclass(frozen=True)
class Listed:
    """status: done, running, interrupted, failed, or unreadable; steps: done of how many; seconds: of training."""

    folder: Path
    status: str
    method: str = ""
    model: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    validation: float | None = None
    seconds: float | None = None
    bytes: int = 0

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "folder": str(self.folder)}

    def row(self) -> tuple[str, ...]:
        """For people."""
        steps = f"{self.step}/{self.steps}" if self.steps else ""
        measured = ("" if value is None else f"{value:.3f}" for value in (self.loss, self.validation))
        time = "" if self.seconds is None else f"{self.seconds:,.0f} s"
        size = f"{self.bytes / 1e6:,.1f} MB"
        return str(self.folder), self.status, self.method, self.model, steps, *measured, time, size


HEADER = ("run", "status", "method", "model", "steps", "loss", "validation", "time", "size")


def list_runs(folder: Path) -> list[Listed]:
    """Raises UserError where there is no such folder."""
    if not folder.is_dir():
        raise UserError(
            Fault("there is no such folder", str(folder), expected="a run's folder, or one that holds runs")
        )
    found = sorted(_runs(folder), key=lambda path: -(path / MANIFEST).stat().st_mtime)
    return [_of(path) for path in found]


def table(runs: list[Listed]) -> str:
    """Columns as wide as what stands in them."""
    rows = [HEADER, *(run.row() for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def differences(one: Path, other: Path) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> its value in each run; not that of the folder. Raises UserError for what is no run."""
    configs = [_config(folder) for folder in (one, other)]
    pairs = {key: tuple(get(config, key) for config in configs) for key in KEYS if key != "output_dir"}
    return {key: (left, right) for key, (left, right) in pairs.items() if left != right}


def how_it_ended(manifest: Mapping[str, Any]) -> list[str]:
    """Nothing where nothing was evaluated and every step was taken, or the manifest says it in no way that is known."""
    lines = list[str]()
    try:
        if found := manifest.get("validation"):
            nats, exact = (found["best"][name] for name in ("nats", "exact"))
            best = f"best after step {found['best_step']}: {nats:.3f} nats, {exact:.0%} exact"
            exported = f"exported: the values after step {found['exported_step']}"
            lines.append(f"evaluated {found['evaluations']} times, {best}; {exported}")
        if (steps := manifest.get("stopped_after")) is not None:
            lines.append(f"ended    after {int(steps)} steps, by {manifest['stopped_by']}")
    except (KeyError, TypeError, ValueError):
        pass
    return lines


def _config(folder: Path) -> Mapping[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(Fault(f"no {MANIFEST} here", str(folder), expected="the output_dir of a run"))
    return manifest["config"]


def _runs(folder: Path) -> Iterator[Path]:
    """Folders with a manifest, not looked into further; links are not followed."""
    waiting = deque([(folder, 0)])
    while waiting:
        place, depth = waiting.popleft()
        if (place / MANIFEST).is_file():
            yield place
        elif depth < DEPTH:
            try:
                inside = sorted(path for path in place.iterdir() if path.is_dir() and not path.is_symlink())
            except OSError:
                continue
            waiting.extend((path, depth + 1) for path in inside if not path.name.startswith("."))


def _of(folder: Path) -> Listed:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    try:
        said = read_manifest(folder)
        assert said is not None
        config = said["config"]
        lines = _tail(folder / METRICS)
        taken = [line for line in lines if "eval" not in line][-LAST:]
        last = taken[-1] if taken else {}
        losses = [line["loss"] for line in taken if line.get("adapter") == last.get("adapter")]
        return Listed(
            folder,
            status=str(said["status"]),
            method=str(config["method"]["name"]),
            model=str(config["model"]["name"]),
            step=int(last.get("step", 0)),
            steps=int(config["outer"]["steps"]),
            loss=sum(losses) / len(losses) if losses else None,
            validation=next((line["eval"]["nats"] for line in reversed(lines) if "eval" in line), None),
            seconds=said.get("timing", {}).get("seconds", last.get("timing", {}).get("seconds")),
            bytes=size,
        )
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return Listed(folder, status="unreadable", bytes=size)


def _tail(metrics: Path) -> list[dict[str, Any]]:
    """The last whole lines; none where there is no such file."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for line in lines:
        with suppress(ValueError):
            said = json.loads(line)
            found += [said] if isinstance(said, dict) else []
    return found
