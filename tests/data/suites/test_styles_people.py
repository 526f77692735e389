from typing import Any

import pytest

from innerloop.data.suites.styles_people import NAMES, PHONES, PLACES

PLAIN = {name: groups[0][0] for name, groups in NAMES.aspects.items()}
PLAIN_PHONE = {name: groups[0][0] for name, groups in PHONES.aspects.items()}


def named(**style: Any) -> str:
    return NAMES.written((("Dr", "Anna"), "Quinn", "Meyer"), PLAIN | style)


def dialled(place: str = "31 20", **style: Any) -> str:
    (found,) = [each for each in PLACES if f"{each[0]} {each[2]}" == place]
    return PHONES.written((found, 5551234), PLAIN_PHONE | style)


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ({}, "Dr Anna Quinn Meyer"),
        ({"title": "dot", "family": "upper"}, "Dr. Anna Quinn MEYER"),
        ({"title": "word", "middle": ""}, "Doctor Anna Meyer"),
        ({"given": "{1}.", "middle": "{1}."}, "Dr A. Q. Meyer"),
        ({"order": "{family}, {given} {middle}", "middle": ""}, "Meyer, Anna"),
        ({"order": "{family}, {title} {given} {middle}", "given": "{1}"}, "Meyer, Dr A Quinn"),
        ({"order": "{given}.{family}", "given": "{1}."}, "a.meyer"),
        ({"order": "{given}_{family}", "case": "upper"}, "ANNA_MEYER"),
        ({"order": "{family} ({given})", "case": "lower", "around": "Attn: {}"}, "Attn: meyer (anna)"),
        ({"around": "Dear {},"}, "Dear Dr Anna Quinn Meyer,"),
    ],
)
def test_names_are_written_in_a_style(style: dict[str, str], text: str) -> None:
    assert NAMES.shown(("Dr", "Anna"), "Quinn", "Meyer") == "Dr Anna Quinn Meyer"
    assert named(**style) == text


@pytest.mark.parametrize(
    ("place", "style", "text"),
    [
        ("31 20", {}, "+31 20 5551234"),
        ("31 20", {"groups": (3, 4), "between": "-"}, "+31 20 555-1234"),
        ("31 20", {"groups": (1, 2, 2, 2), "between": "."}, "+31 20 5.55.12.34"),
        ("31 20", {"prefix": "(00{}) ", "area": "{}/"}, "(0031) 20/5551234"),
        ("31 20", {"prefix": "national", "area": "({}) "}, "(020) 5551234"),
        ("1 212", {"prefix": "national", "area": "({}) ", "groups": (3, 4)}, "(212) 555 1234"),
        ("34 91", {"prefix": "national", "groups": (3, 2, 2)}, "91 555 12 34"),
        ("49 221", {"around": "Tel. {}", "prefix": "+{}-", "area": "{}-"}, "Tel. +49-221-5551234"),
    ],
)
def test_phone_numbers_are_written_in_a_style(place: str, style: dict[str, Any], text: str) -> None:
    assert dialled(place, **style) == text


def test_every_grouping_has_all_digits() -> None:
    for groups in (group for each in PHONES.aspects["groups"] for group in each):
        assert sum(groups) == 7
        assert dialled(groups=groups, between="").endswith("5551234")
    assert len(set(PLACES)) == len(PLACES)
