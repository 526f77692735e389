"""The entries of results.json, one class per list of it.

ArmRow              what an arm's training was and took at one budget: means over its seeds
MeanScore, Difference   an arm's mean, and how far it is from another arm's
Contrast, PrimaryContrast, Adaptation, Target, Forgetting, Curves   the other lists
Question, ArmAnswer   a question of an unseen task, and what each arm wrote

Legend: arm = a contender; budget = what the arms have equal; how = "none", "own" or "tuned" adaptation; k = examples
of a test task; table = "unseen" (T2) or "seen" (T1) tasks; reference = the arm that every other is compared with.
A field that nothing was measured for is left out of the file. A class's later base has its first fields.
"""

# ruff: noqa: RUF012 (pydantic gives each record a default of its own)

from typing import Literal

from innerloop.results.cell_files import Primary, Spent, Training
from innerloop.results.names import COST, Count, How, MetricName, Number, Record, TaskSet


class Standing(Record):
    arm: str
    budget: str
    cost_only: bool
    status: Literal["done", "failed", "missing"]
    reason: str
    seeds: list[int]
    predicted: list[str]


class ArmRow(Spent, Standing):
    """predicted: names of its numbers that nobody measured."""

    @property
    def group(self) -> str:
        """The budget that it is shown under: cells of a few steps are never beside trained ones."""
        return COST if self.cost_only else self.budget

    def is_predicted(self, field: str) -> bool:
        """`peak_bytes` names all kinds of memory at once."""
        return bool({field, field.split(".")[0], field.split(".")[-1]} & set(self.predicted))


class Named(Record):
    table: TaskSet
    budget: str
    arm: str
    how: How
    k: Count
    metric: MetricName


class MeanScore(Named):
    """worst: a task and its score; cut: how many answers were cut off before they ended, of how many."""

    mean: float
    low: float | None = None
    high: float | None = None
    worst: tuple[str, float]
    tasks: dict[str, float]
    seeds: list[int]
    cut: tuple[Count, Count] | None = None


class Judged(Record):
    """A difference. low, high, p: None where there are too few tasks or seeds for them."""

    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    tasks: dict[str, float] = {}
    seeds: list[int]
    verdict: str


class Against(Named):
    reference: str
    reference_how: How


class Difference(Judged, Against):
    """arm minus reference."""


class Of(Record):
    """of: "arm - reference"."""

    name: str
    of: str
    budget: str
    how: How
    k: Count
    metric: MetricName


class Contrast(Judged, Of):
    """arm minus reference, of two that many ask about."""

    @property
    def pair(self) -> tuple[str, str]:
        arm, _, reference = self.of.rpartition(" - ")
        return arm, reference


class PrimaryContrast(Judged, Primary):
    """The difference that was named before anything ran, once both arms are scored."""


class AtK(Record):
    budget: str
    arm: str
    how: How
    k: Count


class Adaptation(AtK):
    """steps, lr: None where seeds chose different ones. curve: (inner step, test nats)."""

    steps: Number
    lr: Number
    support_nats: float | None
    test_nats: float
    gap: float | None
    curve: list[tuple[int, float]]


class Forgetting(AtK):
    """kl: from the base, on other text, nats per token."""

    kl: float
    low: float | None = None
    high: float | None = None


class Target(Record):
    """k, steps: the fewest that reach the target; None: it isn't reached, or nobody looked on the way."""

    budget: str
    arm: str
    how: How
    metric: MetricName
    target: float
    k: Count | None
    steps: Count | None


class ArmAnswer(AtK):
    """text: as it was written, bounded in length; correct: 0 to 1."""

    text: str
    correct: float


class Question(Record):
    """A test example of an unseen task, by its id, and what the arms wrote in one draw of one seed."""

    task: str
    id: str
    prompt: str
    right: str
    answers: list[ArmAnswer]


class TrainedCell(Record):
    budget: str
    arm: str
    seed: int


class Curves(Training, TrainedCell):
    """Of one cell's training."""
