"""Whether two runs' folders hold the same: files byte for byte, JSON without what may differ between equal runs.

differences   what is different, in words; nothing for equal runs
saved_steps   the step of the newest checkpoint that a folder shows, 0 for none
leftovers     files that a killed process left behind
"""

import json
import re
from pathlib import Path
from typing import Any

MAY_DIFFER = ("timing", "host")
_LOCK = ".lock"
_STEP = re.compile(r"step-([0-9]{8,})")


def differences(reference: Path, found: Path) -> list[str]:
    """`reference` is right."""
    ours, theirs = _files(found), _files(reference)
    said = [f"{name} is missing" for name in sorted(theirs - ours)]
    said += [f"{name} is too much" for name in sorted(ours - theirs)]
    return said + [
        f"{name} is different{why}"
        for name in sorted(ours & theirs)
        if (why := _different(reference / name, found / name)) is not None
    ]


def saved_steps(folder: Path) -> int:
    """A checkpoint appears whole, by a rename: its name is proof that it was written."""
    named = (_STEP.fullmatch(path.name) for path in (folder / "checkpoints").glob("step-*"))
    return max((int(name[1]) for name in named if name), default=0)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".*") if path.name != _LOCK)


def _files(folder: Path) -> set[str]:
    every = {path.relative_to(folder).as_posix() + "/" * path.is_dir() for path in folder.rglob("*")}
    return every - {_LOCK}


def _different(reference: Path, found: Path) -> str | None:
    """None, or why."""
    if reference.is_dir():
        return None
    right, here = reference.read_bytes(), found.read_bytes()
    if right == here:
        return None
    if reference.suffix not in (".json", ".jsonl"):
        return ""
    try:
        lines = [text.splitlines() if reference.suffix == ".jsonl" else [text] for text in (right, here)]
        wanted, got = ([_kept(json.loads(line)) for line in side] for side in lines)
    except ValueError as error:
        return f": {error}"
    return None if wanted == got else ": " + (_first_difference(wanted, got) or "another number of lines")


def _kept(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: inside for key, inside in value.items() if key not in MAY_DIFFER}


def _first_difference(wanted: Any, got: Any, where: str = "") -> str:
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key in sorted(wanted.keys() | got.keys()):
            if key not in wanted or key not in got:
                return f"{where}.{key} is {'missing' if key in wanted else 'too much'}"
            if wanted[key] != got[key]:
                return _first_difference(wanted[key], got[key], f"{where}.{key}")
    if isinstance(wanted, list) and isinstance(got, list):
        pairs = [(at, pair) for at, pair in enumerate(zip(wanted, got, strict=False)) if pair[0] != pair[1]]
        for at, (one, other) in pairs[:1]:
            return _first_difference(one, other, f"{where}[{at}]")
        return "" if not where else f"{where} has {len(got)} entries, not {len(wanted)}"
    return f"{where} is {got!r}, not {wanted!r}"[:200]
