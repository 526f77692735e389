"""Row: the machine loses power after each call of a run, and what was not flushed is gone.

crashes   the calls of a run, recorded; every folder that a crash after one of them could leave; each is gone on with
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from faulty.bench import Bench, Case, Tally
from faulty.replay import VARIANTS, Disk, Tree, of_folder, write
from faulty.shim import Call, read_log


def crashes(bench: Bench, *, names: Sequence[str] = ("each step",), at_most: int | None = None) -> Tally:
    """at_most: folders of each case, drawn at random; None: all that are different.

    The whole log, replayed, has to be the folder that the run left: no byte came another way (mapped memory, say).
    """
    tally = Tally()
    facts: dict[str, object] = {}
    for case in bench.cases(names):
        bench.clear(case)
        watch = bench.server.watched(case.out, with_data=True)
        bench.start(case, shim=watch).ended()
        calls, left = read_log(bench.server.log), of_folder(case.out)
        bench.clear(case)
        found = list(states(calls, case.out))
        whole = replayed(calls, case.out) == left
        facts[case.name] = {"calls": len(calls), "folders": len(found), "the log replayed is the run's folder": whole}
        if not whole:
            tally.wrong.append(f"{case.name}: the log, replayed, is not the folder that the run left")
        chosen = found if at_most is None or len(found) <= at_most else bench.chance.sample(found, at_most)
        for at, variant, tree in chosen:
            last = calls[at - 1].op if at else "the start"
            _gone_on(bench, case, tally, f"{case.name}, {variant} after call {at} ({last})", variant, tree)
    tally.details["runs"] = facts
    return tally


def _gone_on(bench: Bench, case: Case, tally: Tally, what: str, variant: str, tree: Tree) -> None:
    bench.clear(case)
    write(tree, case.out)
    tally.count("variants", variant)
    tally.take(what, bench.go_on(case))


def states(calls: Sequence[Call], root: Path) -> Iterator[tuple[int, str, Tree]]:
    """(number of calls before the crash, variant, tree), each tree once. `root` is as it was before the calls."""
    disk, seen = Disk(root), set[str]()
    for at in range(len(calls) + 1):
        if at:
            disk.take(calls[at - 1])
        for variant in VARIANTS:
            tree = disk.tree(variant)
            digest = _digest(tree)
            if digest not in seen:
                seen.add(digest)
                yield at, variant, tree


def replayed(calls: Sequence[Call], root: Path) -> Tree:
    disk = Disk(root)
    for call in calls:
        disk.take(call)
    return disk.tree("killed")


def _digest(tree: Tree) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(tree.items()):
        digest.update(f"{name}\0{'folder' if data is None else len(data)}\0".encode() + (data or b""))
    return digest.hexdigest()
