"""Rows: a disk that refuses.

writes   every call that changes a file fails, one run for each: ENOSPC and EIO, once and from there on
renames  every rename fails, those that a library makes by a system call of its own too: strace
full     a real file system without room: tmpfs of growing size
"""

import errno
import itertools
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from robustness.faulty import same
from robustness.faulty.bench import FAILED, RESUMABLE, Bench, Case, Tally
from robustness.faulty.server import Ended
from robustness.faulty.shim import Call, Fault, by_file, plain, read_log

UNUSABLE = 2
PHASES_OF_STEPS = ("inner", "query", "outer", "saving")
RENAMES = "rename,renameat,renameat2"
ERRORS = (errno.ENOSPC, errno.EIO)


def writes(bench: Bench, *, every: int = 1, name: str = "each step") -> Tally:
    """Each call fails in each of four ways; with `every` above 1, only that many-th, in one way after the other.

    A run whose fault was harmless may end well, with an equal result.
    """
    tally, case = Tally(), bench.case(name)
    bench.clear(case)
    watch = bench.server.watched(case.out)
    bench.start(case, shim=watch).ended()
    calls = read_log(bench.server.log)
    met = by_file(calls, case.out)
    files = (path for path in case.reference.rglob("*") if path.is_file())
    unmet = [path.name for path in files if f"run/{path.relative_to(case.reference).as_posix()}" not in met]
    tally.details |= {"calls of a run": len(calls), "calls of each file": met, "files without a call": unmet}
    if found := same.differences(case.reference, case.folder):
        tally.wrong.append(f"counting its calls changed the run: {found}")
    kinds, ways = list(itertools.product(ERRORS, (False, True))), itertools.count()
    for at in range(every, len(calls) + 1, every):
        for error, sticky in kinds if every == 1 else kinds[next(ways) % len(kinds) :][:1]:
            _refused(bench, case, tally, Fault(at, error, sticky))
    return tally


def _refused(bench: Bench, case: Case, tally: Tally, fault: Fault) -> None:
    bench.clear(case)
    ended = bench.start(case, shim=bench.server.watched(case.out, fault)).ended()
    struck = next((call for call in read_log(bench.server.log) if call.injected), None)
    what = f"{case.name}, {fault}" + (f" ({_said(struck, case)})" if struck else "")
    _go_on(bench, case, tally, what, ended)
    if struck is None:
        tally.wrong.append(f"{what}: no call failed")


def _go_on(bench: Bench, case: Case, tally: Tally, what: str, ended: Ended) -> None:
    """Exit 0 was an answer only where nothing is left to be done and the result is equal; 2 (output_dir can't be used)
    only where no run was begun in it."""
    begun = (case.folder / "manifest.json").exists()
    outcome = bench.go_on(case)
    tally.count("exit codes", ended.code)
    tally.take(what, outcome)
    harmless = outcome.ended.steps == 0 and not outcome.differences
    right = ended.code in (RESUMABLE, FAILED) or (ended.code == UNUSABLE and not begun)
    said = right and "error: " in ended.err
    if not (said or (ended.code == 0 and harmless)) or ended.traceback or ended.hung:
        tally.wrong.append(f"{what}: exit {ended.code}{' (hung)' * ended.hung}: {ended.err.strip()[-300:]}")


def _said(call: Call, case: Case) -> str:
    return f"{call.op} of {plain(os.path.relpath(call.path, case.out))}"


def renames(bench: Bench, *, every: int = 1, name: str = "each step", errors: Sequence[int] = ERRORS) -> Tally:
    tally, case = Tally(), bench.case(name)
    if shutil.which("strace") is None:
        tally.details["skipped"] = "no strace"
        return tally
    _, lines = _traced(bench, case, "")
    counts = Counter(line.split("(")[0] for line in lines)  # strace counts each kind of call by itself
    tally.details["renames of a run"] = dict(counts)
    places = [(call, at) for call, count in counts.items() for at in range(1, count + 1, every)]
    for (call, at), error in itertools.product(places, errors):
        ended, lines = _traced(bench, case, f"inject={call}:error={errno.errorcode[error]}:when={at}")
        struck = next((line for line in lines if "(INJECTED)" in line), None)
        what = f"{case.name}, {struck or f'{call} {at}: none failed'}"
        _go_on(bench, case, tally, what, ended)
        if struck is None:
            tally.wrong.append(what)
    return tally


def _traced(bench: Bench, case: Case, fault: str) -> tuple[Ended, list[str]]:
    """The run, and its renames below the case's folder: one thread makes all of them, or the count would not hold."""
    bench.clear(case)
    trial, log = bench.start(case, traced=True), bench.folder / "renames"
    inject = ["-e", fault] if fault else []
    shown = ["-qq", "-s", "4096", "-e", f"trace={RENAMES}", "-o", str(log)]
    with subprocess.Popen(["strace", *shown, *inject, "-p", str(trial.pid)]) as tracer:
        ended = trial.ended()
        tracer.wait()
    return ended, [line.strip() for line in log.read_text().splitlines() if "rename" in line]


def full(bench: Bench, *, sizes: int = 20, later: int = 40, name: str = "each step, all") -> Tally:
    """Sizes from what holds nothing to what holds all; and `later` runs whose disk somebody else fills on the way. Then
    it grows, and the run goes on."""
    tally, case = Tally(), bench.case(name)
    peak = _peak(bench, case)
    tally.details["KiB that a run needs at most"] = peak // 1024
    if not _mounted(case.out, peak):
        tally.details["skipped"] = "no permission to mount"
        return tally
    try:
        for number in range(1, sizes + 1):
            _filled(bench, case, tally, size=peak * number // sizes, enough=4 * peak)
        for _ in range(later):
            _filled(bench, case, tally, size=None, enough=4 * peak)
    finally:
        subprocess.run(["umount", str(case.out)], check=False, capture_output=True)
    return tally


def _filled(bench: Bench, case: Case, tally: Tally, *, size: int | None, enough: int) -> None:
    """size: of the disk; None: it has room until the run is somewhere in a phase, and then for not a byte more."""
    for place in case.out.iterdir():
        shutil.rmtree(place)
    _resize(case.out, enough if size is None else size)
    place = None if size else case.place(bench.chance.choice(PHASES_OF_STEPS), bench.chance)
    trial = bench.start(case, gate=place)
    if place and trial.reach(place):
        size = _full_now(case.out)
        trial.release()
    ended = trial.ended()
    if ended.code:
        tally.count("steps begun before it was full", ended.steps)
    _resize(case.out, enough)
    _go_on(bench, case, tally, f"{case.name} on {(size or enough) // 1024} KiB", ended)


def _peak(bench: Bench, case: Case) -> int:
    """More than a run needs at any time: all that it writes, nothing removed, and the room it asks for in advance."""
    bench.clear(case)
    bench.start(case, shim=bench.server.watched(case.out)).ended()
    return _written(read_log(bench.server.log)) + 2**20


def _written(calls: Iterable[Call]) -> int:
    pages = [-(-call.result // 4096) * 4096 for call in calls if call.op == "write" and call.result > 0]
    return sum(pages)


def _mounted(folder: Path, size: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _resize(folder: Path, size: int) -> None:
    if not _resized(folder, size):
        raise RuntimeError(f"{folder} could not be given {size} bytes")


def _resized(folder: Path, size: int) -> bool:
    command = ["mount", "-o", f"remount,size={max(size, 4096)}", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _full_now(folder: Path) -> int:
    """The size that the file system has from here on: what is in it."""
    size = shutil.disk_usage(folder).used
    _resize(folder, size)
    return size
