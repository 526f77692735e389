"""A matrix file, read and checked: everything that is wrong with it comes at once.

sound_matrix    a YAML file, or a document like one -> Matrix as far as it is sound, so that its data can be checked
                too before anyone is told
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from innerloop.comparison.matrix import (
    BASE,
    IN_CONTEXT,
    Cell,
    Fragment,
    Matrix,
    common_config,
    run_config,
    trains_one_task,
)
from innerloop.config.document import Document
from innerloop.config.loading import KEYS, RunConfig
from innerloop.config.schema import ABSENT, BROKEN_METHODS, get
from innerloop.errors import Faults, UserError, did_you_mean
from innerloop.learning.methods import METHODS
from innerloop.results.names import COST, NO_BUDGET, UNTRAINED, known_arms

NOT_TO_SET = ("method.name", "seed", "output_dir", "outer.steps")
SECTIONS = {"model", "tasks", "method", "outer", "memory"}
THEIRS = (
    "tasks.examples_per_task",
    "tasks.support",
    "tasks.query",
    "tasks.prompt",
)  # an arm may draw from them in its own way
SHARED = tuple(key for key in KEYS if key.startswith(("model.", "tasks.")) and key not in THEIRS)


def sound_matrix(source: Path | Document, faults: Faults) -> Matrix | None:
    """The matrix without unknown keys and arms that can't be, whose faults are added; None where no run is left.

    Raises UserError for a file that can't be read at all.
    """
    document = source if isinstance(source, Document) else Document.read(source, faults)
    tree, problems = copy.deepcopy(document.tree), list[Any]()
    try:
        Matrix.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    for problem in problems:
        _add(problem, document, faults)
    if any(problem["type"] != "extra_forbidden" for problem in problems):
        return None
    for problem in problems:
        _drop(tree, problem["loc"])
    return _Check(Matrix.model_validate(tree), document, faults).sound_matrix()


class _Check:
    """One look at a matrix: arms that don't exist, no budget, runs that load_config refuses; each fault once."""

    def __init__(self, matrix: Matrix, document: Document, faults: Faults) -> None:
        self.matrix, self.document, self.faults = matrix, document, faults
        self.seen: set[str] = set()

    def sound_matrix(self) -> Matrix | None:
        matrix, costly = self.matrix, self.matrix.cost_only
        if not matrix.given_budgets:
            where, right = self.document.where(("budgets",)), "at least one of tokens, examples, seconds"
            self.faults.add("no budget", where, expected=right)
        self._check_keys()
        runs = self._loads("runs", lambda: common_config(matrix, matrix.seeds[0]))
        self._check_primary()
        arms = self._sound("arms", matrix.arms, known_arms())
        if costly is not None:
            costly = costly.model_copy(update={"arms": self._sound("cost_only.arms", costly.arms, tuple(METHODS))})
        return matrix.model_copy(update={"arms": arms, "cost_only": costly}) if runs else None

    def _check_keys(self) -> None:
        """Parts of run.yaml say neither what the matrix says, nor, for some arms, what all arms share."""
        runs, costly = self.matrix.runs, self.matrix.cost_only
        parts = {("runs", name): getattr(runs, name) for name in type(runs).model_fields}
        parts |= {("arms", arm): part for arm, part in self.matrix.arms.items() if arm not in UNTRAINED}
        parts |= {("cost_only", "arms", arm): part for arm, part in (costly.arms if costly else {}).items()}
        for path, part in parts.items():
            for name in SECTIONS & part.keys():
                if not isinstance(part[name], Mapping):  # else ours would simply take its place
                    where = self.document.where((*path, name))
                    self.faults.add("not a value that this key takes", where, part[name], "a section")
            for key in NOT_TO_SET if path == ("runs", "every") else (*NOT_TO_SET, *SHARED):
                if (value := get(part, key)) is not ABSENT:
                    problem = "the matrix says this itself" if key in NOT_TO_SET else "this is the same for every arm"
                    right = "leave it out" if key in NOT_TO_SET else f"runs.every: {key}"
                    self.faults.add(problem, self.document.where((*path, *key.split("."))), value, right)

    def _check_primary(self) -> None:
        """The primary contrast is one that this matrix scores."""
        named, matrix = self.matrix.primary, self.matrix
        if named is None:
            return

        def add(problem: str, key: str, right: str) -> None:
            self.faults.add(problem, self.document.where(("primary", key)), getattr(named, key), right)

        for key in ("arm", "against"):
            arm = getattr(named, key)
            if arm not in matrix.arms:
                add("not an arm of this matrix", key, did_you_mean(arm, matrix.arms))
            elif (arm == BASE and named.k) or ((arm == IN_CONTEXT or trains_one_task(arm)) and not named.k):
                right = "k = 0" if arm == BASE else "a k above 0"
                add(f"this arm is not scored at k = {named.k}", key, f"{right}, or another arm")
        if named.arm == named.against:
            add("an arm is not compared with itself", "against", "another arm of this matrix")
        if named.k not in matrix.evaluation.k:
            add("nothing is scored at this k", "k", f"one of evaluation.k: {', '.join(map(str, matrix.evaluation.k))}")
        if named.budget is not None and named.budget not in matrix.given_budgets:
            add("no budget of this matrix", "budget", f"one of {', '.join(matrix.given_budgets)}")

    def _sound(self, section: str, arms: Mapping[str, Fragment], known: Sequence[str]) -> dict[str, Fragment]:
        return {arm: part for arm, part in arms.items() if self._is_sound(section, arm, part, known)}

    def _is_sound(self, section: str, arm: str, fragment: Fragment, known: Sequence[str]) -> bool:
        where = self.document.where((*section.split("."), arm))
        if fault := BROKEN_METHODS.get(arm):
            self.faults.append(fault)
        elif arm not in known:
            self.faults.add("no such arm", where, arm, did_you_mean(arm, known))
        elif arm in UNTRAINED and fragment:
            self.faults.add("this arm trains nothing", where, fragment, "{}")
        else:
            cell = Cell(arm, NO_BUDGET if section == "arms" else COST, self.matrix.seeds[0])
            config = partial(run_config, self.matrix, cell, output_dir=Path("unused"))
            return arm in UNTRAINED or self._loads(f"arm {arm}", config)
        return False

    def _loads(self, who: str, config: Callable[[], RunConfig]) -> bool:
        try:
            config()
        except UserError as error:
            place = f"{self.document.name}: {who}"
            new = {str(fault): fault for fault in error.faults if str(fault) not in self.seen}
            self.seen.update(new)
            self.faults += [replace(fault, where=f"{place}: {fault.where}") for fault in new.values()]
            return False
        return True


def _drop(tree: Any, path: Sequence[Any]) -> None:
    for name in path[:-1]:
        tree = tree[name]
    del tree[path[-1]]


def _add(problem: Any, document: Document, faults: Faults) -> None:
    path = tuple(str(part) for part in problem["loc"])
    known, field = _fields(path)
    where = document.where(path)
    if problem["type"] == "extra_forbidden":
        faults.add("unknown key", where, problem["input"], did_you_mean(path[-1], known))
    elif problem["type"] == "missing":
        faults.add("missing", where, expected=field)
    else:
        faults.add("not a value that this key takes", where, problem["input"], field)


def _fields(path: tuple[str, ...]) -> tuple[list[str], str]:
    """The keys beside the one at `path`, and in words what it takes."""
    section: Any = Matrix
    known, means = list[str](), ""
    for part in path:
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            break
        known = list(section.model_fields)
        if part not in known:
            break
        field = section.model_fields[part]
        kinds = (field.annotation, *get_args(field.annotation))
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        means = f"a section with {', '.join(section.model_fields)}" if section else field.description or ""
    return known, means
