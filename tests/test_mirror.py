"""The tree of the tests is that of what they test, and nothing in it changes where Python looks for modules.

Module innerloop.x.y has tests/x/test_y.py, and where that would be long, tests/x/test_y_<aspect>.py beside it. Scripts
of benchmarks/ have theirs in tests/benchmarks, the harness of tests/robustness beside its modules.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS, SOURCE = ROOT / "tests", ROOT / "src" / "innerloop"

# Tests of more than a module: what they are about.
ACROSS = {
    "test_demo.py": "examples/demo.py",
    "test_docs.py": "the pages of docs/",
    "test_docstrings.py": "the examples of all docstrings",
    "test_make.py": "the Makefile",
    "test_mirror.py": "the tests' own tree",
    "test_names.py": "names at the top of all modules",
    "test_notebook.py": "examples/first_steps.ipynb",
    "test_planted_bugs.py": "bugs that the other tests have to find",
    "test_project.py": "pyproject.toml, hooks and forms",
    "test_public_tasks.py": "examples/public_tasks.py",
    "test_first_change.py": "CONTRIBUTING.md",
    "test_python_page.py": "docs/python.md",
    "test_quickstart.py": "the commands of docs/quickstart.md",
    "test_reprs.py": "what objects say of themselves",
    "test_security.py": "the promises of SECURITY.md",
}
# Modules without a test of their own: why.
UNTESTED = {
    "__main__": "one call, which tests/test_cli.py makes in a process",
}


def modules(folder: Path) -> set[str]:
    """Dotted names below `folder`; a package is one where its own file defines something."""
    every = [path.relative_to(folder) for path in folder.rglob("*.py")]
    code = [path for path in every if path.name != "__init__.py" or "\ndef " in (folder / path).read_text()]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in code} - {"__init__"}


def module_of(path: Path, known: set[str]) -> str | None:
    """The module that a test file is of: the longest that its name begins with."""
    names = [".".join((*path.parent.parts, path.stem.removeprefix("test_")))]
    while "_" in names[-1].rpartition(".")[2]:
        names.append(names[-1].rpartition("_")[0])
    return next((name for name in names if name in known), None)


def test_every_module_has_its_test_at_its_place_and_every_test_its_module() -> None:
    known = modules(SOURCE)
    files = {path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    ours = {path for path in files if path.parts[0] not in ("benchmarks", "robustness") and str(path) not in ACROSS}
    places = {name: Path(*name.split(".")[:-1], f"test_{name.rpartition('.')[2]}.py") for name in known}
    missing = sorted(name for name, place in places.items() if place not in files and name not in UNTESTED)
    assert missing == []
    assert sorted(str(path) for path in ours if module_of(path, known) is None) == []
    assert module_of(Path("data/test_zork.py"), known) is None
    assert module_of(Path("data/test_tasks_of_any_kind.py"), known) == "data.tasks"
    assert {*ACROSS} <= {str(path) for path in files}
    assert UNTESTED.keys() <= known, "an exception for what is not there"
    assert not [name for name in UNTESTED if places[name] in files], "an exception for what has its test"


@pytest.mark.parametrize(("folder", "place"), [("benchmarks", "benchmarks"), ("robustness", "tests/robustness")])
def test_a_test_of_a_script_or_harness_names_it(folder: str, place: str) -> None:
    for path in (TESTS / folder).glob("test_*.py"):
        name = path.stem.removeprefix("test_")
        assert (ROOT / place / f"{name}.py").is_file() or (ROOT / place / name).is_dir(), path.name


def test_no_file_changes_the_path_of_modules() -> None:
    """pyproject.toml names the folders for tests; a script has its own; more is PYTHONPATH's."""
    changed = re.compile(r"sys\.path\.(insert|append|extend)|sys\.path *\+?=[^=]")
    assert changed.search("sys.path" + ".insert(0, here)")
    for folder in ("src", "tests", "benchmarks", "docs", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            found = changed.search(path.read_text())
            assert found is None, f"{path.relative_to(ROOT)}: {found}"
