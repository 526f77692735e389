from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from babel.numbers import format_currency
from babel.units import format_unit

from cldr_rows import UNITS as UNIT_NAMES
from cldr_rows import as_babel
from innerloop.data.suites.styles import locales
from innerloop.data.suites.styles_numbers import AMOUNTS, UNITS

PLAIN = {name: groups[0][0] for name, groups in AMOUNTS.aspects.items()}
PLAIN_UNIT = {name: groups[0][0] for name, groups in UNITS.aspects.items()}


def amount(number: str, name: str = "EUR", **style: Any) -> str:
    whole, _, cents = number.removeprefix("-").partition(".")
    sign = "-" if number.startswith("-") else ""
    return AMOUNTS.written((int(whole), (sign, cents), name), PLAIN | style)


def quantity(number: str, unit: str, **style: Any) -> str:
    return UNITS.written((number, unit), PLAIN_UNIT | style)


def test_amounts_are_written_as_babel_writes_them() -> None:
    """Where the euro has its sign, and marks stand at every third digit."""

    def both() -> Iterator[tuple[str, str]]:
        for name in ("en_US", "en_GB", "de", "de_AT", "fr", "it", "nl", "sv", "da", "cs", "fi", "tr", "id"):
            row = locales()[name]
            style = {"marks": (row["decimal"], row["group"]), "place": row["amount"].replace("#,##0.00", "n")}
            for number in ("0.50", "7.00", "12.95", "1234.50", "99999.05", "1234567.80"):
                yield amount(number, **style), format_currency(Decimal(number), "EUR", locale=name)

    pairs = list(both())
    assert as_babel(pairs)
    assert not as_babel([(ours.replace("5", "6"), theirs) for ours, theirs in pairs])


def test_quantities_are_written_as_babel_writes_them() -> None:
    def both() -> Iterator[tuple[str, str]]:
        for name, row in locales().items():
            for length in ("long", "short") if row["units"] else ():
                for unit, theirs in UNIT_NAMES.items():
                    for number in ("1", "0.5", "1.5", "2", "7.2", "111"):
                        text = format_unit(Decimal(number), theirs, length, locale=name)
                        yield quantity(number, unit, form=(length, name)), text

    pairs = list(both())
    assert len(pairs) > 2000
    assert as_babel(pairs)


def test_what_else_is_done_to_an_amount() -> None:
    assert AMOUNTS.shown(1234, ("-", "50"), "EUR") == "-1234.50 EUR"
    assert amount("1234.50") == "€1234.50"
    assert amount("1234.50", marks=(",", ".")) == "€1.234,50"
    assert amount("1234.00", **{"no cents": ""}) == "€1234"
    assert amount("1234.00", marks=(",", "."), **{"no cents": "{1}-"}) == "€1.234,-"
    assert amount("1234.50", "USD", currency="code") == "USD 1234.50"
    assert amount("1234.50", "USD", currency="lower code", place="n¤") == "1234.50 usd"
    assert amount("1234.50", "USD", currency="word") == "1234.50 dollars"
    assert amount("1234.50", "USD", currency="none", place="n ¤") == "1234.50"
    negative = [amount("-5.20", "GBP", negative=way) for way in ("-{}", "({})", "{}-", "minus {}", "{} CR")]
    assert negative == ["-£5.20", "(£5.20)", "£5.20-", "minus £5.20", "£5.20 CR"]
    assert amount("-5.20", "GBP", negative="after currency") == "£-5.20"
    assert amount("-5.20", "GBP", negative="after currency", place="n ¤") == "-5.20 £"
    assert amount("5.20", "GBP", negative="({})", around="Total: {}") == "Total: £5.20"


def test_what_else_is_done_to_a_quantity() -> None:
    assert UNITS.shown("12.5", "km") == "12.5 km"
    assert quantity("12.5", "km") == "12.5 km"
    assert quantity("12.5", "h", form=("trade", "")) == "12.5 hrs"
    assert quantity("1", "km", form=("long", "en_GB")) == "1 kilometre"
    assert quantity("1.5", "km", form=("long", "fr")) == "1,5 kilomètre"
    assert quantity("12.5", "km", form=("long", "de"), decimal=".", decimals=2, case="upper") == "12.50 KILOMETER"
    orders = ("{1}: {0}", "{0}{1}", "{0} ({1})")
    assert [quantity("3", "kg", order=order) for order in orders] == ["kg: 3", "3kg", "3 (kg)"]
    assert quantity("3", "kg", decimals=1, around="~{}") == "~3.0 kg"
