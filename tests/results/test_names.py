"""A file of a comparison becomes a record, or faults that name the file, the field and the value."""

from pathlib import Path

import pytest

from innerloop.errors import Faults
from innerloop.learning.methods import METHODS
from innerloop.results import names
from innerloop.results.names import (
    CONTRASTS,
    FAULTS_PER_FILE,
    FULL_REFERENCE,
    REFERENCE,
    UNTRAINED,
    Count,
    Number,
    Record,
    known_arms,
    read_record,
)


class Line(Record):
    name: str
    count: Count = 0
    value: Number = None


class Wide(Record):
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int


def read(folder: Path, text: str, kind: type[Record] = Line) -> tuple[Record | None, list[str]]:
    file, faults = folder / "line.json", Faults()
    file.write_text(text)
    return read_record(file, kind, faults), [str(fault) for fault in faults]


def test_every_arm_is_known_once_and_what_is_compared_is_among_them() -> None:
    arms = known_arms()
    assert arms == (*UNTRAINED, *METHODS)
    assert len({*arms}) == len(arms)
    assert {REFERENCE, FULL_REFERENCE, *(arm for pair in CONTRASTS.values() for arm in pair)} <= {*arms}


def test_a_sound_file_is_a_record_and_more_fields_are_left_alone(tmp_path: Path) -> None:
    found, faults = read(tmp_path, '{"name": "x", "count": 2, "value": 0.5, "more": 1}')
    assert (found, faults) == (Line(name="x", count=2, value=0.5), [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Invalid JSON"),
        ("{}", "name"),
        ('{"name": 3}', "name"),
        ('{"name": "x", "count": -1}', "count"),
        ('{"name": "x", "count": "2"}', "count"),
        ('{"name": "x", "count": 2.5}', "count"),
        ('{"name": "x", "value": NaN}', "value"),
        ('{"name": "x", "value": 1e999}', "value"),
    ],
)
def test_what_is_no_such_record_is_a_fault_at_its_field(tmp_path: Path, text: str, said: str) -> None:
    found, faults = read(tmp_path, text)
    assert found is None
    assert len([fault for fault in faults if said in fault and str(tmp_path / "line.json") in fault]) >= 1, faults


def test_the_first_faults_of_a_file_are_enough(tmp_path: Path) -> None:
    found, faults = read(tmp_path, "{}", Wide)
    assert found is None
    assert len(faults) == FAULTS_PER_FILE < len(Wide.model_fields)


def test_a_file_that_is_not_there_or_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults()
    assert read_record(tmp_path / "none.json", Line, faults) is None
    assert "No such file" in str(next(iter(faults)))
    sound = '{"name": "x"}'
    monkeypatch.setattr(names, "LARGEST_FILE", len(sound))
    assert read(tmp_path, sound) == (Line(name="x"), [])
    found, said = read(tmp_path, sound + " ")
    assert found is None
    assert "too large" in said[0]


def test_a_record_stays_as_it_is() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Line(name="x").name = "y"
