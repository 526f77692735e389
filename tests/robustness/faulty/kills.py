"""Rows: runs that are ended by SIGKILL, wherever they are, and by signals that they may answer.

kills     from one process that forks, uniform over phases
fresh     the same on `python -m innerloop`, with its imports
signals   SIGTERM, SIGINT and SIGUSR1 in every phase, alone and with a second one
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from robustness.faulty.bench import RESUMABLE, Bench, Case, Tally
from robustness.faulty.cases import METHODS
from robustness.faulty.phases import PHASES
from robustness.faulty.server import Ended, Trial

AT_MOST = 10.0  # seconds from a signal to the end
AFTER = 0.5  # of the kills come after a phase's begin, wherever the run then is
AGAIN = 0.25  # of the runs that go on are killed again
LATE = ("exporting", "finishing")  # a run that is done before it can stop may say so
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def kills(bench: Bench, *, trials: int = 320, least: int = 20, methods: Sequence[str] = METHODS) -> Tally:
    """least: kills in each phase."""
    tally, cases = Tally(), itertools.cycle(bench.cases(methods))
    struck = dict.fromkeys(PHASES, 0)
    again = 0
    for _ in range(20 * trials):  # some runs end before they are struck, and are not counted
        if tally.tried >= trials and min(struck.values()) >= least:
            break
        case = next(cases)
        phase = min(case.phases(), key=lambda name: (struck[name], bench.chance.random()))
        bench.clear(case)
        trial, ended = _kill(bench, case, phase)
        if ended.code != -signal.SIGKILL:
            continue
        struck[trial.phase] += 1
        tally.count("methods", case.name)
        if bench.chance.random() < AGAIN:
            again += _kill(bench, case, bench.chance.choice(sorted(case.phases())))[1].code == -signal.SIGKILL
        tally.take(f"{case.name}, killed while {trial.phase}", bench.go_on(case))
    tally.details |= {"phases": struck, "killed again": again}
    return tally


def _kill(bench: Bench, case: Case, phase: str) -> tuple[Trial, Ended]:
    """A run on what is there: half of the kills come at the phase's begin, half some time after it."""
    place = case.place(phase, bench.chance)
    trial = bench.start(case, gate=place)
    if trial.reach(place):
        if bench.chance.random() < AFTER:
            trial.release()
            trial.pause(bench.chance.uniform(0, place.seconds))
        if not trial.over:
            trial.signal(signal.SIGKILL)
    return trial, trial.ended()


def fresh(bench: Bench, *, trials: int = 20, name: str = "fomaml-lora") -> Tally:
    """Half of the kills before the first line of output, where it is imported and loaded, half after it."""
    tally, case = Tally(), bench.case(name)
    bench.clear(case)
    first, whole = _fresh_run(bench, case, None)
    phases = {"before its first line": 0, "after it": 0}
    tally.details = {"phases": phases, "seconds to the first line": round(first, 2), "seconds": round(whole, 2)}
    for number in range(trials):
        part = (0.0, first) if number % 2 else (first, whole)
        bench.clear(case)
        line, ended = _fresh_run(bench, case, bench.chance.uniform(*part))
        if ended < 0:  # it was over
            continue
        phases["after it" if line else "before its first line"] += 1
        tally.take(f"{name}, killed after {ended:.2f} s", bench.go_on(case))
    return tally


def _fresh_run(bench: Bench, case: Case, kill_after: float | None) -> tuple[float, float]:
    """Seconds to the first line of output (0 = none came) and to the end; negative if it was to be killed and ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "INNERLOOP_CACHE": str(bench.folder / "cache")}
    started = time.monotonic()
    command = [sys.executable, "-m", "innerloop", *case.argv()]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
        line = process.stdout.readline()
        first = time.monotonic() - started if line else 0.0
        process.stdout.read()
    seconds = time.monotonic() - started
    if kill_after is None:
        if process.returncode:
            raise RuntimeError(f"python -m innerloop ended with {process.returncode}")
        return first, seconds
    return first, seconds if process.returncode == -signal.SIGKILL else -seconds


def signals(
    bench: Bench,
    *,
    each: int = 2,
    methods: Sequence[str] = METHODS,
    numbers: Sequence[signal.Signals] = SIGNALS,
    phases: Sequence[str] = PHASES,
    twice: bool = True,
) -> Tally:
    """each: strikes of every signal in every phase; twice: as many with a second one at a random moment after it."""
    tally, cases = Tally(), itertools.cycle(bench.cases(methods))
    seconds: dict[str, list[float]] = {}
    ways = (False, True) if twice else (False,)
    for number, phase, again, _ in itertools.product(numbers, phases, ways, range(each)):
        for _ in range(10):
            case = next(cases)
            if phase in case.phases() and (found := _signalled(bench, case, number, phase, twice=again)):
                break
        else:
            tally.wrong.append(f"{number.name} while {phase}: no run could be struck")
            continue
        name, (ended, delay) = f"{number.name}{' twice' * again}", found
        seconds.setdefault(name, []).append(delay)
        tally.count("phases", phase)
        tally.count("exit codes", ended.code)
        what = f"{case.name}, {name} while {phase}"
        right = (RESUMABLE, 0) if phase in LATE else (RESUMABLE,)
        early = phase == PHASES[0] and ended.code == -number and not ended.err  # before the command listened
        if not early and (ended.code not in right or ended.traceback or ended.hung or delay > AT_MOST):
            tally.wrong.append(f"{what}: exit {ended.code} after {delay:.1f} s: {ended.err[-300:]}")
        tally.take(what, bench.go_on(case))
    tally.details["seconds to the end"] = {
        name: {"median": round(sorted(all_)[len(all_) // 2], 3), "most": round(max(all_), 3)}
        for name, all_ in seconds.items()
    }
    return tally


def _signalled(
    bench: Bench, case: Case, number: signal.Signals, phase: str, *, twice: bool
) -> tuple[Ended, float] | None:
    """The end, and the seconds between the last signal and it; None: it was over before."""
    bench.clear(case)
    place = case.place(phase, bench.chance)
    trial = bench.start(case, gate=place)
    if not trial.reach(place):
        trial.ended()
        return None
    trial.signal(number)  # it stands in this phase, on whatever machine
    trial.release()
    sent = time.monotonic()
    if twice and trial.pause(bench.chance.uniform(0, 0.05)):
        sent = time.monotonic()
        trial.signal(number)
    ended = trial.ended()
    return ended, time.monotonic() - sent
