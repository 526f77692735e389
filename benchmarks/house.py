"""How the rooms of the sources hang together: floors, arrows and circles of the imports.

    python benchmarks/house.py          the numbers, and a longest chain
    python benchmarks/house.py --json   the same for programs

A room is a folder of src/innerloop, or a file beside the folders. An arrow is an import of one room by another,
wherever it stands but under `if TYPE_CHECKING`. Floors are the rooms of the longest chain of arrows.

House      imports, floors and circles
measured   the folder of a package -> House
"""

import argparse
import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "innerloop"


@dataclass(frozen=True)
class House:
    """imports: room -> the rooms that it imports."""

    imports: Mapping[str, frozenset[str]]

    @property
    def arrows(self) -> int:
        return sum(len(found) for found in self.imports.values())

    @cached_property
    def circle(self) -> list[str]:
        """The rooms of one circle; none where there is no circle."""
        try:
            TopologicalSorter(self.imports).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    @cached_property
    def chain(self) -> list[str]:
        """A longest one, from the top. Raises CycleError for a circle."""
        below: dict[str, list[str]] = {}
        for room in TopologicalSorter(self.imports).static_order():
            longest = max((below[each] for each in sorted(self.imports.get(room, ()))), key=len, default=[])
            below[room] = [room, *longest]
        return max(below.values(), key=len)


def measured(source: Path = SOURCE) -> House:
    """Of the package whose folder this is."""
    imports: dict[str, set[str]] = {}
    for path in sorted(source.rglob("*.py")):
        room = _room(path.relative_to(source).with_suffix("").parts)
        found = {_room(name.split(".")[1:]) for name in _imported(path, source) if name.split(".")[0] == source.name}
        imports.setdefault(room, set()).update(found - {room})
    return House({room: frozenset(found) for room, found in imports.items()})


def _room(parts: "tuple[str, ...] | list[str]") -> str:
    return parts[0] if parts else "__init__"


def _imported(path: Path, source: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports when it runs."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped |= {child for each in node.body for child in ast.walk(each)}
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodule = source.parent.joinpath(*node.module.split("."))
            for alias in node.names:
                inside = (submodule / f"{alias.name}.py").exists() or (submodule / alias.name).is_dir()
                yield f"{node.module}.{alias.name}" if inside else node.module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for programs")
    asked, house = parser.parse_args(), measured()
    facts = {"floors": len(house.chain), "arrows": house.arrows, "circle": house.circle, "chain": house.chain}
    if asked.json:
        print(json.dumps(facts))
        return
    print(f"floors {facts['floors']}, arrows {facts['arrows']}, circles {'none' if not house.circle else house.circle}")
    print(" -> ".join(house.chain))


if __name__ == "__main__":
    main()
