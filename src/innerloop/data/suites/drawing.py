"""What the built-in suites share: a request, random numbers by name, and draws without repeats.

Difficulty       easy, default or hard
Request          the seed, sizes and difficulty a suite is built with
Suite            what a suite can do: name its tasks, and build them
named_rng        a generator that depends on its names alone, in every process
draw_distinct    the first distinct values of a stream
too_few          the fault of a task that has fewer distinct examples than asked for
without_full_stop  a generated text as its verifier reads it
demo_import      import a package of the demo extra, or say how to install it
"""

import hashlib
import importlib
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any, Literal, NamedTuple, TypeVar

from innerloop.data.tasks import Task
from innerloop.errors import Fault, UserError

Difficulty = Literal["easy", "default", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "default", "hard")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Request:
    """What every task of a suite is built with; sizes are examples per task. With `only`, other tasks may be short."""

    seed: int
    examples_per_task: int
    test_examples: int
    difficulty: Difficulty = "default"
    only: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.examples_per_task + self.test_examples


class Suite(NamedTuple):
    """Both functions take the number of tasks per family; None is the suite's own default.

    instances  that default; None where there is one task per family and no number can be chosen
    """

    task_names: Callable[[int | None], list[tuple[str, str]]]
    build: Callable[[Request, int | None], list[Task]]
    instances: int | None


def named_seed(*names: str | int) -> int:
    """A 63-bit seed that depends on the names alone, whatever the process or platform."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def named_rng(*names: str | int) -> Random:
    """A random generator seeded by `named_seed`."""
    return Random(named_seed(*names))


def draw_distinct(
    stream: Iterable[Value], wanted: int, *, key: Callable[[Value], Hashable] = lambda value: value
) -> list[Value]:
    """The first `wanted` values of the stream with distinct keys, fewer where it keeps repeating itself.

    A longer draw starts with the shorter one, so a bigger pool contains the smaller pool.
    """
    found: dict[Hashable, Value] = {}
    for value in islice(stream, 10 * wanted + 1000):
        found.setdefault(key(value), value)
        if len(found) >= wanted:
            break
    return list(found.values())


def too_few(task: str, request: Request, available: int) -> Fault:
    """The fault of a task whose generator has only `available` distinct prompts."""
    asked = f"{request.total} ({request.examples_per_task} + {request.test_examples})"
    return Fault(
        f'too few distinct examples at difficulty "{request.difficulty}"',
        where=f"task {task}: examples_per_task + test_examples",
        value=asked,
        expected=f"at most {available}",
    )


def without_full_stop(text: str) -> str:
    """A text without white space at its ends and one final full stop."""
    return text.strip().removesuffix(".").rstrip()


def demo_import(module: str) -> Any:
    """The named module of the demo extra; UserError with the install command where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        problem = f"this suite needs {package}, which cannot be imported ({error})"
        raise UserError(Fault(problem, expected='pip install "innerloop[demo]"')) from error
