"""The files of a comparison's folder that results.json is made of.

PlanFile, PlannedCell   matrix.json: what was planned; a cell is one arm, budget and seed
CellFile                cells/CELL/result.json: what became of a cell; absent before it ended
PieceFile               cells/CELL/scores/*.json: the scores of one table, k, how and draw
PlannedProtocol, Environment, Detectable, Overlapping, Primary, Training   parts that results.json takes over
"""

# ruff: noqa: RUF012 (pydantic gives each record a default of its own)

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from innerloop.results.names import Count, How, MetricName, Number, Record, TaskSet

_Share = Annotated[float, Field(ge=0, le=1)]


LONGEST_NAME = 255  # bytes of a folder's, on the file systems that there are


def _short(name: str) -> str:
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        raise ValueError(f"longer than {LONGEST_NAME} bytes")
    return name


class PlannedCell(Record):
    cell: Annotated[str, AfterValidator(_short)] = Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")  # one folder's name
    arm: str
    budget: str
    seed: int
    cost_only: bool = False


class PlannedProtocol(Record):
    """How every arm is scored: k, draws of the support examples, training seeds, and the tasks of each role."""

    draws: int = Field(ge=1)
    k: list[Count] = []
    seeds: list[int] = []
    test_examples: Count | None = None
    train: list[str] = []
    validation: list[str] = []
    held_out: list[str] = []


class Environment(Record):
    model_config = ConfigDict(extra="allow")

    python: str | None = None
    platform: str | None = None
    threads: int | None = None
    cuda: str | None = None
    packages: dict[str, str] = {}
    commit: str | None = None


class Detectable(Record):
    """The smallest differences that the comparison can find, and what that assumes."""

    nats: float | None = None
    accuracy: float | None = None
    assumptions: str = ""


class Overlapping(Record):
    """Examples of a task that tasks of another role have too, as `data.leaks.Overlap` counts them."""

    task: str
    role: str
    test: Count
    of_test: Count
    pool: Count
    of_pool: Count
    role_of: str
    used: Count
    others: list[str]


class Primary(Record):
    """The one difference that is no exploration: arm minus against. adaptation: of those that adapt."""

    arm: str
    against: str
    budget: str
    metric: MetricName
    k: Count
    adaptation: How


class PlanFile(Record):
    name: str
    command: str
    matrix_yaml: str
    environment: Environment
    started: str
    protocol: PlannedProtocol
    notes: list[str] = []
    overlaps: list[Overlapping] | None = None
    detectable: Detectable = Detectable()
    primary: Primary | None = None
    targets: dict[MetricName, float] = {}
    cells: list[PlannedCell]


class Forgotten(Record):
    """kl: task -> nats per token."""

    how: How
    k: Count
    kl: dict[str, float] = Field(min_length=1)


class Training(Record):
    """What training recorded, a number per outer step; losses on the support before and after the inner loop."""

    tokens: list[float | None] = []
    seconds: list[float | None] = []
    loss: list[float | None] = []
    support_first: list[float | None] = []
    support_last: list[float | None] = []


class Spent(Record):
    """What a cell's training was and took. A number that the cell doesn't have is None."""

    algorithm: str | None = None
    trains: str | None = None
    config_yaml: str | None = None
    command: str | None = None
    parameters: Number = None
    percent: Number = None
    examples_per_task: Number = None
    tasks: Number = None
    passes: Number = None
    steps: Number = None
    tokens: Number = None
    seconds: Number = None
    tokens_per_second: Number = None
    file_bytes: Number = None
    peak_bytes: dict[str, int | float] = {}


class CellFile(Spent):
    cell: str
    arm: str
    budget: str
    seed: int
    cost_only: bool = False
    status: Literal["done", "failed"]
    reason: str = ""
    predicted: list[str] = []
    forgetting: list[Forgotten] = []
    training: Training = Training()


class AnswerSample(Record):
    """One test example and an answer as it was written, both bounded in length."""

    id: str
    prompt: str
    right: str
    written: str
    correct: _Share


class TaskScores(Record):
    """samples: some of the answers, in words. unchecked: why answers that could not be checked count as wrong."""

    ids: list[str] = Field(min_length=1)
    nats: list[float]
    stop_nats: list[float] | None = None
    correct: list[_Share]
    cut: Count | None = None
    unchecked: list[str] = []
    samples: list[AnswerSample] = []
    support_nats: float | None = None


class PieceFile(Record):
    table: TaskSet
    arm: str
    budget: str
    seed: int
    draw: Count
    k: Count
    how: How
    steps: Number = None
    lr: Number = None
    tasks: dict[str, TaskScores] = Field(min_length=1)
    curve: list[tuple[int, float]] = []
