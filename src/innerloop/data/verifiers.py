"""How the generated answers of a folder's tasks are checked: `tasks.verifier`.

exact, number, math   the names of VERIFIERS: the same text, the same number, the same mathematics
same_number           verifier: the last number of the text equals the reference's
numbers_in            the numbers of a text, as `same_number` reads them
same_mathematics      verifier: math-verify finds the text and the reference equivalent
verifier_of           by name, innerloop's own or another package's; verifier_names: all of them
finals                what of a reference and of a text is compared
unreadable            the faults of references that a verifier could never find right

Where a reference ends in a line "#### 42", as GSM8K's do, what follows the mark is the answer.
"""

import atexit
import inspect
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from innerloop import plugins
from innerloop.data.math_worker import is_prose
from innerloop.data.tasks import Example, Task, Verifier, exact_match
from innerloop.errors import Fault, UserError

MARK = "####"
TOLERANCE = Fraction(1, 10**6)  # of the reference; whole numbers have to be equal
LONGEST = 400  # characters of a number
SECONDS = 10  # that math-verify may take over one answer

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_EXPONENT = r"\s?(?:\^|\*\*)\s?[{(]?\s?(?P<NAME>[-+−]?[0-9]{1,3})(?![0-9])\s?[)}]?"
_TIMES = r"\s?(?:[x×*·]|\\times|\\cdot)\s?"
# What is read in turn: words take the digits in them (H2O, v2.5), a unit's exponent is no number of its own, and what
# stands between two numbers is passed over.
_PIECE = re.compile(
    rf"(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[0-9]+)*)|(?P<unit>{_EXPONENT.replace('NAME', 'unit_power')}(?:\.[0-9]+)?)|"
    r"(?P<sign>(?<![A-Za-z0-9_)\]])[-+−])?"
    rf"(?P<digits>{_UNSIGNED})"
    r"(?P<power>[eE][-+]?[0-9]{1,3}(?![0-9]))?"
    rf"(?:{_TIMES}10{_EXPONENT.replace('NAME', 'ten')}|{_EXPONENT.replace('NAME', 'own')})?"
    r"(?:\s?/\s?(?P<under>[0-9]+(?:\.[0-9]+)?))?"
    r"(?P<percent>\s?\\?%)?"
)
_FRACTION = re.compile(r"\\[dt]?frac\s?\{\s?([0-9.]+)\s?\}\s?\{\s?([0-9.]+)\s?\}")
_RAISED = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_LOWERED = str.maketrans("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹", "-+0123456789")


class Amount(NamedTuple):
    value: Fraction
    percent: bool


def same_number(example: Example, generated: str) -> float:
    """1.0 where the last number of the text equals that of a right answer.

    `1,200`, `1.2e3`, `1.2 x 10^3` and `2400/2` are one number; others than whole ones may differ by 1e-6 of the
    reference. A percent sign that one of the two lacks may be read either way: `50` and `0.5` both answer `50%`.
    An exponent of a unit is no number of its own. A reference of several numbers, a range or a date, wants all of them
    in their order, at the end of the text.
    """
    return float(any(_same_numbers(answer, generated) for answer in example.answers))


def _same_numbers(answer: str, generated: str) -> bool:
    reference, text = finals(answer, generated)
    wanted, given = numbers_in(reference), numbers_in(text)
    if not wanted:
        raise ValueError("the reference holds no number")
    last = given[-len(wanted) :]
    return len(last) == len(wanted) and all(map(_are_equal, wanted, last))


def same_mathematics(example: Example, generated: str) -> float:
    """1.0 where math-verify finds text and a right answer equivalent, or they are the same text, a full stop aside.

    Of prose it reads one number: where a right answer is prose with several, all have to stand in the text, in order.
    Raises TimeoutError where that takes too long.
    """
    pairs = [tuple(each.removesuffix(".") for each in finals(answer, generated)) for answer in example.answers]
    return float(any(a == b for a, b in pairs) or any(_same_formula(reference, text) for reference, text in pairs))


def _same_formula(reference: str, text: str) -> bool:
    if is_prose(reference) and len(numbers_in(reference)) > 1 and not _same_numbers(reference, text):
        return False
    return _MATH.equal(reference, text)


VERIFIERS: dict[str, Verifier] = {"exact": exact_match, "number": same_number, "math": same_mathematics}


def verifier_names() -> tuple[str, ...]:
    """innerloop's own, and those that installed packages add (entry points of the group `innerloop.verifiers`)."""
    return (*VERIFIERS, *(name for name in plugins.points(plugins.VERIFIERS) if name not in VERIFIERS))


def verifier_of(name: str) -> Verifier:
    """The verifier of this name. Raises UserError where it, or a package that it needs, can't be used."""
    if name in plugins.points(plugins.VERIFIERS):
        return plugins.read(plugins.VERIFIERS, name, taken=VERIFIERS, check=_wrong)
    if name == "math" and find_spec("math_verify") is None:
        problem, right = "this verifier needs math-verify, which is not installed", 'pip install "innerloop[score]"'
        raise UserError(Fault(problem, "tasks.verifier", name, right))
    return VERIFIERS[name]


def _wrong(found: Any) -> tuple[str, str] | None:
    """What is wrong with another package's verifier, and what would be right."""
    right = "a function (example, generated text) -> number from 0 to 1, at the top of its module"
    if not callable(found):
        return "not a verifier", right
    try:
        inspect.signature(found).bind(Example("", ""), "")
    except (TypeError, ValueError):
        return "a verifier takes an example and a generated text", right
    return None


def unreadable(name: str | None, tasks: Iterable[Task]) -> list[Fault]:
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
        if not all(numbers_in(finals(answer, "")[0]) for answer in example.answers)
    ]


def numbers_in(text: str) -> list[Amount]:
    """The numbers of a text in their order; what is too long, or a fraction of zero, is none."""
    plain = _RAISED.sub(lambda raised: "^" + raised[0].translate(_LOWERED), _FRACTION.sub(r"\1/\2", text))
    pieces = (piece for piece in _PIECE.finditer(plain) if piece["digits"])
    return [number for piece in pieces if (number := _number(piece)) is not None]


def _number(piece: re.Match[str]) -> Amount | None:
    own = _whole(piece["own"])
    if len(piece[0]) > LONGEST or abs(own) * len(piece["digits"]) > LONGEST:
        return None
    value, under = Fraction(piece["digits"].replace(",", "") + (piece["power"] or "")), Fraction(piece["under"] or 1)
    if not under or (not value and own < 0):
        return None
    sign = -1 if piece["sign"] in ("-", "−") else 1
    whole = sign * value ** (own if piece["own"] else 1) * Fraction(10) ** _whole(piece["ten"])
    return Amount(whole / under, piece["percent"] is not None)


def _whole(digits: str | None) -> int:
    return int(digits.replace("−", "-")) if digits else 0


def _are_equal(wanted: Amount, given: Amount) -> bool:
    if wanted.percent == given.percent:
        return _are_close(wanted.value, given.value)
    return any(_are_close(w, g) for w in _readings(wanted) for g in _readings(given))


def _readings(number: Amount) -> tuple[Fraction, ...]:
    return (number.value, number.value / 100) if number.percent else (number.value,)


def _are_close(wanted: Fraction, given: Fraction) -> bool:
    if wanted.denominator == given.denominator == 1:
        return wanted == given
    return abs(wanted - given) <= TOLERANCE * abs(wanted)


def finals(reference: str, generated: str) -> tuple[str, str]:
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
