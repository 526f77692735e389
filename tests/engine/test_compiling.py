"""What a run says and does where it was asked to compile its layers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch._dynamo.utils import counters

from config_examples import faults_of, minimal
from helpers import same
from innerloop.config.loading import load_config
from innerloop.engine.compiling import compile_layers
from innerloop.engine.session import prepare
from innerloop.runs.adapters import fit
from innerloop.runs.header import header_of
from small_runs import World, config_file, manifest_of, settings, small_run, tensors_of

ASKED: dict[str, Any] = {
    "model.compile": True,
    "method.lora.layers": "last-1",
    "method.lora.target_modules": ["o_proj"],
}


def test_one_adapter_a_task_is_recorded_once(world: World, tmp_path: Path) -> None:
    """Std LoRA makes a space for each task."""
    session = prepare(load_config(settings(world, "lora", tmp_path / "run", ASKED)), model=world.model)
    compile_layers(session, backend="eager")
    recorded = counters["stats"]["unique_graphs"]
    assert any(line.startswith("compiled yes") for line in header_of(session).lines())
    assert len(session.streams()) == 2
    for name, batches in session.streams():
        trainer = session.trainer(session.space(), batches)
        fit(trainer, batches, 2, name=name, on_step=lambda name, metrics: None)
    assert counters["stats"]["unique_graphs"] == recorded > 0


def test_without_a_compiler_the_run_goes_on(world: World, tmp_path: Path) -> None:
    """A real run, in a process whose C++ compiler doesn't exist."""
    file = config_file(world, tmp_path, "joint-lora", ASKED)
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "innerloop", "train", str(file)]
    done = subprocess.run(
        command, env={**os.environ, **cache, "CXX": "no-such-compiler"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = manifest_of(tmp_path / "run")["plan"]["compiled"]
    assert said.startswith("no: ")
    assert "compiler" in said.lower()
    assert "compiled no: " in done.stdout + done.stderr
    plain = {key: value for key, value in ASKED.items() if key != "model.compile"}
    small_run(world, "joint-lora", tmp_path / "plain", plain)
    assert same(tensors_of(tmp_path / "run"), tensors_of(tmp_path / "plain"))


def test_not_asked_nothing_said(world: World, tmp_path: Path) -> None:
    session = prepare(load_config(settings(world, "joint-lora", tmp_path / "run")), model=world.model)
    compile_layers(session)
    assert session.layers is None
    assert not any(line.startswith("compiled") for line in header_of(session).lines())


@pytest.mark.parametrize(
    ("method", "lora", "problem", "right"),
    [
        ("fomaml", {}, "trains all parameters", "fomaml-lora"),
        ("fomaml-lora", {"lora": {"lora_dropout": 0.1}}, "dropout", "lora_dropout"),
    ],
)
def test_what_cannot_be_compiled_is_refused(method: str, lora: dict[str, Any], problem: str, right: str) -> None:
    config = minimal(method, model={"name": "m", "compile": True}) | {"method": {"name": method, **lora}}
    (fault,) = faults_of(config)
    assert "model.compile" in fault
    assert problem in fault
    assert right in fault
