"""A run writes what it is and did, a line for each step, and leaves the model that it was given as it was."""

import json
from pathlib import Path
from typing import Any

import pytest

import innerloop
from helpers import frozen_copy, relative_error, same
from innerloop.config.document import to_yaml
from innerloop.config.loading import load_config
from innerloop.engine.session import prepare, roles
from innerloop.files import LOCK
from innerloop.learning.methods import METHODS
from innerloop.machine import environment
from innerloop.runs.header import Header, header_of
from small_runs import (
    Runs,
    World,
    manifest_of,
    settings,
    small_run,
    tensors_of,
)

ONE_INITIALIZATION = ["meta-lora", "fomaml", "joint-lora", "reptile-lora", "maml-lora"]
TRAINED = [*ONE_INITIALIZATION, "lora"]


@pytest.mark.parametrize("method", TRAINED)
def test_the_folder_of_a_run(world: World, runs: Runs, method: str) -> None:
    learned = runs(method)
    folder, config = learned.folder, learned.config
    weights = {"fomaml": "model", "lora": "adapters"}.get(method, "adapter")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [LOCK, weights, "manifest.json", "metrics.jsonl", "run.yaml"]
    )
    assert load_config(folder / "run.yaml") == config
    said, session = manifest_of(folder), prepare(config, model=world.model)
    assert said["status"] == "done"
    assert load_config(said["config"]) == config
    assert said["model"]["fingerprint"] == world.model.fingerprint
    assert said["plan"] == json.loads(json.dumps(header_of(session).facts()))
    assert said["roles"] == roles(session)
    assert said["host"]["environment"] == environment()
    assert said["timing"]["seconds"] > 0
    assert said["host"]["peak_bytes"]["rss"] > 10**7
    assert sorted(said["weights"]) == sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))


@pytest.mark.parametrize("method", TRAINED)
def test_a_step_is_a_line_and_tokens_are_counted(world: World, runs: Runs, method: str) -> None:
    folder = runs(method).folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    adapters = ["cy", "dee"] if method == "lora" else [None]
    assert [(line.get("adapter"), line["step"]) for line in lines] == [(a, n) for a in adapters for n in (1, 2)]
    config = load_config(folder / "run.yaml")
    streams, rule = prepare(config, model=world.model).streams(), config.method.build()
    assert [line["tokens"] for line in lines] == [rule.tokens(b[step]) for _, b in streams for step in range(2)]
    assert manifest_of(folder)["tokens"] == sum(line["tokens"] for line in lines)
    inner = "inner" in METHODS[method].rule.options()
    for line in lines:
        assert line["loss"] > 0
        assert line["gradient_norm"] > 0
        assert (line["support_loss_first"] is not None) == inner


def test_a_config_may_be_a_mapping_a_file_or_a_run_config(world: World, tmp_path: Path) -> None:
    def of(name: str) -> dict[str, Any]:
        return settings(world, "fomaml-lora", tmp_path / name)

    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(of("file")))
    (tmp_path / "text.yaml").write_text(to_yaml(of("text")))
    plans: list[Header] = []
    steps: list[int] = []
    sources = {
        "mapping": of("mapping"),
        "file": file,
        "text": str(tmp_path / "text.yaml"),
        "config": load_config(of("config")),
    }
    for name, source in sources.items():
        learned = innerloop.meta_train(source, on_header=plans.append, on_step=lambda _, m: steps.append(m.step))
        assert learned.folder == tmp_path / name
    assert plans == [plans[0]] * 4
    assert steps == [1, 2] * 4
    mapping = tensors_of(tmp_path / "mapping")
    for name in ("file", "text", "config"):
        assert same(tensors_of(tmp_path / name), mapping)
    small_run(world, "fomaml-lora", tmp_path / "other", {"seed": 8})
    assert not same(tensors_of(tmp_path / "other"), mapping)


def test_runs_that_share_a_model_give_what_they_give_alone(world: World, tmp_path: Path) -> None:
    """Training all parameters writes the model it trains: that must not be the one passed in."""
    before = frozen_copy(dict(world.model.model.named_parameters()))
    for name in ("one", "two"):
        small_run(world, "fomaml", tmp_path / name, {"outer.optimizer": {"name": "sgd", "lr": 0.1}})
    assert same(tensors_of(tmp_path / "one"), tensors_of(tmp_path / "two"))
    trained = {name: value for key, value in tensors_of(tmp_path / "one").items() for name in [key.split(": ")[1]]}
    assert relative_error(trained, before) > 1e-3
    assert same(dict(world.model.model.named_parameters()), before)
