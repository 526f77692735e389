"""A run that was stopped goes on to what the uninterrupted run comes to, bit for bit; what changed is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innerloop.engine.trainer import Trainer
from innerloop.errors import UserError
from innerloop.files import LOCK, locked
from innerloop.learning.methods import METHODS
from innerloop.runs.meta_train import meta_train
from innerloop.runs.resuming import Earlier
from record_files import write
from small_runs import Cli, World, config_file, files_of, manifest_of, new_world, records, settings

STEPS = 4
LORA = {"method.lora.lora_dropout": 0.2, "memory.tasks_per_forward": 1}
EVERY: dict[str, dict[str, Any]] = {
    name: {"outer.steps": STEPS, "save.every": 2} | (LORA if METHODS[name].space.reads_lora else {}) for name in METHODS
}
EVERY["meta-lora"] |= {"method.keep_task_adapters": True, "method.inner.batch_size": 2}
LEAN = {"memory.lean": True, "model.dtype": "bfloat16", "method.inner.clip": None}
TRUNK = {"method.lora.layers": "last-1", "memory.trunk_cache": True, "method.lora.lora_dropout": 0.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, changes) for name, changes in EVERY.items()}
AFTER_ANY_STEP = ("fomaml-lora", "lora")
CASES["lean"] = ("fomaml", EVERY["fomaml"] | LEAN)
CASES["joint first, averaged"] = ("meta-lora", EVERY["meta-lora"] | {"outer.joint_steps": 0.5, "outer.ema": 0.9})
CASES["trunk cache"] = ("fomaml-lora", EVERY["fomaml-lora"] | TRUNK)


class Killed(BaseException):
    """Nothing is told of it: what is on disk is all there is."""


Train = Callable[..., None]


def train(world: World, method: str, output: Path, changes: dict[str, Any], **options: Any) -> None:
    model = None if "model.dtype" in changes else world.model
    meta_train(settings(world, method, output, changes), model=model, **options)


def kill_after(count: int) -> Callable[..., None]:
    taken = iter(range(1, 10**6))

    def on_step(*_: object) -> None:
        if next(taken) == count:
            raise Killed

    return on_step


def comparable(folder: Path) -> dict[str, Any]:
    """Every file, without what machines and clocks say."""
    found: dict[str, Any] = {name: data for name, data in files_of(folder).items() if name != LOCK}
    manifest = json.loads(found["manifest.json"])
    found["manifest.json"] = {key: value for key, value in manifest.items() if key not in ("host", "timing")}
    lines = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    found["metrics.jsonl"] = [{key: value for key, value in line.items() if key != "timing"} for line in lines]
    return found


def relative(folder: Path) -> dict[str, Any]:
    """The same, whatever the folder is called."""
    found = comparable(folder)
    found["manifest.json"]["config"].pop("output_dir")
    found["run.yaml"] = found["run.yaml"].replace(str(folder).encode(), b"")
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_killed_after_any_step_ends_with_the_same_bits(
    case: str, world: World, tmp_path: Path, long: bool
) -> None:
    """Of most cases after the first, which has no checkpoint yet, and the last but one, which goes on from one."""
    method, changes = CASES[case]
    train(world, method, tmp_path / "whole", changes)
    whole = relative(tmp_path / "whole")
    adapters = len(manifest_of(tmp_path / "whole")["config"]["tasks"]["held_out"]) if METHODS[method].one_task else 1
    every = range(1, STEPS * adapters + 1)
    for step in every if long or case in AFTER_ANY_STEP else (every[0], every[-2]):
        folder = tmp_path / f"killed-{step}"
        with pytest.raises(Killed):
            train(world, method, folder, changes, on_step=kill_after(step))
        train(world, method, folder, changes, resume=True)
        assert relative(folder) == whole, step


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(world: World, tmp_path: Path) -> None:
    method, changes = CASES["meta-lora"]
    changes = changes | {"outer.steps": 7}
    train(world, method, tmp_path / "whole", changes)
    for _ in range(3):
        with pytest.raises(Killed):
            train(world, method, tmp_path / "killed", changes, resume=True, on_step=kill_after(2))
    assert [each["step"] for each in manifest_of(tmp_path / "killed")["host"]["restarts"]] == [2, 4]
    train(world, method, tmp_path / "killed", changes, resume=True)
    assert relative(tmp_path / "killed") == relative(tmp_path / "whole")
    seconds = [json.loads(line)["timing"]["seconds"] for line in (tmp_path / "killed/metrics.jsonl").open()]
    assert seconds == sorted(seconds), "active time adds up"


FORGOTTEN: dict[str, tuple[str, Callable[[Trainer], None]]] = {
    "the count of steps, which every random choice is drawn by": ("trunk cache", lambda t: setattr(t, "steps", 0)),
    "the optimizer's count": ("meta-lora", lambda t: setattr(t._state, "steps", 0)),
    "a moment": ("joint", lambda t: t.tensors["second/lm_head.weight"].zero_()),
    "the noise of rounding": ("lean", lambda t: setattr(t, "seed", 1)),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_what_a_resume_forgets_shows(what: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests above: each part of the state is needed for the same bits."""
    case, forget = FORGOTTEN[what]
    method, changes = CASES[case]
    train(world, method, tmp_path / "whole", changes)
    with pytest.raises(Killed):
        train(world, method, tmp_path / "killed", changes, on_step=kill_after(3))
    go_on = Trainer.go_on_from

    def forgetful(self: Trainer, steps: int) -> None:
        go_on(self, steps)
        forget(self)

    monkeypatch.setattr(Trainer, "go_on_from", forgetful)
    train(world, method, tmp_path / "killed", changes, resume=True)
    assert relative(tmp_path / "killed") != relative(tmp_path / "whole")


def test_without_resume_an_unfinished_run_is_left_as_it_is(world: World, tmp_path: Path) -> None:
    method, changes = CASES["fomaml-lora"]
    with pytest.raises(Killed):
        train(world, method, tmp_path / "run", changes, on_step=kill_after(3))
    before = files_of(tmp_path / "run")
    with pytest.raises(UserError, match=r"not empty[\s\S]*--resume auto"):
        train(world, method, tmp_path / "run", changes)
    assert files_of(tmp_path / "run") == before


def test_what_is_damaged_is_passed_over_and_named(world: World, tmp_path: Path) -> None:
    method, changes = CASES["fomaml-lora"]
    changes = changes | {"save.every": 1}
    train(world, method, tmp_path / "whole", changes)
    with pytest.raises(Killed):
        train(world, method, tmp_path / "run", changes, on_step=kill_after(3))
    newest = tmp_path / "run/checkpoints/step-00000003/state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    said: list[Earlier] = []
    train(world, method, tmp_path / "run", changes, resume=True, on_resume=said.append)
    assert said[0].step == 2
    assert "skipped" in said[0].lines()[0]
    assert "step-00000003: state.safetensors is not as it was written" in said[0].lines()[0]
    assert relative(tmp_path / "run") == relative(tmp_path / "whole")


# what changed


@pytest.fixture
def begun(tmp_path: Path) -> tuple[World, Path]:
    """A world of its own, and a run in it that was killed after three steps."""
    (tmp_path / "world").mkdir()
    own = new_world(tmp_path / "world")
    method, changes = CASES["fomaml-lora"]
    with pytest.raises(Killed):
        train(own, method, tmp_path / "run", changes, on_step=kill_after(3))
    return own, tmp_path / "run"


def refused(world: World, run: Path, changes: dict[str, Any], *allowed: str) -> str:
    before = files_of(run)
    with pytest.raises(UserError) as error:
        go_on(world, run, changes, *allowed)
    assert files_of(run) == before
    return str(error.value)


def go_on(world: World, run: Path, changes: dict[str, Any], *allowed: str) -> None:
    method, own = CASES["fomaml-lora"]
    train(world, method, run, own | changes, resume=True, allow_change=allowed)


def test_a_changed_config_is_refused_key_by_key(begun: tuple[World, Path]) -> None:
    said = refused(*begun, {"outer.optimizer": {"name": "adamw", "lr": 0.5}, "outer.steps": 9, "seed": 8})
    for key, before, now in (("outer.optimizer.lr", "0.002", "0.5"), ("outer.steps", "4", "9"), ("seed", "7", "8")):
        part = said.partition(f"{key}: changed since the run was begun")[2]
        assert part.partition("value:")[2].split()[0] == now
        assert part.partition("expected:")[2].split()[0].rstrip(",") == before
    assert "outer.optimizer.name" not in said


def test_all_tasks_are_as_many_as_when_the_run_was_begun(world: World, tmp_path: Path) -> None:
    every = {"outer.tasks_per_step": "all", "outer.steps": 2, "save.every": 1}
    with pytest.raises(Killed):
        train(world, "fomaml-lora", tmp_path / "run", every, on_step=kill_after(1))
    assert manifest_of(tmp_path / "run")["config"]["outer"]["tasks_per_step"] == 3
    train(world, "fomaml-lora", tmp_path / "run", every, resume=True)
    train(world, "fomaml-lora", tmp_path / "three", {**every, "outer.tasks_per_step": 3})
    found, right = (relative(tmp_path / name) for name in ("run", "three"))
    assert found["metrics.jsonl"] == right["metrics.jsonl"]
    train(world, "fomaml-lora", tmp_path / "two", {**every, "outer.tasks_per_step": 2})
    assert found["metrics.jsonl"] != relative(tmp_path / "two")["metrics.jsonl"]


def test_a_change_that_is_allowed_is_recorded(begun: tuple[World, Path]) -> None:
    world, run = begun
    assert "--allow-change: no such key" in refused(world, run, {}, "outer.step").replace("\n", " ")
    assert "seed" in refused(world, run, {"outer.steps": 6, "seed": 8}, "outer.steps")
    go_on(world, run, {"outer.steps": 6}, "outer.steps")
    said = manifest_of(run)
    assert said["changes"] == [{"step": 2, "key": "outer.steps", "before": 4, "now": 6}]
    assert said["config"]["outer"]["steps"] == len((run / "metrics.jsonl").read_text().splitlines()) == 6


def test_values_of_another_shape_do_not_fit_even_where_that_is_allowed(begun: tuple[World, Path]) -> None:
    with pytest.raises(UserError, match=r"the checkpoint's .*lora_[AB] is another"):
        go_on(*begun, {"method.lora.r": 4}, "method.lora.r")


def test_changed_examples_are_refused_by_task(begun: tuple[World, Path]) -> None:
    world, run = begun
    write(world.tasks / "bob.jsonl", *records("bob")[:-1], {"prompt": "new", "completion": " n"})
    said = refused(world, run, {})
    assert "data: the examples changed since the run was begun" in said
    assert "bob" in said
    assert "ada" not in said
    go_on(world, run, {}, "data")
    assert [change["key"] for change in manifest_of(run)["changes"]] == ["data"]


def test_the_order_of_the_rows_is_no_change(begun: tuple[World, Path]) -> None:
    world, run = begun
    write(world.tasks / "bob.jsonl", *reversed(records("bob")))
    go_on(world, run, {})


def test_another_model_is_refused(begun: tuple[World, Path], tmp_path: Path) -> None:
    world, run = begun
    (tmp_path / "other").mkdir()
    other = new_world(tmp_path / "other", seed=1)
    (other.base / "model.safetensors").rename(world.base / "model.safetensors")
    method, own = CASES["fomaml-lora"]
    with pytest.raises(UserError, match="model: the base model's weights changed"):
        meta_train(settings(world, method, run, own), resume=True)


def test_another_tokenizer_is_refused(begun: tuple[World, Path]) -> None:
    world, run = begun
    path = world.base / "tokenizer.json"
    swapped = json.loads(path.read_text())
    vocab = swapped["model"]["vocab"]
    vocab["1"], vocab["2"] = vocab["2"], vocab["1"]
    path.write_text(json.dumps(swapped))
    method, own = CASES["fomaml-lora"]
    with pytest.raises(UserError, match="tokenizer: how examples become tokens changed") as error:
        meta_train(settings(world, method, run, own), resume=True)
    assert "data:" not in str(error.value)


def test_a_folder_that_was_moved_goes_on(begun: tuple[World, Path], tmp_path: Path) -> None:
    world, run = begun
    run.rename(tmp_path / "elsewhere")
    go_on(world, tmp_path / "elsewhere", {})
    assert manifest_of(tmp_path / "elsewhere")["status"] == "done"


def test_two_processes_do_not_share_a_folder(begun: tuple[World, Path]) -> None:
    world, run = begun
    with locked(run, "output_dir"):
        assert "another process is at work in this folder" in refused(world, run, {})
    go_on(world, run, {})


# the command


def test_the_command_begins_goes_on_and_says_when_it_is_done(cli: Cli, world: World, tmp_path: Path) -> None:
    path = config_file(world, tmp_path, "fomaml-lora", EVERY["fomaml-lora"])
    method, changes = CASES["fomaml-lora"]
    with pytest.raises(Killed):
        train(world, method, tmp_path / "run", changes, on_step=kill_after(3))
    said = cli("train", path, "--resume", "auto")
    assert said.code == 0
    assert said.out.startswith(f"resumed  from step 2 ({tmp_path}/run/checkpoints/step-00000002)\n")
    checkpoints = tmp_path / "run/checkpoints"  # as of a run that was killed before it could take them away
    checkpoints.mkdir()
    (checkpoints / "latest").write_text("step-00000004")
    again = cli("train", path, "--resume", "auto")
    assert not checkpoints.exists()
    assert (again.code, again.out) == (0, f"{tmp_path / 'run'} is done already\n")
    changed = cli("train", path, "--resume", "auto", "--set", "seed=8")
    assert changed.code == 2
    assert "seed: changed since the run was begun" in changed.err, "it is another run that is done"
    other = cli("train", path, "--resume", "auto", "--set", f"output_dir={tmp_path / 'new'}")
    assert (other.code, "resumed" in other.out) == (0, False)
    assert cli("train", path, "--allow-change", "seed").code == 2
    assert cli("train", path, "--resume", "last").code == 2


def test_a_signal_saves_and_ends_with_75(world: World, tmp_path: Path) -> None:
    """The other signals, and every phase: tests/robustness/test_faults.py."""
    changes = {"outer.steps": 10**6, "save.every": 10**6}  # no processor is done before the signal
    path = config_file(world, tmp_path, "fomaml-lora", changes)
    command = [sys.executable, "-m", "innerloop", "train", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run/metrics.jsonl"
    while child.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < 3):
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 75, err
    assert "error: stopped by SIGTERM at training " in err
    assert "the same command with --resume auto goes on" in err
    assert "Traceback" not in out + err
    assert manifest_of(tmp_path / "run")["status"] == "interrupted"
    (kept,) = (tmp_path / "run/checkpoints").glob("step-*")
    steps = len(metrics.read_text().splitlines())
    assert kept.name == f"step-{steps:08d}"
