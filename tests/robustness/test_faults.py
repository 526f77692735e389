"""faults.py in small: runs are struck and gone on with; and each part of it notices what it is there for."""

import errno
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from innerloop.files import seal
from robustness import faults
from robustness.faulty import crashes, damage, full, hostile_row, kills, same, shim
from robustness.faulty.bench import Bench, Outcome, Tally
from robustness.faulty.phases import PHASES, timeline
from robustness.faulty.server import Ended

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="strikes below libc: Linux"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("faults") / "work") as made:
        yield made


def sound(tally: Tally, *, at_least: int) -> None:
    """Every run that was struck went on to the right end."""
    assert not tally.wrong
    assert tally.tried >= at_least
    assert tally.lost == tally.accepted == 0


# whole runs


def test_killed_runs_end_as_if_nothing_had_been(bench: Bench, long: bool) -> None:
    trials, least = (45, 5) if long else (9, 1)
    tally = kills.kills(bench, trials=trials, least=least, methods=("fomaml", "meta-lora", "lora"))
    sound(tally, at_least=trials)
    assert tally.equal == tally.resumed == tally.tried
    assert min(tally.details["phases"].values()) >= least
    assert set(tally.details["phases"]) == set(PHASES)


def test_signals_in_each_phase(bench: Bench, long: bool) -> None:
    numbers = kills.SIGNALS if long else kills.SIGNALS[:1]
    tally = kills.signals(bench, each=1, methods=("fomaml", "lora"), numbers=numbers, twice=long)
    sound(tally, at_least=len(numbers) * len(PHASES) * (1 + long))
    assert set(tally.details["phases"]) == set(PHASES)
    assert tally.equal == tally.tried


def test_a_second_signal(bench: Bench) -> None:
    phases = ["inner", "saving", "exporting"]
    tally = kills.signals(bench, each=1, methods=("meta-lora",), numbers=kills.SIGNALS[1:2], phases=phases)
    sound(tally, at_least=2 * len(phases))


def test_refused_writes(bench: Bench, long: bool) -> None:
    """Every kind of refusal, at calls all over a run."""
    tally = full.writes(bench, every=5 if long else 23)
    sound(tally, at_least=6)
    assert tally.equal == tally.tried
    assert tally.details["files without a call"] == []


def test_a_full_file_system(bench: Bench, long: bool) -> None:
    tally = full.full(bench, sizes=10 if long else 3, later=10 if long else 2)
    if "skipped" in tally.details:
        pytest.skip(tally.details["skipped"])
    sound(tally, at_least=5)
    assert tally.equal == tally.tried
    assert len(tally.details["exit codes"]) > 1


def test_lost_power(bench: Bench, long: bool) -> None:
    tally = crashes.crashes(bench, at_most=20 if long else 4)
    sound(tally, at_least=8)
    assert tally.equal == tally.tried


def test_damaged_checkpoints(bench: Bench, long: bool) -> None:
    tally = damage.damage(bench, flips=60, resumed=24 if long else 4)
    sound(tally, at_least=500)


# the harness notices what is wrong


def test_a_run_stands_at_its_gate_until_it_is_released(bench: Bench) -> None:
    case = bench.case("fomaml-lora")
    place = [place for place in case.intervals if place.phase == "inner"][1]
    bench.clear(case)
    trial = bench.start(case, gate=place)
    assert trial.reach(place)
    told = list(trial.marks)
    assert told[-1][0] == "inner"
    assert trial.pause(max(0.1, 2 * place.seconds))
    assert trial.marks == told
    trial.release()
    assert trial.ended().code == 0
    assert same.differences(case.reference, case.folder) == []


def test_a_run_that_could_not_be_begun_says_why(bench: Bench) -> None:
    ended = bench.server.start(["--version"], shim={"fault": [], "unheard_of": 1}).ended()
    assert ended.code == 70
    assert "'unheard_of'" in ended.err


def test_a_run_that_answers_no_signal_is_noticed(bench: Bench) -> None:
    tally = kills.signals(bench, each=1, methods=("lora",), numbers=[signal.SIGURG], phases=["outer"], twice=False)
    assert tally.details["exit codes"] == {"0": tally.tried}
    assert len(tally.wrong) == tally.tried > 0


def test_a_run_that_goes_on_from_another_step_is_noticed(bench: Bench) -> None:
    case = bench.case("fomaml-lora")
    last = max((place for place in case.intervals if place.phase == "inner"), key=lambda place: place.begins)
    shutil.copytree(damage.stopped(bench, case, last), case.folder, dirs_exist_ok=True)
    checkpoint = case.folder / "checkpoints" / "step-00000004"
    facts = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps(facts | {"steps": facts["steps"] - 1}))
    seal(checkpoint)
    outcome = bench.go_on(case)
    assert outcome.redone == 1
    assert outcome.lost
    assert outcome.differences
    tally = Tally()
    tally.take("another step", outcome)
    assert (tally.tried, tally.equal, tally.accepted) == (1, 0, 1)
    assert len(tally.wrong) == 1


def test_a_fault_beyond_the_last_call_changes_nothing(bench: Bench) -> None:
    case = bench.case("each step")
    bench.clear(case)
    never = shim.Fault(10**6, errno.EIO, sticky=True)
    ended = bench.start(case, shim=bench.server.watched(case.out, never)).ended()
    assert ended.code == 0
    assert same.differences(case.reference, case.folder) == []
    assert not any(call.injected for call in shim.read_log(bench.server.log))


def test_differences(tmp_path: Path) -> None:
    def folder(name: str, **changed: Any) -> Path:
        files: dict[str, Any] = {
            "a/w.safetensors": b"\0\1",
            "manifest.json": {"status": "done", "timing": {"seconds": 1}, "host": {}},
            "metrics.jsonl": [{"loss": 1.0, "timing": 1}, {"loss": 2.0, "timing": 2}],
        }
        for path, value in (files | changed).items():
            place = tmp_path / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            lines = value if isinstance(value, list) else [value]
            place.write_bytes(value if isinstance(value, bytes) else "\n".join(map(json.dumps, lines)).encode())
        return tmp_path / name

    right = folder("right")
    timed = {"manifest.json": {"status": "done", "timing": {"seconds": 9}, "host": {"peak": 1}}}
    assert same.differences(right, folder("timed", **timed, **{".lock": b""})) == []
    bit = same.differences(right, folder("bit", **{"a/w.safetensors": b"\0\0"}))
    assert bit == ["a/w.safetensors is different"]
    status = same.differences(right, folder("status", **{"manifest.json": {"status": "failed"}}))
    assert status == ["manifest.json is different: [0].status is 'failed', not 'done'"]
    longer = folder("longer", **{"metrics.jsonl": [{"loss": 1.0}, {"loss": 2.0}, {"loss": 2.0}]})
    assert same.differences(right, longer) == ["metrics.jsonl is different: another number of lines"]
    left = folder("left", **{".manifest.json.12-0123abcd": b""})
    assert same.differences(right, left) == [".manifest.json.12-0123abcd is too much"]
    (left / "metrics.jsonl").unlink()
    assert "metrics.jsonl is missing" in same.differences(right, left)


def test_saved_steps(tmp_path: Path) -> None:
    assert same.saved_steps(tmp_path) == 0
    for name in ("step-00000002", "step-00000004", "step-00000009.damaged", ".step-00000006.1-00000000"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert same.saved_steps(tmp_path) == 4


def test_a_tally_tells_a_wrong_end_from_none() -> None:
    tally, good = Tally(), Ended(0, 1.0, "", "", 3)
    tally.take("well", Outcome(good, [], 0))
    tally.take("wrong bits", Outcome(good, ["x is different"], 0))
    tally.take("a file gone", Outcome(good, ["x is missing"], 0))
    tally.take("failed", Outcome(good._replace(code=1, err="error: no"), [], 0))
    tally.take("traceback", Outcome(good._replace(err="Traceback"), [], 0))
    tally.take("once more", Outcome(good, [], 2))
    facts = tally.facts()
    assert [facts[key] for key in ("tried", "resumed", "equal", "lost", "accepted", "wrong")] == [6, 4, 2, 2, 2, 5]
    assert "failed: exit 1; error: no" in facts["examples"]


def test_timeline() -> None:
    found = timeline([("starting", 0.0), ("inner", 1.0), ("starting", 1.5), ("inner", 2.0)], 4.0)
    assert [(place.phase, place.occurrence, place.seconds) for place in found] == [
        ("starting", 0, 1.0),
        ("inner", 0, 0.5),
        ("starting", 1, 0.5),
        ("inner", 1, 2.0),
    ]


# the table


def test_the_table() -> None:
    row = {"tried": 1320, "resumed": 1319, "equal": 1318, "lost": 2, "accepted": 1, "wrong": 3}
    phases = {"phases": {"inner": 21, "outer": 22}}
    rows = {"kills": row | phases, "full": row | {"skipped": "no permission to mount"}}
    table = faults.faults_table({"rows": rows})
    assert table[2] == "| SIGKILL, uniform over phases | 1,320 | 1,319 | 1,318 | 2 | 1 | 3 |"
    assert table[3].startswith("| a full tmpfs | skipped: no permission to mount |")
    assert "| inner | 21 |" in table


def test_hostile_inputs_are_summed() -> None:
    cases = {"count": 3, "refused": 1, "skipped": 1, "failures": [{"case": "a loop of links", "said": "hung"}]}
    drawn = {"count": 10, "read": 4, "refused": 3, "failures": 3, "failed": [{"problem": "another result"}]}
    sound = drawn | {"read": 7, "failures": 0, "failed": []}
    facts = hostile_row.summed({"cases": cases, "reader": drawn, "config": sound}).facts()
    assert [facts[key] for key in ("tried", "resumed", "accepted", "wrong")] == [22, None, 4, 2]
    assert "another result" in facts["examples"][1]
    line = faults.faults_table({"rows": {"hostile": facts}})[2]
    assert line == "| hostile inputs | 22 |  |  |  | 4 | 2 |"


def test_every_row_has_a_name() -> None:
    assert faults.ROWS.keys() == faults.WORDS.keys()
    assert all(f"\n{name:10} " in (faults.__doc__ or "") for name in faults.ROWS)
