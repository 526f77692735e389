"""A matrix: which arms, at which equal budgets, from which seeds, scored how.

Matrix        the file's sections
Cell          one arm at one budget from one seed: a run of its own, and its scores
cells         every cell of a matrix, in its order
read_plan     the same of a comparison that was begun
day_of        what one told its chat template of the date
run_config    the run of a cell, as `innerloop train` takes it
common_config the model and the tasks that every arm is scored on

docs/compare.md has a line for each key.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, Field, create_model

from innerloop.config.loading import RunConfig, load_config
from innerloop.config.schema import Section, get
from innerloop.evaluation.protocol import Protocol
from innerloop.learning.methods import METHODS
from innerloop.results.names import COST, NO_BUDGET, UNTRAINED
from innerloop.spaces.kinds import KINDS, LORA, Grid, SpaceKind

BASE, IN_CONTEXT = UNTRAINED
JOINT = "joint-lora"
PLAN = "matrix.json"
MATRIX = "matrix.yaml"  # beside it, where no file of that kind was given
ONE_TASK = {"outer": {"tasks_per_step": 1}}  # of Std LoRA, whatever the others take
Budget = Literal["tokens", "examples", "seconds"]

_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(gt=0)]
Fragment = dict[str, Any]


def _different(numbers: list[int]) -> list[int]:
    if len(set(numbers)) < len(numbers):
        raise ValueError("repeated")
    return numbers


_Rates = Annotated[list[_Positive], Field(min_length=1)]
_Counts = Annotated[list[_Count], Field(min_length=1)]
_Naturals = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1), AfterValidator(_different)]


class GridSection(Section):
    lr: _Rates = Field(description="list of numbers above 0")
    steps: _Counts = Field(description="list of whole numbers above 0")

    def build(self) -> Grid:
        return Grid(tuple(self.lr), tuple(self.steps))


def _by_kind(name: str, field: Callable[[SpaceKind], tuple[Any, Any]], **others: Any) -> Any:
    """A section with a key for each kind of space."""
    fields: dict[str, Any] = {kind.name: field(kind) for kind in KINDS.values()}
    return create_model(name, __base__=Section, **others, **fields)


def _grid(kind: SpaceKind) -> tuple[Any, Any]:
    return GridSection, GridSection(lr=list(kind.grid.lrs), steps=list(kind.grid.steps))


GridsSection: Any = _by_kind("GridsSection", _grid)  # what "tuned" chooses from, by what an arm trains


class TargetsSection(Section):
    """Scores whose price in examples and steps is reported."""

    nats: float = Field(default=1.0, gt=0, description="number above 0")
    accuracy: float = Field(default=0.5, gt=0, le=1, description="number above 0, at most 1")


class EvaluationSection(Section):
    k: _Naturals = Field(default=[0, 5, 10, 25, 50], description="list of different whole numbers, 0 or above")
    draws: _Count = Field(default=5, description="whole number above 0")
    grid: GridsSection = GridsSection()  # pyright: ignore[reportInvalidTypeForm]
    max_new_tokens: _Count | None = Field(default=None, description="whole number above 0")
    forgetting_prompts: int = Field(default=200, ge=0, le=200, description="whole number from 0 to 200")
    targets: TargetsSection = TargetsSection()


class BudgetsSection(Section):
    tokens: _Count | None = Field(
        default=None,
        description="whole number above 0: tokens that go through the model in training, each time they do",
    )
    examples: _Count | None = Field(default=None, description="whole number above 0: examples drawn in training")
    seconds: _Positive | None = Field(default=None, description="number above 0: training time, from timed steps")


_PART = "part of a run.yaml"
# Parts of run.yaml: for every arm, and for those that train a kind of space.
RunsSection: Any = _by_kind(
    "RunsSection",
    lambda _: (Fragment, Field(default={}, description=_PART)),
    every=(Fragment, Field(description=_PART)),
)


class PrimarySection(Section):
    """The one question that was asked before anything ran; whatever else a comparison finds is exploratory."""

    arm: str = Field(description="an arm of this matrix")
    against: str = Field(description="another arm of this matrix")
    metric: Literal["nats", "accuracy"] = Field(description="nats or accuracy")
    k: int = Field(ge=0, description="one of evaluation.k")
    adaptation: Literal["own", "tuned"] = Field(description="own or tuned")
    budget: Budget | None = Field(default=None, description="one of the budgets; the first unless given")


class CostSection(Section):
    """Arms that take a few steps for their cost alone and are never scored."""

    steps: _Count = Field(default=5, description="whole number above 0")
    arms: dict[str, Fragment] = Field(description="map of methods to parts of run.yaml")


class Matrix(Section):
    name: str = Field(min_length=1, description="text")
    runs: RunsSection  # pyright: ignore[reportInvalidTypeForm]
    arms: dict[str, Fragment] = Field(description="map of arms to parts of run.yaml", min_length=1)
    cost_only: CostSection | None = None
    budgets: BudgetsSection
    seeds: _Naturals = Field(description="list of different whole numbers, 0 or above")
    primary: PrimarySection | None = None
    evaluation: EvaluationSection = EvaluationSection()

    def protocol(self, arm: str, seed: int) -> Protocol:
        part = self.evaluation
        grid = getattr(part.grid, (METHODS[arm].space if arm in METHODS else LORA).name)
        return Protocol(
            k=tuple(sorted(part.k)), draws=part.draws, grid=grid.build(), max_new_tokens=part.max_new_tokens, seed=seed
        )

    @property
    def given_budgets(self) -> dict[str, float]:
        amounts = {name: getattr(self.budgets, name) for name in get_args(Budget)}
        return {name: amount for name, amount in amounts.items() if amount is not None}

    @property
    def primary_contrast(self) -> dict[str, Any] | None:
        """As results.json has it: with its budget, and what it is adapted with where there is something to adapt on."""
        if self.primary is None:
            return None
        named = self.primary.model_dump()
        named["budget"] = named["budget"] or next(iter(self.given_budgets))
        return named if self.primary.k else named | {"adaptation": "none"}


class Cell(NamedTuple):
    """budget: "" for an arm without training, COST for one that is never scored."""

    arm: str
    budget: str
    seed: int

    @property
    def one_task(self) -> bool:
        """Whether the arm trains an adapter for each task: those that the others train on, and no others."""
        return trains_one_task(self.arm)

    @property
    def name(self) -> str:
        return "-".join([self.arm, *([self.budget] if self.budget else []), str(self.seed)])


def trains_one_task(arm: str) -> bool:
    return arm in METHODS and METHODS[arm].one_task


def cells(matrix: Matrix) -> list[Cell]:
    """Seed by seed, so that a comparison stopped half-way has whole seeds."""
    found: list[Cell] = []
    for seed in matrix.seeds:
        for arm in matrix.arms:
            budgets = [NO_BUDGET] if arm in UNTRAINED else list(matrix.given_budgets)
            found += [Cell(arm, budget, seed) for budget in budgets]
    costly = matrix.cost_only.arms if matrix.cost_only else {}
    return found + [Cell(arm, COST, matrix.seeds[0]) for arm in costly]


def run_config(
    matrix: Matrix, cell: Cell, *, output_dir: Path, steps: int | None = None, seen: Sequence[str] | None = None
) -> RunConfig:
    """Raises UserError for a run that can't be; its keys are named as in run.yaml.

    steps  that the cell's budget buys
    seen   the tasks that Std LoRA trains an adapter for: those that the other arms train on
    """
    costly = matrix.cost_only if cell.budget == COST else None
    fragment = costly.arms[cell.arm] if costly else matrix.arms[cell.arm]
    given: Fragment = {"method": {"name": cell.arm}, "seed": cell.seed, "output_dir": str(output_dir)}
    if costly or steps is not None:
        given["outer"] = {"steps": costly.steps if costly else steps}
    if cell.one_task:
        given = merged(given, ONE_TASK)
    if seen is not None:
        given["tasks"] = {"held_out": list(seen), "validation": []}
    shared = getattr(matrix.runs, METHODS[cell.arm].space.name)
    return load_config(merged(matrix.runs.every, shared, fragment, given))


def common_config(matrix: Matrix, seed: int, *, trunk_cache: bool = True) -> RunConfig:
    """The tasks that every arm is scored on, whatever an arm trains on, and the LoRA that untrained arms start from.

    trunk_cache  False: as if the matrix asked for none
    """
    # A method of shared values (what Std LoRA trains on are the held-out tasks) that nothing is trained with here.
    own: Fragment = {"method": {"name": JOINT}, "seed": seed, "output_dir": "unused"}
    own |= {"tasks": {"support": 1, "query": 1, "prompt": "alone"}, "outer": {"tasks_per_step": 1}}
    if not trunk_cache:
        own["memory"] = {"trunk_cache": False}
    tree = merged(matrix.runs.every, matrix.runs.lora, own)
    tree["method"] = {key: part for key, part in tree["method"].items() if key in ("name", "lora")}
    return load_config(tree)


def read_plan(folder: Path) -> tuple[Matrix, list[Cell]]:
    """The matrix of a comparison that was begun, and its cells."""
    matrix = Matrix.model_validate(json.loads((folder / PLAN).read_text())["matrix"])
    return matrix, cells(matrix)


def day_of(folder: Path) -> str | None:
    """That a comparison in the folder was begun on, where its chat template asks for it; else None."""
    try:
        before = json.loads((folder / PLAN).read_text(encoding="utf-8"))["matrix"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # what is wrong with the folder, `begin` says
    day = get(before, "runs.every.tasks.date")
    return day if isinstance(day, str) else None


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Later trees win; sections are merged key by key."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
