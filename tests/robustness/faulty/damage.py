"""Row: checkpoints that are not as they were written.

damage     every file truncated and with bits flipped; read, and for a sample gone on with. `latest` must not matter
damages    what is done to a file: (in words, its bytes then)
tried      every damage of a run's newest checkpoint, read by `newest`; called in the process that has torch
Read       what came of that
"""

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from robustness.faulty import same
from robustness.faulty.bench import Bench, Case, Tally
from robustness.faulty.phases import Interval

LENGTHS = (0.0, 0.1, 0.5, 0.9)  # of a file, beside one byte less and one byte more
Newest = Callable[[Path], Any]


def damage(bench: Bench, *, flips: int = 400, resumed: int = 24, name: str = "fomaml-lora") -> Tally:
    """flips: bytes of state.safetensors, all in its header among them or drawn; resumed: whole runs."""
    tally, case = Tally(), bench.case(name)
    last = max((place for place in case.intervals if place.phase == "outer"), key=lambda place: place.begins)
    folder = stopped(bench, case, last)
    checkpoints = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    if len(checkpoints) < 2:
        raise RuntimeError(f"damage needs two checkpoints, {folder} has {checkpoints}")
    found = bench.server.call("robustness.faulty.damage:tried", str(folder), bench.chance.randrange(2**32), flips)
    tally.details |= {"read": found["files"], "checkpoints": checkpoints}
    tally.accepted += len(found["accepted"])
    tally.wrong += [f"accepted: {what}" for what in found["accepted"]]
    tally.wrong += [f"not named: {what}" for what in found["unnamed"]] + found["raised"]
    for path in sorted((folder / "checkpoints" / checkpoints[-1]).iterdir()):
        cases = list(damages(path.read_bytes(), bench.chance, flips))
        for words, data in bench.chance.sample(cases, min(len(cases), max(1, resumed // 4))):
            _gone_on(bench, case, tally, folder, (path.relative_to(folder), words, data))
    tally.details["read and refused"] = sum(found["files"].values())
    tally.tried += tally.details["read and refused"]
    return tally


def stopped(bench: Bench, case: Case, place: Interval) -> Path:
    """A copy of the folder of a run that was killed there."""
    bench.interrupted(case, place, signal.SIGKILL)
    kept = case.home / "stopped"
    shutil.rmtree(kept, ignore_errors=True)
    return Path(shutil.copytree(case.folder, kept))


def _gone_on(bench: Bench, case: Case, tally: Tally, folder: Path, harm: tuple[Path, str, bytes]) -> None:
    path, words, data = harm
    bench.clear(case)
    shutil.copytree(folder, case.folder)
    (case.folder / path).write_bytes(data)
    older = min(int(step.name.removeprefix("step-")) for step in (case.folder / "checkpoints").glob("step-*"))
    ended = bench.start(case).ended()
    tally.count("gone on with", path.name)
    tally.take(f"{path}, {words}", bench.judged(case, ended, older))
    if path.parent.name not in ended.out + ended.err:
        tally.wrong.append(f"{path}, {words}: the run did not say that it left this checkpoint out")


def damages(data: bytes, chance: random.Random, flips: int) -> Iterator[tuple[str, bytes]]:
    """Every byte of a file that is shorter than ten times `flips`, of others that many."""
    lengths = {int(len(data) * share) for share in LENGTHS} | {len(data) - 1}
    for length in sorted(length for length in lengths if 0 <= length < len(data)):
        yield f"cut to {length} of {len(data)} bytes", data[:length]
    yield "one byte longer", data + b"\0"
    places = range(len(data)) if len(data) <= 10 * flips else sorted(chance.sample(range(len(data)), flips))
    for place in places:
        changed, bit = bytearray(data), chance.randrange(8)
        changed[place] ^= 1 << bit
        yield f"bit {bit} of byte {place} flipped", bytes(changed)


def tried(folder: str, seed: int, flips: int, newest: Newest | None = None) -> dict[str, Any]:
    """files: damages of each; accepted, unnamed (left out without a word), raised: in words."""
    if newest is None:
        from innerloop.runs.checkpoint import newest
    run, chance = Path(folder), random.Random(seed)
    target = max((run / "checkpoints").glob("step-*"))
    found: dict[str, Any] = {"files": {}, "accepted": [], "unnamed": [], "raised": []}
    for path in sorted(target.iterdir()):
        data, tries = path.read_bytes(), 0
        for words, harmed in damages(data, chance, flips):
            path.write_bytes(harmed)
            tries += 1
            _read(newest, run, target, f"{path.name}, {words}", found)
        path.unlink()
        _read(newest, run, target, f"{path.name}, gone", found)
        path.write_bytes(data)
        found["files"][path.name] = tries + 1
    latest = run / "checkpoints" / "latest"  # for people: the checkpoint is found without it
    named = latest.read_bytes() if latest.exists() else b""
    for words, harmed in [*damages(named, chance, flips), ("as it was", named)] if named else [("not there", b"")]:
        latest.write_bytes(harmed)
        if newest(run).path != target:
            found["raised"].append(f"the checkpoint as it was written is refused: latest {words}")
    if same.saved_steps(run) != int(target.name.removeprefix("step-")):
        found["raised"].append("reading changed the folder")
    return found


def _read(newest: Newest, run: Path, target: Path, what: str, found: dict[str, Any]) -> None:
    try:
        read = newest(run)
    except Exception as error:
        found["raised"].append(f"{what}: {type(error).__name__}: {error}")
        return
    if read.path == target:
        found["accepted"].append(what)
    elif target not in [path for path, _ in read.skipped]:
        found["unnamed"].append(what)
