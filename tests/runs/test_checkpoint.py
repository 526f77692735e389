"""A checkpoint is whole or absent, is never overwritten, and is looked at before it is used."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import innerloop.runs.checkpoint
from helpers import same
from innerloop.errors import RunError, UserError
from innerloop.runs.checkpoint import Checkpoints, Saved, fill, newest, require_room, size_of
from small_runs import files_of

NAMES = ("state.safetensors", "state.json", "metrics.jsonl", "manifest.json")


def state(step: int, **tensors: torch.Tensor) -> Saved:
    own = tensors or {"shared/a": torch.full((3, 2), float(step)), "codes": torch.arange(4, dtype=torch.uint8)}
    return Saved(step, own, {"steps": step, "weights": {}}, "".join(f'{{"step": {n}}}\n' for n in range(step)))


def saved(run: Path, *steps: int, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(run, keep=keep)
    for step in steps:
        checkpoints.save(state(step))
    return checkpoints


def test_what_was_saved_is_what_is_read(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    found = newest(tmp_path)
    assert found.state is not None
    assert (found.state.step, found.skipped) == (3, [])
    assert same(found.state.tensors, state(3).tensors)
    assert (found.state.facts, found.state.metrics) == (state(3).facts, state(3).metrics)
    folder = tmp_path / "checkpoints/step-00000003"
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    sealed = json.loads((folder / "manifest.json").read_text())["files"]
    assert sealed.keys() == set(NAMES) - {"manifest.json"}
    assert all(each["bytes"] == (folder / name).stat().st_size for name, each in sealed.items())
    assert (tmp_path / "checkpoints/latest").read_text() == "step-00000003\n"


def test_there_may_be_none(tmp_path: Path) -> None:
    assert newest(tmp_path) == (None, None, [])


def test_the_newest_stay(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 8, 9)
    checkpoints.save(replace(state(9), step=100_000_000))  # one digit more
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "latest",
        "step-00000009",
        "step-100000000",
    ]
    found = newest(tmp_path).state
    assert found
    assert found.step == 100_000_000


def test_a_published_one_is_never_overwritten(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 3)
    before = files_of(tmp_path)
    checkpoints.save(state(3, other=torch.ones(2)))
    assert files_of(tmp_path) == before


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damage_is_found_named_and_passed_over(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    run = tmp_path_factory.mktemp("run")
    checkpoints = saved(run, 2, 4)
    folder = run / "checkpoints/step-00000004"
    name = data.draw(st.sampled_from(NAMES))
    whole = (folder / name).read_bytes()
    harm = data.draw(st.sampled_from(["cut", "flip", "delete", "append", "another file"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    if harm == "delete":
        (folder / name).unlink()
    elif harm == "another file":
        (folder / "more").write_text("x")
    else:
        bit = bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))])
        changed = {"cut": whole[:at], "flip": whole[:at] + bit + whole[at + 1 :], "append": whole + b"\n"}[harm]
        (folder / name).write_bytes(changed)
    found = newest(run)
    assert found.state
    assert found.state.step == 2
    ((path, wrong),) = found.skipped
    assert path == folder
    assert {"another file": "more", "delete": name}.get(harm, "") in wrong
    checkpoints.set_aside(folder)
    checkpoints.save(state(4))
    again = newest(run)
    assert again.state
    assert (again.state.step, again.skipped) == (4, [])
    assert not list(run.rglob("*.damaged")), "it goes when there is a newer one"


def test_where_all_are_damaged_all_are_named(tmp_path: Path) -> None:
    saved(tmp_path, 2, 4)
    for path in tmp_path.rglob("state.json"):
        path.write_text("{}")
    found = newest(tmp_path)
    assert found.state is found.path is None
    assert [path.name for path, _ in found.skipped] == ["step-00000004", "step-00000002"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_saved(tmp_path: Path, number: float) -> None:
    checkpoints = saved(tmp_path, 2)
    before, broken = files_of(tmp_path), torch.ones(3, 2)
    broken[1, 1] = number
    with pytest.raises(RunError, match="step 4: b holds NaN or infinity"):
        checkpoints.save(state(4, a=torch.ones(1), b=broken))
    assert files_of(tmp_path) == before


def test_without_room_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 2)
    before = files_of(tmp_path)
    monkeypatch.setattr(innerloop.runs.checkpoint, "_SLACK", 2**60)  # more than there is
    with pytest.raises(OSError, match=r"No space left on device: [0-9,]+ bytes are free"):
        checkpoints.save(state(4))
    assert files_of(tmp_path) == before


def test_room_is_asked_for_in_bytes(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    require_room(tmp_path, free // 2)
    with pytest.raises(OSError, match="No space left"):
        require_room(tmp_path, 2 * free)
    assert size_of({"a": torch.zeros(3, 2), "b": torch.zeros(5, dtype=torch.uint8)}) == 29


def test_values_are_filled_in_where_they_are(tmp_path: Path) -> None:
    into = {"a": torch.zeros(2), "b": torch.zeros(3)}
    places = {name: value.data_ptr() for name, value in into.items()}
    stored = {"a": torch.ones(2), "b": torch.arange(3.0)}
    fill(into, stored, tmp_path)
    assert same(into, stored)
    assert {name: value.data_ptr() for name, value in into.items()} == places
    for other in ({"a": torch.ones(2)}, {**stored, "c": torch.ones(1)}, {**stored, "a": torch.ones(3)}):
        with pytest.raises(UserError, match=r"the checkpoint's [abc] is another"):
            fill(into, other, tmp_path)
    with pytest.raises(UserError, match="float64"):
        fill(into, {**stored, "a": torch.ones(2, dtype=torch.float64)}, tmp_path)


def test_a_process_that_is_killed_while_it_saves_leaves_the_last_one(tmp_path: Path) -> None:
    """At every place where the file system is asked for something; nothing half is ever called a checkpoint."""
    script = (
        "import os, sys; from pathlib import Path; import torch\n"
        "from innerloop.runs.checkpoint import Checkpoints, Saved\n"
        "left = int(sys.argv[2])\n"
        "def dies(name, call):\n"
        "    def wrapped(*args, **options):\n"
        "        global left\n"
        "        left -= 1\n"
        "        if left < 0: os._exit(9)\n"
        "        return call(*args, **options)\n"
        "    return wrapped\n"
        "checkpoints = Checkpoints(Path(sys.argv[1]), keep=1)\n"
        "checkpoints.save(Saved(2, {'a': torch.ones(3)}, {}, 'x'))\n"
        "for name in ('fsync', 'open', 'rename', 'replace', 'mkdir'):\n"
        "    setattr(os, name, dies(name, getattr(os, name)))\n"
        "checkpoints.save(Saved(4, {'a': torch.ones(3)}, {}, 'x'))\n"
    )
    steps: list[int] = []
    for count in (0, 3, 6, 9, 40):
        run = tmp_path / str(count)
        run.mkdir()
        child = subprocess.run([sys.executable, "-c", script, str(run), str(count)], check=False)
        assert child.returncode in (0, 9)
        found = newest(run)
        assert found.state
        assert not found.skipped
        steps.append(found.state.step)
        if child.returncode == 0:
            break
    assert steps[0] == 2
    assert steps[-1] == 4
