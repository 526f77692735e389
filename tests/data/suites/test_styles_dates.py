from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from babel.dates import format_date, format_time

from cldr_rows import as_babel
from innerloop.data.suites.styles import locales
from innerloop.data.suites.styles_dates import DATES, TIMES, formatted

PLAIN_DATE, PLAIN_TIME = ({name: each[0][0] for name, each in kind.aspects.items()} for kind in (DATES, TIMES))
DAYS = [date(2024, 1, 1) + timedelta(days=37 * step) for step in range(12)]


def dated(day: date, **style: Any) -> str:
    return DATES.written((day.toordinal(),), PLAIN_DATE | style)


def timed(day: int, start: str, end: str, **style: Any) -> str:
    first, last = (int(text[:2]) * 60 + int(text[3:]) for text in (start, end))
    return TIMES.written((day, first, last - first), PLAIN_TIME | style)


def _both() -> Iterator[tuple[str, str]]:
    """What is written by each of CLDR's patterns, here and by babel."""
    for name, row in locales().items():
        for pattern in row["dates"]:
            for day in DAYS:
                fields = {"y": day.year, "M": day.month, "d": day.day, "E": day.weekday()}
                yield formatted(pattern, row, fields), format_date(day, pattern, locale=name)
        for pattern in row["times"]:
            for hour, minute in ((0, 5), (9, 0), (12, 30), (13, 7), (23, 59)):
                text = format_time(time(hour, minute), pattern, locale=name)
                yield formatted(pattern, row, {"H": hour, "m": minute}), text


def test_cldrs_patterns_are_written_as_babel_writes_them() -> None:
    pairs = list(_both())
    assert len(pairs) > 3000
    assert as_babel(pairs)
    assert not as_babel([(ours, theirs + ".") for ours, theirs in pairs])


@pytest.mark.parametrize(
    ("pattern", "theirs"),
    [
        ("yMMdd", "%Y%m%d"),
        ("ddMMMyy", "%d%b%y"),
        ("yyMMdd", "%y%m%d"),
        ("dd/MM/y", "%d/%m/%Y"),
        ("E dd MMM y", "%a %d %b %Y"),
    ],
)
def test_composed_dates_are_strftimes(pattern: str, theirs: str) -> None:
    for day in (day for day in DAYS if day.month != 9):  # Sept, in British English
        assert dated(day, form=(pattern, "en_GB")) == datetime.strftime(datetime(day.year, day.month, day.day), theirs)


def test_what_else_is_done_to_a_date() -> None:
    day = date(2024, 3, 5)
    assert DATES.shown(day.toordinal()) == "Tue 2024-03-05"
    assert dated(day) == "5 March 2024"
    assert dated(day, form=("o MMMM y", "en_GB")) == "5th March 2024"
    assert [dated(date(2024, 1, n), form=("o", "en_GB")) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "30th", "31st"]
    )
    assert dated(day, form=("d.R.y", "en_GB"), case="lower") == "5.III.2024"
    assert dated(day, year="''yy", case="upper") == "5 MARCH '24"
    assert dated(day, weekday="EEEE, {}", around="due {}") == "due Tuesday, 5 March 2024"
    numeric = ("d/M/y", "en_GB")
    assert dated(day, form=numeric, separator="-", zeros="always") == "05-03-2024"
    assert dated(day, form=("dd.MM.y", "de"), zeros="never", year="''yy", around="{}.") == "5.3.24."
    assert dated(day, form=("E, MMM d, y", "en_US"), weekday="EEEE {}") == "Tue, Mar 5, 2024"


def test_what_else_is_done_to_a_time() -> None:
    assert TIMES.shown(1, 14 * 60 + 5, 85) == "Tue 14:05-15:30"
    assert timed(1, "14:05", "15:30") == "Tue 14:05-15:30"
    twelve = {"form": ("h:mm a", "en_US")}
    assert timed(1, "11:00", "12:30", **twelve) == "Tue 11:00 AM-12:30 PM"
    assert timed(1, "14:00", "15:30", **twelve, marker="once") == "Tue 2:00-3:30 PM"
    assert timed(1, "11:00", "12:30", **twelve, marker="once") == "Tue 11:00 AM-12:30 PM"
    assert timed(1, "14:00", "15:30", form=("h.mma", "en_US"), periods=("a", "p")) == "Tue 2.00p-3.30p"
    whole = {"on the hour": "hour alone"}
    shown = {"HH:mm": "09", "HHmm": "09", "HH'h'mm": "09h", "HH 'h' mm": "09 h", "HH:mm 'h'": "09 h", "h:mm a": "9 AM"}
    for pattern, text in shown.items():
        assert timed(0, "09:00", "10:15", form=(pattern, "en_US"), range="{}", **whole) == f"Mon {text}"
    assert timed(2, "09:00", "10:15", weekday="{} 'on' EEEE", range="{} to {}") == "09:00 to 10:15 on Wednesday"
    assert timed(2, "09:00", "10:15", form=("HH:mm", "de"), around="({})") == "(Mi. 09:00-10:15)"
