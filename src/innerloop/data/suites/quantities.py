"""Numbers with units: made, written, read back from generated text, and compared (through pint).

quantity               a pint quantity
unit_registry          the registry all of them share
number_text            a number with at most one decimal, None where that would round it
same_quantity          verifier: within 1 % of the answer, in any equivalent unit
same_number_and_unit   verifier: within 1 % of the answer, in the answer's own unit
"""

import math
import re
from functools import cache
from typing import Any

from innerloop.data.suites.drawing import demo_import, without_full_stop
from innerloop.data.tasks import Example

TOLERANCE = 0.01
# Generated text has to match this before pint sees it: pint would evaluate "9**9**9".
_FACTOR = r"[^\W\d_]+(?:(?:\^|\*\*)-?\d)?"
_QUANTITY = re.compile(
    rf"([-+]?\d{{1,15}}(?:\.\d{{1,15}})?(?:[eE][-+]?\d\d?)?)\s*({_FACTOR}(?:(?:\s?[*/·⋅×]\s?| ){_FACTOR}){{0,4}})?"
)
_RAISED = str.maketrans({"²": "^2", "³": "^3", "⋅": "*", "·": "*", "×": "*"})


@cache
def unit_registry() -> Any:
    return demo_import("pint").UnitRegistry()


def quantity(value: float, unit: str) -> Any:
    return unit_registry().Quantity(value, unit)


def number_text(value: float) -> str | None:
    if not math.isclose(value, round(value, 1), rel_tol=1e-9, abs_tol=1e-12):
        return None
    return f"{value:.1f}".removesuffix(".0")


def same_quantity(example: Example, generated: str) -> float:
    """1.0 where the text is the answer's quantity: `1.5 km` for `1500 m`; a missing unit is wrong.

    A number without a unit is a count, which has to be equal. A final full stop is no part of a text.
    """
    wanted, given = _read(example.answer), _read(generated)
    return float(wanted is not None and given is not None and _are_close(wanted, given))


def same_number_and_unit(example: Example, generated: str) -> float:
    """As `same_quantity`, but `1.5 km` does not answer `1500 m`: for questions that ask to convert."""
    wanted, given = _read(example.answer), _read(generated)
    if wanted is None or given is None or given.units != wanted.units:
        return 0.0
    return float(_are_close(wanted, given))


def _are_close(wanted: Any, given: Any) -> bool:
    if wanted.unitless or given.unitless:
        return bool(wanted.unitless and given.unitless and wanted.m == given.m)
    wanted, given = wanted.to_base_units(), given.to_base_units()
    near = math.isclose(given.m, wanted.m, rel_tol=0, abs_tol=TOLERANCE * abs(wanted.m))
    return given.units == wanted.units and near


def _read(text: str) -> Any | None:
    """The quantity that is all of the text; None where it is none, or one that has no base units."""
    match = _QUANTITY.fullmatch(without_full_stop(text).translate(_RAISED))
    if match is None:
        return None
    pint = demo_import("pint")
    try:
        read = quantity(float(match[1]), match[2] or "")
        read.to_base_units()
    except (pint.errors.PintError, ValueError, ArithmeticError):
        return None
    return read
