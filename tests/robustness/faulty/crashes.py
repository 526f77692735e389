"""Row: the machine loses power after each call of a run, and what was not flushed is gone.

crashes   the calls of a run, and of one that goes on, recorded; every folder that a crash after one of them could
          leave; each is gone on with
"""

import hashlib
import itertools
import signal
from collections.abc import Iterator, Sequence

from robustness.faulty.bench import Bench, Case, Tally
from robustness.faulty.phases import Interval
from robustness.faulty.replay import VARIANTS, Disk, Tree, of_folder, write
from robustness.faulty.shim import Call, read_log


def crashes(bench: Bench, *, names: Sequence[str] = ("each step",), at_most: int | None = None) -> Tally:
    """at_most: folders of each case, drawn at random; None: all that are different.

    The whole log, replayed, has to be the folder that the run left: no byte came another way (mapped memory, say).
    """
    tally = Tally()
    for case, goes_on in itertools.product(bench.cases(names), (False, True)):
        bench.clear(case)
        if goes_on:
            bench.interrupted(case, _middle(case), signal.SIGKILL)
        _crashed(bench, case, tally, f"{case.name}{', gone on with' * goes_on}", at_most)
    return tally


def _middle(case: Case) -> Interval:
    places = [place for place in case.intervals if place.phase in ("inner", "query")]
    return places[len(places) // 2]


def _crashed(bench: Bench, case: Case, tally: Tally, name: str, at_most: int | None) -> None:
    """`case.out` holds what the run begins with."""
    disk, whole = Disk(case.out), Disk(case.out)
    bench.start(case, shim=bench.server.watched(case.out, with_data=True)).ended()
    calls, left = read_log(bench.server.log), of_folder(case.out)
    found, same = list(states(calls, disk)), replayed(calls, whole) == left
    facts = {"calls": len(calls), "folders": len(found), "the log replayed is the run's folder": same}
    tally.details.setdefault("runs", {})[name] = facts
    if not same:
        tally.wrong.append(f"{name}: the log, replayed, is not the folder that the run left")
    chosen = found if at_most is None or len(found) <= at_most else bench.chance.sample(found, at_most)
    for at, variant, tree in chosen:
        last = calls[at - 1].op if at else "the start"
        _gone_on(bench, case, tally, f"{name}, {variant} after call {at} ({last})", variant, tree)


def _gone_on(bench: Bench, case: Case, tally: Tally, what: str, variant: str, tree: Tree) -> None:
    bench.clear(case)
    write(tree, case.out)
    tally.count("variants", variant)
    tally.take(what, bench.go_on(case))


def states(calls: Sequence[Call], disk: Disk) -> Iterator[tuple[int, str, Tree]]:
    """(number of calls before the crash, variant, tree), each tree once. disk: before the calls; it takes them."""
    seen = set[str]()
    for at in range(len(calls) + 1):
        if at:
            disk.take(calls[at - 1])
        for variant in VARIANTS:
            tree = disk.tree(variant)
            digest = _digest(tree)
            if digest not in seen:
                seen.add(digest)
                yield at, variant, tree


def replayed(calls: Sequence[Call], disk: Disk) -> Tree:
    for call in calls:
        disk.take(call)
    return disk.tree("killed")


def _digest(tree: Tree) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(tree.items()):
        digest.update(f"{name}\0{'folder' if data is None else len(data)}\0".encode() + (data or b""))
    return digest.hexdigest()
