from typing import Any

import pytest
from babel.lists import format_list

from cldr_rows import as_babel
from innerloop.data.suites.styles import locales
from innerloop.data.suites.styles_lists import CODES, FULL, HOME, LISTS, OFFICE, RECORDS, SHORT, TOOLS

PLAIN = {name: groups[0][0] for name, groups in LISTS.aspects.items()}
PLAIN_RECORD = {name: groups[0][0] for name, groups in RECORDS.aspects.items()}


def listed(**style: Any) -> str:
    return LISTS.written(("lamp", "saw", "pen"), PLAIN | style)


def recorded(**style: Any) -> str:
    return RECORDS.written(("lamp", "grey", 3, "12.50"), PLAIN_RECORD | style)


def test_lists_are_joined_as_babel_joins_them() -> None:
    pairs: list[tuple[str, str]] = []
    for name in ("en_US", "en_GB", "de", "fr", "es", "it", "nl", "sv"):
        last = locales()[name]["ends"][0].removeprefix("{0}").removesuffix("{1}")
        assert (", ", last) in [value for group in LISTS.aspects["joined"] for value in group]
        pairs.append((listed(joined=(", ", last)), format_list(["lamp", "saw", "pen"], locale=name)))
    assert as_babel(pairs)
    assert not as_babel([(ours + " ", theirs) for ours, theirs in pairs])


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ({}, "lamp, saw, pen"),
        ({"order": "sorted"}, "lamp, pen, saw"),
        ({"order": "reversed", "case": "upper"}, "PEN, SAW, LAMP"),
        ({"joined": ("; ", " and "), "case": "capitals"}, "Lamp; Saw and Pen"),
        ({"mark": "{letter}) {item}", "case": "sentence"}, "a) Lamp, b) saw, c) pen"),
        ({"mark": "- {item}", "joined": (", ", " and "), "quote": "'{}'"}, "- 'lamp' - 'saw' - 'pen'"),
        ({"mark": "{n}:{item}", "quote": "the {}", "case": "capitals"}, "1:The lamp, 2:The saw, 3:The pen"),
        ({"around": "3 items: {}"}, "3 items: lamp, saw, pen"),
    ],
)
def test_lists_are_written_in_a_style(style: dict[str, Any], text: str) -> None:
    assert LISTS.shown("lamp", "saw", "pen") == "lamp, saw, pen"
    assert listed(**style) == text


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ({}, "lamp, grey, 3, 12.50"),
        ({"fields": "count item colour price", "count": "{}x", "price": "${}"}, "3x, lamp, grey, $12.50"),
        ({"label": ("{0}={1}", SHORT), "between": "; "}, "art=lamp; col=grey; qty=3; amt=12.50"),
        ({"label": ("{0}: {1}", FULL), "fields": "item price", "around": "{{}}"}, "{item: lamp, price: 12.50}"),
        ({"label": ("{0} {1}", CODES), "case": "upper"}, "i LAMP, c GREY, n 3, p 12.50"),
        ({"price": ",", "count": "{:02}"}, "lamp, grey, 03, 12,50"),
        ({"price": "{} EUR", "colour": "{1}."}, "lamp, gre., 3, 12,50 EUR"),
        ({"colour": "{2}", "fields": "colour item", "between": "/"}, "G/lamp"),
        ({"label": ('"{1}"', FULL), "between": ","}, '"lamp","grey","3","12.50"'),
    ],
)
def test_records_are_written_in_a_style(style: dict[str, Any], text: str) -> None:
    assert RECORDS.shown("lamp", "grey", 3, "12.50") == "lamp, grey, 3, 12.50"
    assert recorded(**style) == text


def test_no_thing_is_of_two_columns() -> None:
    assert len({*HOME, *TOOLS, *OFFICE}) == 90
