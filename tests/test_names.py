"""A public name at the top of a module means one thing in all of innerloop."""

import ast
from collections import defaultdict
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "innerloop"

# The verbs of cli/ are called as what they call, and are left out. A name that is missing here must not become two.
A_TABLE = "the part of results.json, and the table or figure of it"
ALLOWED = {
    "main": "a process of its own",
    "build": "what every suite has",
    "task_names": "what every suite has",
    **dict.fromkeys(["adaptation", "contrasts", "differences", "forgetting", "primary", "scores", "targets"], A_TABLE),
    "overlaps": "examples that tasks share, and their table",
    "meta_train": "a config's run, and the same on live objects",
}


def defined(source: str) -> dict[str, bool]:
    """Public names at the top of a module, and whether each is a class or a function."""
    found: dict[str, bool] = {}
    for node in ast.parse(source).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id: False for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = True
    return {name: kind for name, kind in found.items() if not name.startswith("_")}


def imported(source: str) -> set[tuple[str, str]]:
    """(module, name) of each import from one of ours."""
    return {
        (node.module.removeprefix("innerloop."), alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("innerloop.")
        for alias in node.names
    }


def shared(sources: dict[str, str]) -> dict[str, set[str]]:
    """Name -> the modules that define it, where that is more than one. A constant counts where others import it."""
    asked = set[tuple[str, str]]().union(*map(imported, sources.values()))
    found = defaultdict[str, set[str]](set)
    for module, source in sources.items():
        for name, is_code in defined(source).items():
            if is_code or (module, name) in asked:
                found[name].add(module)
    return {name: modules for name, modules in found.items() if len(modules) > 1}


def test_no_name_is_two_things() -> None:
    paths = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    sources = {name.removesuffix(".__init__"): path.read_text() for name, path in paths.items()}
    found = shared({name: source for name, source in sources.items() if name.partition(".")[0] != "cli"})
    assert {name: found[name] for name in found if name not in ALLOWED} == {}
    assert ALLOWED.keys() - found.keys() == set(), "told apart by now: take it off the list"


def test_what_counts_as_two() -> None:
    one = "class State: ...\nLIMIT = 3\ndef _own(): ...\n"
    assert shared({"a": one, "b": "def other(): ..."}) == {}
    assert shared({"a": one, "b": one}) == {"State": {"a", "b"}}, "a constant of one's own is nobody's business"
    asked = "from innerloop.a import LIMIT\nfrom innerloop.b import LIMIT as other\n"
    assert shared({"a": one, "b": one, "c": asked})["LIMIT"] == {"a", "b"}
