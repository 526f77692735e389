"""What every row of the fault table works with: cases with their uninterrupted runs, and what became of a struck one.

Bench     the server and the cases; runs, goes on with and judges them
Case      a config, its output folder, and what an uninterrupted run of it wrote
Outcome   of a run that was gone on with
Tally     a row of the table
"""

import random
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from robustness.faulty import same
from robustness.faulty.phases import Interval
from robustness.faulty.server import Ended, Server, Trial

RESUMABLE, FAILED = 75, 1
LONG = 0.5


@dataclass
class Case:
    """home: holds run.yaml, out/run (what runs write) and reference (what an uninterrupted one wrote)."""

    name: str
    home: Path
    steps: int = 0
    seconds: float = 0.0
    intervals: list[Interval] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.home / "out"

    @property
    def folder(self) -> Path:
        return self.out / "run"

    @property
    def reference(self) -> Path:
        return self.home / "reference"

    def argv(self, *, resume: bool = True) -> list[str]:
        return ["train", str(self.home / "run.yaml"), *(["--resume", "auto"] if resume else [])]

    def phases(self) -> set[str]:
        return {interval.phase for interval in self.intervals}

    def place(self, phase: str, chance: random.Random) -> Interval:
        """A stretch of this phase: in half of the draws the longer the likelier, else each as likely.

        None is the very first: it is told of before the command line is called. `kills.fresh` strikes there.
        """
        places = [interval for interval in self.intervals[1:] if interval.phase == phase]
        weights = [place.seconds for place in places] if chance.random() < LONG else None
        return chance.choices(places, weights)[0]


class Outcome(NamedTuple):
    """redone: steps taken again although a checkpoint showed them as done."""

    ended: Ended
    differences: list[str]
    redone: int

    @property
    def resumed(self) -> bool:
        return self.ended.code == 0 and not self.ended.traceback

    @property
    def lost(self) -> bool:
        return self.redone > 0 or any(said.endswith("is missing") for said in self.differences)

    def __str__(self) -> str:
        said = [f"exit {self.ended.code}", *self.differences[:3]]
        if self.redone:
            said.append(f"{self.redone} saved steps were taken again")
        return "; ".join([*said, *([self.ended.err.strip()[-300:]] if self.ended.code else [])])


@dataclass
class Tally:
    """tried: faults; resumed: runs that then went on to their end; equal: to the uninterrupted run; lost: saved steps
    that were taken again, or files missing; accepted: damaged files that were read as sound, or ends that were called
    good and were not; wrong: strikes that a run answered otherwise than it should, and all of the above in words."""

    tried: int = 0
    resumed: int = 0
    equal: int = 0
    lost: int = 0
    accepted: int = 0
    wrong: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def take(self, what: str, outcome: Outcome) -> None:
        self.tried += 1
        self.resumed += outcome.resumed
        self.equal += outcome.resumed and not outcome.differences
        self.lost += outcome.lost
        self.accepted += outcome.resumed and bool(outcome.differences)
        if not outcome.resumed or outcome.differences or outcome.lost:
            self.wrong.append(f"{what}: {outcome}")

    def count(self, detail: str, key: object) -> None:
        counter = self.details.setdefault(detail, Counter[str]())
        counter[str(key)] += 1

    def facts(self) -> dict[str, Any]:
        return {
            "tried": self.tried,
            "resumed": self.resumed,
            "equal": self.equal,
            "lost": self.lost,
            "accepted": self.accepted,
            "wrong": len(self.wrong),
            "examples": self.wrong[:40],
            **{name: dict(sorted(found.items())) if isinstance(found, Counter) else found
               for name, found in self.details.items()},
        }  # fmt: skip


class Bench:
    """A context. folder: where all of it happens; what was there is removed."""

    def __init__(self, folder: Path, *, seed: int = 7) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.chance = folder, random.Random(seed)
        self.server = Server(folder / "server", {"INNERLOOP_CACHE": str(folder / "cache")})
        self._cases: dict[str, Case] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    def case(self, name: str, *, home: Path | None = None) -> Case:
        """With its uninterrupted run, twice: the second time all late imports are there, and it has to be equal."""
        if name not in self._cases:
            self.server.call("robustness.faulty.cases:write", str(self.folder), [name])
            case = Case(name, self.folder / name.replace(", ", "-").replace(" ", "-"))
            self._refer(case)
            self._cases[name] = case
        return self._cases[name]

    def cases(self, names: Iterable[str]) -> list[Case]:
        return [self.case(name) for name in names]

    def clear(self, case: Case) -> None:
        shutil.rmtree(case.out, ignore_errors=True)
        case.out.mkdir()

    def start(self, case: Case, **options: Any) -> Trial:
        """options: of a request to the child."""
        return self.server.start(case.argv(), **options)

    def go_on(self, case: Case) -> Outcome:
        """`--resume auto` on what is there, judged."""
        saved = same.saved_steps(case.folder)
        return self.judged(case, self.start(case).ended(), saved)

    def judged(self, case: Case, ended: Ended, saved: int) -> Outcome:
        found = same.differences(case.reference, case.folder) if case.folder.exists() else ["the folder is missing"]
        return Outcome(ended, found if ended.code == 0 else [], max(0, ended.steps - (case.steps - saved)))

    def interrupted(self, case: Case, place: Interval, number: int) -> Ended:
        """A run that got this signal at the begin of a place."""
        self.clear(case)
        trial = self.start(case, gate=place)
        if not trial.reach(place):
            raise RuntimeError(f"{case.name} ended before it came to {place}: {trial.ended()}")
        trial.signal(number)
        trial.release()
        return trial.ended()

    def _refer(self, case: Case) -> None:
        options = {"modules": str(case.home / "modules")}
        for _ in range(2):
            self.clear(case)
            trial = self.server.start(case.argv(resume=False), **options)
            ended = trial.ended()
            if ended.code:
                raise RuntimeError(f"the uninterrupted run of {case.name} ended with {ended.code}:\n{ended.err}")
            case.steps, case.seconds, case.intervals = ended.steps, ended.seconds, trial.intervals()
            self.server.import_all_of(case.home / "modules")
            if not case.reference.exists():
                shutil.copytree(case.folder, case.reference)
        if found := same.differences(case.reference, case.folder):
            raise RuntimeError(f"two uninterrupted runs of {case.name} differ: {found}")
