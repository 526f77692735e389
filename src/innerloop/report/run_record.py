"""A run's folder as far as it has come, read for its page. It may be running, or come from somebody else.

RunRecord    the parts of manifest.json, the lines of metrics.jsonl, run.yaml, and the newest scores under eval/
StepLine     one outer step; losses are nats per scored token, of the query and of the support examples
EvalLine     the validation tasks, between two steps
RunManifest, PhaseBytes   what manifest.json says that the page shows
read_run     folder -> RunRecord
"""

# ruff: noqa: RUF012 (pydantic gives each record a default of its own)

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from innerloop.config.output_dir import METRICS
from innerloop.errors import Fault, Faults, UserError
from innerloop.files import MANIFEST
from innerloop.report.words import printable
from innerloop.results.cell_files import Environment, Overlapping
from innerloop.results.names import Number, Record, read_record
from innerloop.results.schema import RESULTS, Results


class _Trained(Record):
    parameters: int = 0
    model_parameters: int = 0
    percent: float = 0.0


class _Plan(Record):
    method: str = ""
    algorithm: str = ""
    inner: str | None = None
    outer: str = ""
    trained: _Trained = _Trained()
    tasks: int = 0
    examples_per_task: int = 0
    adapters: int = 1
    steps: int = 0
    tasks_per_step: int = 0
    dropped: dict[str, int] = {}
    overlaps: list[Overlapping] = []
    warnings: list[str] = []


class PhaseBytes(Record):
    """phases: of a step -> part -> bytes at that phase's peak."""

    phases: dict[str, dict[str, int]] = {}
    seconds: Number = None


class _Host(Record):
    environment: Environment = Environment()
    measured: PhaseBytes = PhaseBytes()
    peak_bytes: dict[str, int | float] = {}


class _Timing(Record):
    seconds: Number = None


class _Model(Record):
    name: str


class _Chosen(Record):
    exported: str = ""
    exported_step: int


class RunManifest(Record):
    """validation: which values were exported, where validation tasks were evaluated."""

    status: str
    reason: str = ""
    config: dict[str, Any]
    model: _Model
    plan: _Plan = _Plan()
    roles: dict[str, list[str]] = {}
    forecast: PhaseBytes = PhaseBytes()
    host: _Host = _Host()
    timing: _Timing = _Timing()
    tokens: Number = None
    validation: _Chosen | None = None
    stopped_after: int | None = None
    stopped_by: str = ""


class StepLine(Record):
    """adapter: whose, where a run trains several one after the other."""

    step: int
    adapter: str = ""
    loss: float
    support_loss_first: Number = None
    support_loss_last: Number = None
    tokens: Number = None
    timing: _Timing = _Timing()


class _Scores(Record):
    nats: Number = None
    exact: Number = None


class _Means(_Scores):
    tasks: dict[str, _Scores] = {}


class EvalLine(Record):
    """eval: means over tasks, and each task's own."""

    step: int
    eval: _Means


@dataclass(frozen=True)
class RunRecord:
    """eval: what `innerloop eval` found last, if it was asked."""

    name: str
    manifest: RunManifest
    steps: list[StepLine]
    evaluations: list[EvalLine]
    config_yaml: str
    eval: Results | None


def read_run(folder: Path) -> RunRecord:
    """Lines that are half-written or damaged are left out. Raises UserError for a folder that holds no run."""
    if not (folder / MANIFEST).is_file():
        raise UserError(Fault("no run here", str(folder), expected="the output_dir of a run"))
    faults = Faults()
    manifest = read_record(folder / MANIFEST, RunManifest, faults)
    faults.raise_if_any()
    assert manifest is not None
    lines = _text(folder / METRICS).splitlines()
    return RunRecord(
        name=printable(folder.absolute().name),
        manifest=printable(manifest),
        steps=_lines(lines, StepLine),
        evaluations=[printable(line) for line in _lines(lines, EvalLine)],
        config_yaml=printable(_text(folder / "run.yaml")),
        eval=printable(_newest(folder / "eval")),
    )


_Line = TypeVar("_Line", StepLine, EvalLine)


def _lines(lines: list[str], kind: type[_Line]) -> list[_Line]:
    found: list[_Line] = []
    for line in lines:
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError:
            continue
    return found


def _newest(folder: Path) -> Results | None:
    for path in sorted(folder.glob(f"*/{RESULTS}"), key=lambda path: -path.stat().st_mtime):
        try:
            return Results.read(path)
        except UserError:
            continue
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
