"""results.json: what a comparison found, written, read and looked up here alone.

Results     all of it, a list per class of `entries`, where the words are explained
unique      names without repetitions, in order
"""

# ruff: noqa: RUF012 (pydantic gives each record a default of its own)

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from innerloop.errors import Fault, Faults, UserError
from innerloop.files import write_json
from innerloop.results.cell_files import Detectable, Environment, Overlapping, PlannedProtocol, Primary
from innerloop.results.entries import (
    Adaptation,
    ArmRow,
    Contrast,
    Curves,
    Difference,
    Forgetting,
    MeanScore,
    PrimaryContrast,
    Question,
    Target,
)
from innerloop.results.names import (
    COST,
    NO_BUDGET,
    REFERENCE,
    How,
    MetricName,
    Record,
    TaskSet,
    read_record,
)

FORMAT, RESULTS = 1, "results.json"


_Entry = TypeVar("_Entry", MeanScore, Difference)
_Index = dict[tuple[str, str, str, str, int, str], _Entry]


class Results(Record):
    """overlaps: None where nobody looked for them."""

    format: Literal[1]
    name: str
    status: Literal["done", "partial"]
    started: str = ""
    command: str = ""
    matrix_yaml: str = ""
    environment: Environment = Environment()
    notes: list[str] = []
    overlaps: list[Overlapping] | None = None
    protocol: PlannedProtocol
    detectable: Detectable = Detectable()
    primary: PrimaryContrast | Primary | None = None
    rows: list[ArmRow] = []
    scores: list[MeanScore] = []
    differences: list[Difference] = []
    contrasts: list[Contrast] = []
    adaptation: list[Adaptation] = []
    targets: list[Target] = []
    forgetting: list[Forgetting] = []
    training: list[Curves] = []
    questions: list[Question] = []

    def __repr__(self) -> str:
        arms = {each.arm for each in (*self.rows, *self.scores)}
        return f"Results({self.name!r}, {len(arms)} arms, {len(self.scores)} scores)"

    __str__ = __repr__

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Raises UserError for a file that is none, is damaged, or has another format.

        >>> Results.read(Path("results.json")).status
        'done'
        """
        faults = Faults()
        results = read_record(path, cls, faults)
        if any(fault.where == f"{path}: format" for fault in faults):
            problem = "these results are not in a format that this version reads"
            given = next(fault.value for fault in faults if fault.where == f"{path}: format")
            raise UserError(Fault(problem, f"{path}: format", given, str(FORMAT)))
        faults.raise_if_any()
        assert results is not None
        return results

    def contents(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.model_dump(mode="json", exclude_unset=True)

    def write(self, path: Path) -> None:
        write_json(path, self.contents())

    # looked up

    @cached_property
    def budgets(self) -> list[str]:
        """Those that something was trained at; only where there is none, NO_BUDGET."""
        found = [row.group for row in self.rows] + [each.budget for each in (*self.scores, *self.differences)]
        return unique(budget for budget in found if budget not in (COST, NO_BUDGET)) or (
            [NO_BUDGET] if NO_BUDGET in found else []
        )

    def rows_of(self, budget: str) -> list[ArmRow]:
        """Its rows; the arms that aren't trained count in every budget but that of cost."""
        groups = (COST,) if budget == COST else (budget, NO_BUDGET)
        return [row for row in self.rows if row.group in groups]

    def row(self, budget: str, arm: str) -> ArmRow | None:
        return next((row for row in self.rows_of(budget) if row.arm == arm), None)

    def arms(self, budget: str) -> list[str]:
        """In the matrix's order; those that only the scores know come last."""
        scored = (score.arm for score in self.scores if score.budget in (budget, NO_BUDGET))
        return unique([*(row.arm for row in self.rows_of(budget)), *scored])

    def hows(self, budget: str) -> list[How]:
        """The adaptations that were scored; "none" where there is none, so that k = 0 is still shown."""
        counted = [score for score in self.scores if score.budget in (budget, NO_BUDGET)]
        found = {score.how for score in counted if score.table == "unseen"}
        adapted: tuple[How, ...] = ("own", "tuned")
        return [how for how in adapted if how in found] or ["none"]

    def holds(self, table: TaskSet, budget: str) -> bool:
        """Whether an arm of this very budget was scored."""
        return any((score.table, score.budget) == (table, budget) for score in self.scores)

    @cached_property
    def ks(self) -> list[int]:
        return sorted({*self.protocol.k} | {score.k for score in self.scores})

    def tasks(self, table: TaskSet) -> list[str]:
        known = self.protocol.held_out if table == "unseen" else self.protocol.train
        return unique([*known, *(task for score in self.scores if score.table == table for task in score.tasks)])

    def score(
        self, budget: str, arm: str, how: str, k: int, metric: MetricName, table: TaskSet = "unseen"
    ) -> MeanScore | None:
        return _find(self._scores, table, budget, arm, how, k, metric)

    def difference(
        self, budget: str, arm: str, how: str, k: int, metric: MetricName, table: TaskSet = "unseen"
    ) -> Difference | None:
        """From REFERENCE."""
        return _find(self._differences, table, budget, arm, how, k, metric)

    def others(self, budget: str, table: TaskSet) -> list[Difference]:
        """The differences from another arm than REFERENCE."""
        found = [each for each in self.differences if (each.budget, each.table) == (budget, table)]
        return [each for each in found if each.reference != REFERENCE]

    def curve(self, budget: str, arm: str, how: str, metric: MetricName) -> list[MeanScore]:
        """Its scores on unseen tasks in the order of k."""
        return [score for k in self.ks if (score := self.score(budget, arm, how, k, metric))]

    def last_difference(self, budget: str, arm: str, how: str, metric: MetricName) -> Difference | None:
        """The difference at the largest k that the arm was compared at."""
        found = (self.difference(budget, arm, how, k, metric) for k in reversed(self.ks))
        return next((each for each in found if each is not None), None)

    @property
    def exploratory(self) -> int:
        """How many other differences than the primary contrast have a verdict on a method."""
        judged = [*(each for each in self.differences if not self.is_primary(each)), *self.contrasts]
        return sum(each.p is not None for each in judged)

    def is_primary(self, found: Difference) -> bool:
        """Whether a difference is the primary contrast."""
        named = self.primary
        if named is None or found.table != "unseen" or found.how not in (named.adaptation, "none"):
            return False
        asked = (named.arm, named.against, named.budget, named.metric, named.k)
        return asked == (found.arm, found.reference, found.budget, found.metric, found.k)

    @cached_property
    def _scores(self) -> _Index[MeanScore]:
        return _index(self.scores)

    @cached_property
    def _differences(self) -> _Index[Difference]:
        return _index([each for each in self.differences if each.reference == REFERENCE])


def unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _index(entries: Sequence[_Entry]) -> _Index[_Entry]:
    return {(each.table, each.budget, each.arm, each.how, each.k, each.metric): each for each in entries}


def _find(index: _Index[_Entry], table: str, budget: str, arm: str, how: str, k: int, metric: str) -> _Entry | None:
    """An arm that isn't trained has no budget, and one that isn't adapted (k = 0, in-context) no `how`."""
    keys = ((table, b, arm, h, k, metric) for b in (budget, NO_BUDGET) for h in (how, "none"))
    return next((index[key] for key in keys if key in index), None)
