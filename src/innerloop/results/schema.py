"""The files of a comparison's folder: their fields, as they are written and read.

Matrix, Cell          matrix.json: what was planned; a cell is one arm, budget and seed
Result                cells/CELL/result.json: what became of a cell; absent before it ended
PieceFile             cells/CELL/scores/*.json: the scores of one table, k, how and draw
ARMS, UNTRAINED       every arm there is, and those that nothing trains
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from innerloop.learning.methods import METHODS

UNTRAINED = ("base", "in-context")  # arms of budget "": they count in every budget
ARMS = (*UNTRAINED, *METHODS)

Table = Literal["unseen", "seen"]
How = Literal["none", "own", "tuned"]
Metric = Literal["nats", "accuracy", "stop_nats"]  # of the answer's tokens; right or wrong; of what ends the answer
Number = float | None
_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """Takes no infinity, and no text for a number. Fields beyond those named are left alone."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Cell(Record):
    cell: str = Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")  # one folder's name
    arm: str
    budget: str
    seed: int
    cost_only: bool = False


class Protocol(Record):
    model_config = ConfigDict(extra="allow")

    draws: int = Field(ge=1)


class Primary(Record):
    """The one difference that is no exploration: arm minus against. adaptation: of those that adapt."""

    arm: str
    against: str
    budget: str
    metric: Metric
    k: _Count
    adaptation: How


class Matrix(Record):
    name: str
    command: str
    matrix_yaml: str
    environment: dict[str, Any]
    started: str
    protocol: Protocol
    notes: list[str] = []
    overlaps: list[dict[str, Any]] | None = None
    detectable: dict[str, Any] = {}
    primary: Primary | None = None
    targets: dict[Metric, float] = {}
    cells: list[Cell]


class Forgotten(Record):
    """kl: task -> nats a token."""

    how: How
    k: _Count
    kl: dict[str, float] = Field(min_length=1)


class Result(Record):
    """A number that the cell doesn't have is None."""

    cell: str
    arm: str
    budget: str
    seed: int
    cost_only: bool = False
    status: Literal["done", "failed"]
    reason: str = ""
    algorithm: str | None = None
    trains: str | None = None
    parameters: Number = None
    percent: Number = None
    examples_per_task: Number = None
    tasks: Number = None
    passes: Number = None
    steps: Number = None
    tokens: Number = None
    seconds: Number = None
    tokens_per_second: Number = None
    peak_bytes: dict[str, float] = {}
    file_bytes: Number = None
    config_yaml: str | None = None
    command: str | None = None
    predicted: list[str] = []
    forgetting: list[Forgotten] = []
    training: dict[str, list[Number]] = {}


class TaskScores(Record):
    ids: list[str] = Field(min_length=1)
    nats: list[float]
    stop_nats: list[float] | None = None
    correct: list[_Share]
    cut: _Count | None = None
    support_nats: Number = None


class PieceFile(Record):
    table: Table
    arm: str
    budget: str
    seed: int
    draw: _Count
    k: _Count
    how: How
    steps: Number = None
    lr: Number = None
    tasks: dict[str, TaskScores] = Field(min_length=1)
    curve: list[tuple[int, float]] = []
