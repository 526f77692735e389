"""The names that stand in a comparison's files, and how such a file is read.

known_arms, UNTRAINED   every arm there is, and those that nothing trains
REFERENCE, FULL_REFERENCE, CONTRASTS   what arms are compared with
NO_BUDGET, COST, OWN_BUDGET   budgets that are no equal ones
TaskSet, How, MetricName      tables, adaptations and metrics; HIGHER_IS_BETTER: which way a metric goes
Record             a part of a file, checked
read_record        a file -> a Record, or faults with place and value
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from innerloop.errors import Faults
from innerloop.learning.methods import METHODS

LARGEST_FILE = 1 << 28  # bytes
FAULTS_PER_FILE = 5

UNTRAINED = ("base", "in-context")  # they are of NO_BUDGET and count in every budget
REFERENCE, FULL_REFERENCE = "joint-lora", "joint"  # of every arm, and of those that train all parameters
CONTRASTS = {"algorithm": ("meta-lora", "fomaml-lora"), "parametrization": ("fomaml", "fomaml-lora")}
NO_BUDGET, COST, OWN_BUDGET = "", "cost", "run"  # not trained; a few steps, never scored; whatever its own run took

TaskSet = Literal["unseen", "seen"]  # held-out tasks and k examples (T2), or training tasks and none (T1)
How = Literal["none", "own", "tuned"]
MetricName = Literal["nats", "accuracy", "stop_nats"]  # of the answer's tokens; right or wrong; of what ends the answer
HIGHER_IS_BETTER: dict[MetricName, bool] = {"nats": False, "accuracy": True, "stop_nats": False}

Number = int | float | None
Count = Annotated[int, Field(ge=0)]


def known_arms() -> tuple[str, ...]:
    """Asked for each time: other packages may add methods."""
    return (*UNTRAINED, *METHODS)


class Record(BaseModel):
    """Takes no infinity, and no text for a number. Fields beyond those named are left alone."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


_Kind = TypeVar("_Kind", bound=Record)


def read_record(path: Path, kind: type[_Kind], faults: Faults) -> _Kind | None:
    """None where there are faults, which are added."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            faults.add("too large", str(path), expected=f"at most {LARGEST_FILE:,} bytes")
            return None
        return kind.model_validate_json(content)
    except OSError as error:
        faults.add(f"can't be read: {error.strerror}", str(path))
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_context=False)[:FAULTS_PER_FILE]:
            field = ".".join(str(part) for part in problem["loc"])
            said, _, right = problem["msg"].partition("Input should be ")
            value = {} if problem["type"] in ("json_invalid", "missing") else {"value": problem["input"]}
            where = f"{path}: {field}" if field else str(path)
            faults.add(said or "not a value that this field takes", where, **value, expected=right)
    return None
