"""House styles of amounts of money and of quantities with units: CLDR's symbols, patterns and words, and composed ones.

AMOUNTS, UNITS    the kinds
"""

from decimal import Decimal

from innerloop.data.suites.styles import CASES, Items, Kind, Style, cased, framed, locales

CURRENCIES = {"EUR": ("€", "euros"), "USD": ("$", "dollars"), "GBP": ("£", "pounds")}
WHOLES = (*range(1, 100), *range(100, 1000, 3), *range(1000, 10_000, 23), *range(10_000, 100_000, 307))
CENTS = tuple(f"{cents:02}" for cents in (0, 5, 10, 20, 25, 40, 50, 75, 80, 90, 95, 99))
SIGNED_CENTS = (*(("", cents) for cents in CENTS), *(("-", cents) for cents in CENTS[::3]))


def _shown_amount(whole: int, signed_cents: tuple[str, str], currency: str) -> str:
    sign, cents = signed_cents
    return f"{sign}{whole}.{cents} {currency}"


def _grouped(digits: str, mark: str) -> str:
    """With a mark before every third digit from the end."""
    return f"{int(digits):,}".replace(",", mark)


def _written_amount(items: Items, style: Style) -> str:
    whole, (sign, cents), currency = items
    decimal, mark = style["marks"]
    number = _grouped(str(whole), mark) + decimal + cents
    if cents == "00":
        number = number.removesuffix(decimal + cents) + style["no cents"].format(decimal + cents, decimal)
    symbol, word = CURRENCIES[currency]
    names = {"symbol": symbol, "code": currency, "lower code": currency.lower(), "word": word, "none": ""}
    name = names[style["currency"]]
    place = "n ¤" if style["currency"] == "word" else style["place"]
    if style["currency"] != "symbol":
        place = place.replace("¤n", "¤ n").replace("n¤", "n ¤")
    if sign and style["negative"] == "after currency" and place.startswith("¤"):
        text = place.replace("n", f"-{number}").replace("¤", name).strip()
    else:
        text = place.replace("n", number).replace("¤", name).strip()
        if sign:
            text = (style["negative"] if "{}" in style["negative"] else "-{}").format(text)
    return framed(text, style["around"])


def _places() -> list[str]:
    """Where CLDR's patterns have the currency: before or behind, next to the number or apart."""
    return list(
        dict.fromkeys(row["amount"].replace("#,##,##", "#,##").replace("#,##0.00", "n") for row in locales().values())
    )


def _marks() -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["decimal"], row["group"]) for row in locales().values()))


AMOUNTS = Kind(
    columns=(WHOLES, SIGNED_CENTS, tuple(CURRENCIES)),
    shown=_shown_amount,
    aspects={
        "marks": (((".", ""),), _marks(), ((",", ""), (".", " "))),
        "currency": (("symbol",), ("code",), ("lower code", "word", "none")),
        "place": (("¤n",), _places(), ("n¤",)),
        "no cents": (("{0}",), ("", "{1}-")),
        "negative": (("-{}",), ("({})", "{}-", "minus {}", "{} CR", "after currency")),
        "around": (
            ("{}",),
            ("Total: {}", "{} net", "{} gross", "Sum {}", "{} due", "{} incl. VAT", "{} p.a.", "Balance {}"),
            ("[{}]", "= {}", "*{}*", "{};", "<{}>"),
        ),
    },
    written=_written_amount,
)

TRADE = {"km": "kms", "m": "mtr", "cm": "cms", "kg": "kgs", "g": "gr", "l": "ltr", "ml": "mls", "h": "hrs"}
TRADE |= {"min": "mins", "days": "d", "km/h": "kph", "MB": "megs"}
NUMBERS = tuple(dict.fromkeys(f"{tenths / 10:g}" for tenths in (*range(1, 1500), *range(1500, 10_000, 10))))


def _shown_quantity(number: str, unit: str) -> str:
    return f"{number} {unit}"


def _written_quantity(items: Items, style: Style) -> str:
    number, unit = items
    source, locale = style["form"]
    pattern, decimal = "{} " + unit, "."
    if source == "trade":
        pattern = "{} " + TRADE[unit]
    elif source != "symbol":
        row = locales()[locale]
        ones = {"1": number == "1", "<2": Decimal(number) < 2, "never": False}
        pattern, decimal = row["units"][source][unit][0 if ones[row["units"]["one"]] else 1], row["decimal"]
    places = style["decimals"]
    written = number if places is None else f"{Decimal(number):.{places}f}"
    written = written.replace(".", style["decimal"] or decimal)
    name = pattern.replace("{}", "").strip()
    text = pattern.format(written) if not style["order"] else style["order"].format(written, name)
    return framed(cased(text, style["case"]), style["around"])


_SPOKEN = [name for name, row in locales().items() if row["units"]]
_ENGLISH = [name for name in _SPOKEN if name.startswith("en")]
UNITS = Kind(
    columns=(NUMBERS, tuple(TRADE)),
    shown=_shown_quantity,
    aspects={
        "form": (
            [("symbol", ""), ("trade", "")],
            [(length, name) for length in ("long", "short") for name in _ENGLISH],
            [("long", name) for name in _SPOKEN if name not in _ENGLISH],
            [("short", name) for name in _SPOKEN if name not in _ENGLISH],
        ),
        "decimal": (("",), (",", ".")),
        "decimals": ((None,), (1, 2)),
        "order": (("",), ("{1} {0}", "{1}: {0}", "{1}={0}"), ("{0}{1}", "{0}-{1}", "{0} ({1})")),
        "case": CASES,
        "around": (
            ("{}",),
            ("approx. {}", "ca. {}", "{} max.", "at least {}", "Qty: {}", "{} each", "up to {}", "{} total"),
            ("~{}", "({})", "[{}]", "= {}", "<{}>", "{};"),
        ),
    },
    written=_written_quantity,
)
