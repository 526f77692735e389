"""House styles of dates and times: CLDR's patterns in the languages they belong to, and composed ones.

DATES, TIMES    the kinds
formatted       a date or time by a pattern of CLDR's letters
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from innerloop.data.suites.styles import CASES, Items, Kind, Style, cased, framed, locales

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}
_LETTERS = re.compile(r"'[^']*'|([A-Za-z])\1*|.")
_NUMERIC = re.compile(r"[yMd]+([-./])[yMd]+\1[yMd]+\.?")

# A pattern and the locale that its names are of. Beyond CLDR's letters: o = 5th, R = the month in Roman numerals.
Pattern = tuple[str, str]
COMPOSED_DATES = [
    *("d MMM yy", "dd-MMM-yy", "ddMMMyy", "dd MMM y", "d/MMM/y", "MMM d y", "MMMM d y", "MMM-dd-y", "y MMM dd"),
    *("o MMMM y", "o MMM y", "MMMM o, y", "MMM o y", "'the' o 'of' MMMM y"),
]
COMPOSED_NUMBERS = ["yMMdd", "yyMMdd", "ddMMyy", "ddMMy", "MMddyy", "y.MM.dd", "y_MM_dd", "d.R.y", "d-R-yy", "d R y"]
NAMES = {"months": "MMM", "days": "E", "short_days": "E", "periods": "a"}


def _forms(key: str, always: str = "") -> list[Pattern]:
    """All of CLDR's patterns with their locales, once for equal names; of `always`, whether they are in it or not."""
    found: dict[str, Pattern] = {}
    for name, row in locales().items():
        for pattern in row[key]:
            names = [row[table] for table, letter in NAMES.items() if letter in pattern or table == always]
            found.setdefault(f"{pattern} {names}", (pattern, name))
    return list(found.values())


def _written_out(forms: Iterable[Pattern], *, english: bool) -> list[Pattern]:
    return [form for form in forms if "MMM" in form[0] and form[1].startswith("en") == english]


def formatted(pattern: str, row: Mapping[str, Any], fields: Mapping[str, int]) -> str:
    """A pattern with the fields in the place of its letters, with the names of a locale's row.

    fields  y, M, d, E (0 = Monday), H and m, those that the pattern asks for
    """

    def text(match: re.Match[str]) -> str:
        letters = match[0]
        letter, width = letters[0], len(letters)
        if letter == "'":
            return letters[1:-1] or "'"
        if letter == "E":
            days = row["days"] if width == 4 else row["short_days"]
            return days[fields["E"]]
        if letter == "M" and width > 2:
            months = row["months"] if width == 4 else row["short_months"]
            return months[fields["M"] - 1]
        if letter == "a":
            return row["periods"][fields["H"] // 12]
        if letter == "o":
            return f"{fields['d']}{ENDINGS.get(fields['d'], 'th')}"
        if letter == "R":
            return ROMAN[fields["M"] - 1]
        if letter == "h":
            return str((fields["H"] - 1) % 12 + 1).zfill(width)
        if letter == "y":
            return str(fields["y"] % 100).zfill(2) if width == 2 else str(fields["y"])
        return str(fields[letter]).zfill(width) if letter in fields else letters

    return _LETTERS.sub(text, pattern)


def _shown_date(ordinal: int) -> str:
    day = date.fromordinal(ordinal)
    return f"{DAYS[day.weekday()]} {day.isoformat()}"


def _written_date(items: Items, style: Style) -> str:
    day = date.fromordinal(items[0])
    pattern, locale = style["form"]
    if separated := _NUMERIC.fullmatch(pattern):
        pattern = pattern.replace(separated[1], style["separator"] or separated[1])
        if style["zeros"] == "always":
            pattern = re.sub(r"\b([Md])\b", r"\1\1", pattern)
        elif style["zeros"] == "never":
            pattern = re.sub(r"\b([Md])\1\b", r"\1", pattern)
    if "yy" not in pattern:
        pattern = pattern.replace("y", style["year"] if "MMM" in pattern else style["year"].lstrip("'"))
    if "E" not in pattern:
        pattern = style["weekday"].format(pattern)
    fields = {"y": day.year, "M": day.month, "d": day.day, "E": day.weekday()}
    case = "as is" if "R" in pattern else style["case"]
    return framed(cased(formatted(pattern, locales()[locale], fields), case), style["around"])


_CLDR_DATES = _forms("dates")
DATES = Kind(
    columns=(range(date(1950, 1, 1).toordinal(), date(2070, 1, 1).toordinal()),),
    shown=_shown_date,
    aspects={
        "form": (
            [("d MMMM y", "en_GB"), *_written_out(_CLDR_DATES, english=True)],
            [(pattern, "en_GB") for pattern in COMPOSED_DATES],
            [form for form in _CLDR_DATES if "MMM" not in form[0]],
            [(pattern, "en_GB") for pattern in COMPOSED_NUMBERS],
            _written_out(_CLDR_DATES, english=False),
        ),
        "separator": (("",), ("-", "/", ".", " ")),
        "zeros": (("as is",), ("always", "never")),
        "year": (("y",), ("yy", "''yy")),
        "weekday": (("{}",), ("E {}", "E, {}", "EEEE {}", "EEEE, {}", "{} (E)", "{}, EEEE", "(E) {}")),
        "case": CASES,
        "around": (
            ("{}",),
            ("({})", "[{}]", "{}.", "<{}>", "* {}", "{};"),
            ("Date: {}", "due {}", "dated {}", "as of {}"),
        ),
    },
    written=_written_date,
)


COMPOSED_TIMES = ["HHmm", "HH'h'mm", "H'h'mm", "HH.mm", "H.mm", "HH:mm 'h'", "HHmm'h'", "HH:mm 'hrs'"]
COMPOSED_TWELVE = ["h:mm a", "h:mma", "h.mma", "h.mm a", "hh:mm a", "hmma", "h:mm"]
SPANS = (*range(15, 125, 5), *range(150, 510, 30))  # minutes


def _shown_time(day: int, start: int, span: int) -> str:
    return f"{DAYS[day]} {_clock(start)}-{_clock(start + span)}"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _written_time(items: Items, style: Style) -> str:
    day, start, span = items
    pattern, locale = style["form"]
    row = dict(locales()[locale])
    row["periods"] = style["periods"] or row["periods"]

    def at(minutes: int, *, marked: bool) -> str:
        hour, minute = divmod(minutes, 60)
        shown = pattern if marked else re.sub(" ?a ?", "", pattern)
        if minute == 0 and style["on the hour"] == "hour alone":
            shown = re.sub("(?<=[Hh])[:.]?mm|(?<='h')mm| mm", "", shown)
        return formatted(shown, row, {"H": hour, "m": minute})

    end = start + span
    marked = style["marker"] == "twice" or start // 720 != end // 720
    times = style["range"].format(at(start, marked=marked), at(end, marked=True))
    text = formatted(style["weekday"], row, {"E": day}).format(times)
    return framed(cased(text, style["case"]), style["around"])


TIMES = Kind(
    columns=(range(7), range(6 * 60, 15 * 60 + 30, 5), SPANS),
    shown=_shown_time,
    aspects={
        "form": (
            [("HH:mm", "en_GB"), *((pattern, "en_GB") for pattern in COMPOSED_TIMES)],
            [(pattern, "en_US") for pattern in COMPOSED_TWELVE],
            _forms("times", always="short_days"),
        ),
        "periods": (("",), (("AM", "PM"), ("am", "pm"), ("a.m.", "p.m."), ("A", "P"), ("a", "p"))),
        "marker": (("twice",), ("once",)),
        "on the hour": (("as ever",), ("hour alone",)),
        "range": (
            ("{}-{}", "{} - {}"),
            ("{} to {}", "{} till {}", "from {} to {}", "{} until {}"),
            ("{}/{}", "{} > {}", "{}~{}", "{} -> {}"),
            ("{}",),
        ),
        "weekday": (
            ("E {}",),
            ("E, {}", "EEEE {}", "EEEE, {}", "E: {}", "EEEE: {}"),
            ("{} (E)", "{}, EEEE", "{} E", "{} 'on' EEEE", "{}/E"),
            ("{}",),
        ),
        "case": CASES,
        "around": (("{}",), ("({})", "[{}]", "{}.", "* {}"), ("Open {}", "Hours: {}", "slot {}", "Shift: {}")),
    },
    written=_written_time,
)
