"""What the Makefile names is there: a quick run is a part of the tests, and no more."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text().replace("\\\n", " ")


@pytest.mark.parametrize("name", ["QUICK", "NUMERIC"])
def test_a_list_of_tests_names_tests_that_are_there(name: str) -> None:
    found = re.search(rf"^{name} := (.*)$", MAKEFILE, re.MULTILINE)
    assert found
    paths = found[1].split()
    assert len(set(paths)) == len(paths) > 5
    for path in paths:
        assert path.startswith("tests/")
        assert (ROOT / path).is_dir() or (ROOT / path).is_file(), path
        assert (ROOT / path).is_dir() or Path(path).name.startswith("test_"), path


def test_what_is_said_of_a_target_is_said_of_one_that_is_there() -> None:
    said = re.findall(r"^# make ([\w-]+) ", MAKEFILE, re.MULTILINE)
    assert {"setup", "test", "quick", "watch", "test-long", "test-cpus", "format", "audit"} <= set(said)
    for target in said:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_ci_names_no_service() -> None:
    assert "://" not in (ROOT / ".ci" / "run").read_text()
