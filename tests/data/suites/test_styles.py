import itertools
from random import Random

import pytest

from cldr_rows import FILE, kept_release, rows
from innerloop.data.suites.house_styles import KINDS
from innerloop.data.suites.styles import cased, drawn, framed, locales
from innerloop.data.tasks import normalized


@pytest.mark.parametrize("name", KINDS)
def test_a_number_is_an_input_and_no_two_look_alike(name: str) -> None:
    kind = KINDS[name]
    some = [*range(200), *range(200, kind.size, kind.size // 2000), kind.size - 1]
    shown = {normalized(kind.shown(*kind.items(number))) for number in some}
    assert len(shown) == len(some)
    expected = next(itertools.islice(itertools.product(*kind.columns), 7, None))
    assert kind.items(7) == expected
    assert kind.items(kind.size - 1) == tuple(column[-1] for column in kind.columns)


@pytest.mark.parametrize("name", KINDS)
def test_every_value_of_every_aspect_can_be_written(name: str) -> None:
    kind, rng = KINDS[name], Random(1)
    plain = {aspect: groups[0][0] for aspect, groups in kind.aspects.items()}
    for aspect, groups in kind.aspects.items():
        assert len({str(value) for group in groups for value in group}) >= 2
        for value in (value for group in groups for value in group):
            text = kind.written(kind.items(rng.randrange(kind.size)), plain | {aspect: value})
            assert text == text.strip() != ""
            assert "\n" not in text


def test_changed_aspects_are_drawn_by_name() -> None:
    kind = KINDS["lists"]
    assert drawn(kind, "hard", Random(3)) == drawn(kind, "hard", Random(3))
    assert drawn(kind, "hard", Random(3)) != drawn(kind, "hard", Random(4))


def test_a_full_stop_ends_a_text_once() -> None:
    assert framed("5 p.m.", "{}.") == framed("5 p.m", "{}.") == "5 p.m."
    assert framed("5 p.m.", "({})") == "(5 p.m.)"
    assert framed("{a}", "{{}}") == "{{a}}"
    assert [cased("aB", case) for case in ("as is", "upper", "lower")] == ["aB", "AB", "ab"]


def test_the_rows_are_those_of_cldr() -> None:
    """Of another release a few values differ, and that is why they are kept."""
    theirs = rows()
    assert locales().keys() == theirs.keys()
    values = [(_leaves(locales()[name]), _leaves(row)) for name, row in theirs.items()]
    kept = [pair for ours, row in values for pair in ours.items()]
    same = [pair for ours, row in values for pair in ours.items() if row.get(pair[0]) == pair[1]]
    assert len(kept) > 2500
    assert len(same) >= 0.95 * len(kept)
    if kept_release():
        assert len(same) == len(kept)
    assert "UNICODE LICENSE V3" in FILE.with_name("cldr_license.txt").read_text("utf-8")


def _leaves(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {key: leaf for name, each in value.items() for key, leaf in _leaves(each, f"{path}/{name}").items()}
    if isinstance(value, list):
        return {key: leaf for place, each in enumerate(value) for key, leaf in _leaves(each, f"{path}/{place}").items()}
    return {path: value}
