"""How the generated answers of a folder's tasks are checked: `tasks.verifier`.

exact, number, math   the names of VERIFIERS: the same text, the same number, the same mathematics
same_number           verifier: the last number of the text equals the reference's
same_mathematics      verifier: math-verify finds the text and the reference equivalent
verifier_of           by name; UserError where the package it needs is missing
unreadable            the faults of references that a verifier could never find right

Where a reference ends in a line "#### 42", as GSM8K's do, what follows the mark is the answer.
"""

import atexit
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from innerloop.data.tasks import Example, Task, Verifier, exact_match
from innerloop.errors import Fault, UserError

VerifierName = Literal["exact", "number", "math"]

MARK = "####"
TOLERANCE = Fraction(1, 10**6)  # of the reference; whole numbers have to be equal
LONGEST = 400  # characters of a number
SECONDS = 10  # that math-verify may take over one answer

_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])"  # not the 2 of H2O, the end of another number, or the minus of 5-3
    r"(?P<sign>(?<![)\]])[-+−])?"
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?P<power>[eE][-+]?[0-9]{1,3}(?![0-9]))?"
    r"(?:\s?/\s?(?P<under>[0-9]+(?:\.[0-9]+)?))?"
    r"(?P<percent>\s?\\?%)?"
)


class Number(NamedTuple):
    value: Fraction
    percent: bool


def same_number(example: Example, generated: str) -> float:
    """1.0 where the last number of the text equals that of the reference.

    `1,200`, `1.2e3` and `2400/2` are one number; others than whole ones may differ by 1e-6 of the reference.
    A percent sign that one of the two lacks may be read either way: `50` and `0.5` both answer `50%`.
    """
    reference, text = _finals(example.answer, generated)
    wanted, given = last_number(reference), last_number(text)
    if wanted is None:
        raise ValueError("the reference holds no number")
    return float(given is not None and _are_equal(wanted, given))


def same_mathematics(example: Example, generated: str) -> float:
    """1.0 where math-verify finds text and reference equivalent, or they are the same text.

    Raises TimeoutError where that takes too long.
    """
    reference, text = _finals(example.answer, generated)
    return float(reference == text or _MATH.equal(reference, text))


VERIFIERS: dict[VerifierName, Verifier] = {"exact": exact_match, "number": same_number, "math": same_mathematics}


def verifier_of(name: VerifierName) -> Verifier:
    """The verifier of this name. Raises UserError where it needs a package that is missing."""
    if name == "math" and find_spec("math_verify") is None:
        problem, right = "this verifier needs math-verify, which is not installed", 'pip install "innerloop[score]"'
        raise UserError(Fault(problem, "tasks.verifier", name, right))
    return VERIFIERS[name]


def unreadable(name: VerifierName | None, tasks: Iterable[Task]) -> list[Fault]:
    """A fault for each test example whose reference is no answer of the kind that the verifier compares.

    None: the tasks brought verifiers of their own.
    """
    if name != "number":
        return []
    problem, right = "the answer holds no number (tasks.verifier: number)", "a number in every answer, or exact"
    return [
        Fault(problem, f"task {task.name}: {example.named}", example.answer, right)
        for task in tasks
        for example in task.test
        if last_number(_finals(example.answer, "")[0]) is None
    ]


def last_number(text: str) -> Number | None:
    """The last number of a text; None where there is none, or it is a fraction of zero."""
    found = None
    for found in _NUMBER.finditer(text):  # noqa: B007 (the last one is wanted)
        pass
    if found is None or len(found[0]) > LONGEST:
        return None
    value = Fraction(found["digits"].replace(",", "") + (found["power"] or ""))
    under = Fraction(found["under"] or 1)
    if not under:
        return None
    sign = -1 if found["sign"] in ("-", "−") else 1
    return Number(sign * value / under, found["percent"] is not None)


def _are_equal(wanted: Number, given: Number) -> bool:
    if wanted.percent == given.percent:
        return _are_close(wanted.value, given.value)
    return any(_are_close(w, g) for w in _readings(wanted) for g in _readings(given))


def _readings(number: Number) -> tuple[Fraction, ...]:
    return (number.value, number.value / 100) if number.percent else (number.value,)


def _are_close(wanted: Fraction, given: Fraction) -> bool:
    if wanted.denominator == given.denominator == 1:
        return wanted == given
    return abs(wanted - given) <= TOLERANCE * abs(wanted)


def _finals(reference: str, generated: str) -> tuple[str, str]:
    """Both without white space at the ends, and from the mark on where the reference has it.

    Of a text that goes on behind its answer, the first mark counts, and its line.
    """
    if MARK in reference:
        reference = reference.rpartition(MARK)[2]
        if MARK in generated:
            generated = generated.partition(MARK)[2].strip().partition("\n")[0]
    return reference.strip(), generated.strip()


class _MathProcess:
    """`math_worker.py`, started when it is first asked, and again when a question was too much for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def equal(self, reference: str, generated: str) -> bool:
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps([reference, generated, SECONDS]) + "\n")
                process.stdin.flush()
                said = process.stdout.readline()
            except BaseException as error:  # also an interruption: the answer to this question must not be the next's
                self.close()
                if isinstance(error, BrokenPipeError):
                    raise ValueError("math-verify does not start") from error
                raise
            if not said:
                self.close()
                raise TimeoutError(f"math-verify took more than {SECONDS} s, or more memory than it may")
            return bool(json.loads(said))

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            script = str(Path(__file__).with_name("math_worker.py"))
            # -P: the script's folder holds modules whose names others have, too.
            self._process = subprocess.Popen(
                [sys.executable, "-P", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._process


_MATH = _MathProcess()
