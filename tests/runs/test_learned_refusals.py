"""Runs that cannot start, that go wrong, and that cannot be loaded: what is said and what is left behind."""

import os
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import same
from innerloop.artifacts.finished import DamagedError
from innerloop.config.loading import load_config
from innerloop.errors import RunError, UserError
from innerloop.files import LOCK
from innerloop.loading.models import LoadedModel
from innerloop.runs.meta_train import meta_train
from innerloop.runs.reloading import load_run
from small_runs import (
    Runs,
    World,
    config_file,
    files_of,
    manifest_of,
    new_world,
    settings,
    small_run,
)


def test_a_run_of_one_adapter_a_task_shares_nothing_to_load(runs: Runs) -> None:
    with pytest.raises(UserError, match="lora trained one adapter for each task") as caught:
        load_run(runs("lora").folder)
    hint = caught.value.faults[0].expected
    assert str(runs("lora").folder / "adapters" / "cy") in hint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "no manifest.json here"),
        ("", "not a manifest"),
        ("[]", "not a manifest"),
        ("{}", "not a manifest"),
        ('{"status": "running", "config": {}, "model": {}}', "did not finish"),
        ('{"status": "failed", "config": {}, "model": {}}', "did not finish"),
        ('{"status": "done", "config": {}, "model": {}}', "model.name: missing"),
    ],
)
def test_what_is_no_finished_run_is_refused(tmp_path: Path, text: str | None, problem: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=problem):
        load_run(tmp_path)


def test_other_base_weights_are_refused(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    learned = small_run(world, "joint-lora", tmp_path / "run")
    assert same(load_run(learned.folder).space.shared, learned.space.shared)
    weights = world.base / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] += 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="not the weights this adapter was trained on"):
        load_run(learned.folder)


@pytest.mark.parametrize("method", ["joint-lora", "fomaml"])
def test_weights_that_changed_on_disk_are_refused(runs: Runs, tmp_path: Path, method: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs(method).folder, folder)
    assert same(load_run(folder).space.shared, runs(method).space.shared)
    (weights,) = folder.rglob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedError, match="not as the run wrote it") as caught:
        load_run(folder)
    assert caught.value.exit_code == 3
    weights.unlink()
    with pytest.raises(DamagedError, match=weights.name):
        load_run(folder)


# runs that go wrong


def holding_nan(model: LoadedModel) -> LoadedModel:
    """One weight that every logit of a token comes from: no processor's rounding makes a number of it."""
    broken = deepcopy(model.model)
    broken.get_output_embeddings().weight.data[5, 0] = torch.nan
    return replace(model, model=broken)


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml"])
def test_a_loss_that_is_no_number_ends_the_run(world: World, tmp_path: Path, method: str) -> None:
    with pytest.raises(RunError, match=r"step 1: .* is not a finite number"):
        meta_train(settings(world, method, tmp_path / "run"), model=holding_nan(world.model))
    said = manifest_of(tmp_path / "run")
    assert said["status"] == "failed"
    assert "is not a finite number" in said["reason"]
    assert sorted(files_of(tmp_path / "run")) == [LOCK, "manifest.json", "metrics.jsonl", "run.yaml"]
    with pytest.raises(UserError, match="did not finish"):
        load_run(tmp_path / "run")


def test_values_that_are_no_numbers_are_not_exported(world: World, tmp_path: Path) -> None:
    """The last outer step goes wrong after every loss was finite."""
    wild = {"outer.optimizer": {"name": "sgd", "lr": 3e38}, "outer.clip": None, "outer.steps": 1}
    wild["method.lora.lora_alpha"] = 1e4
    with pytest.raises(RunError, match=r"step 1: .* holds NaN or infinity"):
        small_run(world, "joint-lora", tmp_path / "run", wild)
    assert manifest_of(tmp_path / "run")["status"] == "failed"
    assert not (tmp_path / "run" / "adapter").exists()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"), (ValueError("zork"), "failed", "zork")],
)
def test_a_run_that_is_stopped_says_so(
    world: World, tmp_path: Path, error: BaseException, status: str, reason: str
) -> None:
    def stop(name: str, metrics: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        meta_train(settings(world, "joint-lora", tmp_path / "run"), model=world.model, on_step=stop)
    said = manifest_of(tmp_path / "run")
    assert (said["status"], said["reason"]) == (status, reason)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"outer.steps": 0},
        {"method.lora.zork": 1},
        {"tasks.support": 99},
        {"tasks.held_out": ["zork"]},
        {"tasks.folder": "nowhere"},
        {"tasks.max_length": 5},
        {"model.name": "./nowhere"},
        {"method.lora.target_modules": ["zork"]},
        {"method.lora.layers": "last-9"},
    ],
)
def test_what_cannot_run_leaves_nothing_behind(world: World, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        meta_train(settings(world, "joint-lora", tmp_path / "run", changes))
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_refused_and_left_alone(world: World, runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, runs("joint-lora").folder):
        before = files_of(folder)
        with pytest.raises(UserError, match="output_dir: this folder is not empty"):
            small_run(world, "joint-lora", folder)
        assert files_of(folder) == before


def test_public_calls_refuse_arguments_of_another_kind_before_anything_is_read(
    world: World, runs: Runs, tmp_path: Path
) -> None:
    """A model of transformers in place of a loaded one, say: all of them at once, and never from inside."""
    tree = settings(world, "fomaml-lora", tmp_path / "run")
    wrong: dict[str, Any] = {"model": world.model.model, "store": {}}
    with pytest.raises(UserError) as caught:
        meta_train(tree, **wrong)
    assert [fault.where for fault in caught.value.faults] == ["model", "store"]
    assert "innerloop.loading.models.load" in str(caught.value)
    given: Any
    for given in (None, 7, ["run.yaml"], b"run.yaml"):
        for call in (meta_train, load_config):
            with pytest.raises(UserError, match="config: not a config"):
                call(given)
    for given in (None, 7, {"folder": "x"}):
        with pytest.raises(UserError, match="folder: not a folder"):
            load_run(given)
    given = torch.float32
    with pytest.raises(UserError, match="dtype: not a name"):
        load_run(runs("fomaml-lora").folder, dtype=given)
    with pytest.raises(UserError, match="unknown dtype"):
        load_run(runs("fomaml-lora").folder, dtype="float31")
    assert files_of(tmp_path) == {}
    assert meta_train(tree, model=world.model).folder == tmp_path / "run"


def test_a_config_may_be_named_by_text(world: World, tmp_path: Path) -> None:
    file = config_file(world, tmp_path)
    assert load_config(str(file)) == load_config(file)
    with pytest.raises(UserError, match="there is no such file"):
        load_config(str(tmp_path / "none.yaml"))


def test_what_a_run_writes_can_be_read_by_whom_the_umask_lets(world: World, tmp_path: Path) -> None:
    """safetensors keeps its files to their owner."""
    before = os.umask(0o027)
    try:
        folder = small_run(world, "fomaml-lora", tmp_path / "run").folder
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes.pop(LOCK, 0o640) is not None
    assert modes.keys() >= {"adapter_model.safetensors", "adapter_config.json", "manifest.json"}
    assert set(modes.values()) == {0o640}
