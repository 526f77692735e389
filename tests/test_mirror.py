"""The tree of the tests is that of what they test, and nothing in it changes where Python looks for modules."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_file_changes_the_path_of_modules() -> None:
    """pyproject.toml names the folders for tests; a script has its own; more is PYTHONPATH's."""
    changed = re.compile(r"sys\.path\.(insert|append|extend)|sys\.path *\+?=[^=]")
    assert changed.search("sys.path" + ".insert(0, here)")
    for folder in ("src", "tests", "benchmarks", "docs", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            found = changed.search(path.read_text())
            assert found is None, f"{path.relative_to(ROOT)}: {found}"
