"""What the suite house-styles takes from CLDR, read through babel; run as a script, this writes the file it ships.

FILE         where the rows are kept, so that another release of babel changes no task
LOCALES      those that are read: of Latin script, which a tokenizer of English doesn't take apart byte by byte
kept_release whether the installed babel has the release that the file was written from
rows         locale -> its row, as the installed babel has it
spaced       a text with plain spaces
as_babel     whether what is kept writes the same as the installed babel, which may be of another release
"""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "src" / "innerloop" / "data" / "suites" / "cldr.json"
LOCALES = re.findall(
    r"\w+",
    "en_US en_GB en_CA en_AU en_IN en_ZA de de_AT de_CH fr fr_CA fr_CH es es_MX it it_CH pt pt_PT nl nl_BE "
    "sv da nb fi et lv lt pl cs sk sl hr hu ro tr id af ca",
)
SKELETONS = ("yMd", "yMMMd", "yMEd", "yMMMEd")
UNITS = {
    "km": "length-kilometer",
    "m": "length-meter",
    "cm": "length-centimeter",
    "kg": "mass-kilogram",
    "g": "mass-gram",
    "l": "volume-liter",
    "ml": "volume-milliliter",
    "h": "duration-hour",
    "min": "duration-minute",
    "days": "duration-day",
    "km/h": "speed-kilometer-per-hour",
    "MB": "digital-megabyte",
}
LENGTHS = ("long", "short")


def rows() -> dict[str, dict[str, Any]]:
    from babel import Locale

    return {name: _row(Locale.parse(name)) for name in LOCALES}


def _row(locale: Any) -> dict[str, Any]:
    months, days, periods = (table["format"] for table in (locale.months, locale.days, locale.day_periods))
    dates = [locale.date_formats[length].pattern for length in ("short", "medium", "long", "full")]
    dates += [locale.datetime_skeletons[name].pattern for name in SKELETONS if name in locale.datetime_skeletons]
    times = [locale.time_formats["short"].pattern]
    times += [locale.datetime_skeletons[name].pattern for name in ("Hm", "hm")]
    ends = [dict(pattern).get("end") for pattern in locale.list_patterns.values()]
    symbols = locale.number_symbols["latn"]
    return {
        "months": _plain(months["wide"][number] for number in range(1, 13)),
        "short_months": _plain(months["abbreviated"][number] for number in range(1, 13)),
        "days": _plain(days["wide"][number] for number in range(7)),
        "short_days": _plain(days["abbreviated"][number] for number in range(7)),
        "periods": _plain(periods["abbreviated"].get(name, name.upper()) for name in ("am", "pm")),
        "dates": _different(pattern for pattern in dates if not set("cL") & set(pattern)),
        "times": _different(times),
        "decimal": symbols["decimal"],
        "group": spaced(symbols["group"]),
        "amount": spaced(locale.currency_formats["standard"].pattern.partition(";")[0]),
        "ends": _different(end for end in ends if end),
        "units": {} if locale.territory and str(locale) not in ("en_US", "en_GB") else _units(locale),
    }


def _units(locale: Any) -> dict[str, Any]:
    """Length -> unit -> its pattern for one and for others; empty where a language has more than these two.

    `one` says which numbers are one: 1 alone ("1"), all below 2 ("<2"), or none ("never").
    """
    from babel.units import format_unit

    numbers = [Decimal(number) for number in ("1", "0.5", "1.5", "2", "3", "5", "11", "12.5", "21", "22", "100")]
    categories = [locale.plural_form(number) for number in numbers]
    rules = {"1": [Decimal(1)], "<2": numbers[:3], "never": []}
    expected = {name: ["one" if number in ones else "other" for number in numbers] for name, ones in rules.items()}
    rule = next((name for name, expected_ in expected.items() if expected_ == categories), None)
    if rule is None:
        return {}

    def pattern(unit: str, length: Any, number: int) -> str:
        return spaced(format_unit(number, unit, length, locale=locale)).replace(str(number), "{}", 1)

    patterns = {
        length: {unit: [pattern(name, length, number) for number in (1, 2)] for unit, name in UNITS.items()}
        for length in LENGTHS
    }
    return {"one": rule, **patterns}


def spaced(text: str) -> str:
    """With plain spaces in place of those that don't break."""
    return text.replace("\u00a0", " ").replace("\u202f", " ").replace("\u2019", "'")


def kept_release() -> bool:
    """Whether the installed babel has the release of CLDR that the file was written from."""
    from babel.core import get_cldr_version

    return str(get_cldr_version()) == str(json.loads(FILE.read_text("utf-8"))["cldr"])


def as_babel(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether the pairs of a kept text and babel's are equal: all of the same release, nine of ten of another."""
    equal = sum(ours == spaced(theirs) for ours, theirs in pairs)
    return equal >= len(pairs) * (1 if kept_release() else 0.9)


def _plain(texts: Any) -> list[str]:
    return [spaced(text) for text in texts]


def _different(texts: Any) -> list[str]:
    return list(dict.fromkeys(_plain(texts)))


if __name__ == "__main__":
    import babel
    from babel.core import get_cldr_version

    lines = {"cldr": get_cldr_version(), "licence": "Unicode-3.0: cldr_license.txt", **rows()}
    text = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in lines.items())
    FILE.write_text(f"{{\n{text}\n}}\n", "utf-8")
    licence = Path(babel.__file__).with_name("locale-data") / "LICENSE.unicode"
    FILE.with_name("cldr_license.txt").write_text(licence.read_text("utf-8"), "utf-8")
