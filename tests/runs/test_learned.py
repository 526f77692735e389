"""The library's front door: what a run writes, and what comes back from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

import innerloop
from helpers import close, frozen_copy, relative_error, same
from innerloop.artifacts.adapter_folder import read_adapter
from innerloop.artifacts.export import reload_logits
from innerloop.config.document import to_yaml
from innerloop.config.loading import load_config
from innerloop.data.batches import collate
from innerloop.engine.session import prepare, roles
from innerloop.files import LOCK, file_name
from innerloop.learning.methods import METHODS
from innerloop.loading.models import load_model
from innerloop.machine import environment
from innerloop.numerics.tensors import accumulate, per_task, zeros_like
from innerloop.runs.header import Header, header_of
from innerloop.runs.learned import load_run
from innerloop.runs.meta_train import meta_train
from small_runs import (
    SUPPORT,
    Runs,
    World,
    logits_of,
    manifest_of,
    new_world,
    settings,
    small_run,
    tensors_of,
    tokens_of,
)

ONE_INITIALIZATION = ["meta-lora", "fomaml", "joint-lora", "reptile-lora", "maml-lora"]
TRAINED = [*ONE_INITIALIZATION, "lora"]


# what a run writes


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


def test_the_public_names_come_from_the_package() -> None:
    assert (innerloop.meta_train, innerloop.load_run) == (meta_train, load_run)
    assert innerloop.load_config is load_config
    with pytest.raises(AttributeError, match="zork"):
        _ = innerloop.zork


# one adapter for each task


def test_lora_leaves_an_adapter_of_each_held_out_task_that_peft_loads(world: World, runs: Runs, tmp_path: Path) -> None:
    learned = runs("lora")
    folders = sorted((learned.folder / "adapters").iterdir())
    assert [folder.name for folder in folders] == ["cy", "dee"]
    tokens = tokens_of(learned)
    base = world.model.model(tokens).logits
    both = [reload_logits(folder, tokens, base=learned.model.source) for folder in folders]
    assert relative_error(both[0], base) > 1e-4
    assert relative_error(both[0], both[1]) > 1e-4
    assert close(both[1], logits_of(learned, per_task(learned.space.shared, 1), tokens))
    small_run(world, "lora", tmp_path / "one", {"tasks.only": ["cy"]})
    assert same(tensors_of(tmp_path / "one" / "adapters"), _of_task(tensors_of(learned.folder / "adapters"), "cy"))


def _of_task(tensors: dict[str, Tensor], task: str) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name.startswith(f"{task}/")}


# what comes back


@pytest.mark.parametrize("method", ONE_INITIALIZATION)
def test_a_run_comes_back_bit_for_bit(runs: Runs, method: str) -> None:
    learned, back = runs(method), load_run(str(runs(method).folder))
    assert back.config == learned.config
    assert same(back.space.shared, learned.space.shared)
    here, there = learned.adapt(SUPPORT), back.adapt(SUPPORT)
    assert here.losses == there.losses
    assert same(here.values, there.values)
    assert not same(here.values, per_task(back.space.shared, 1))


def test_a_model_named_by_a_relative_path_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    learned = meta_train(settings(world, "joint-lora", Path("run"), {"model.name": "base"}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert same(load_run("../run").space.shared, learned.space.shared)


def test_the_folder_of_a_full_model_is_a_model(runs: Runs) -> None:
    learned = runs("fomaml")
    plain: Any = load_model(str(learned.exported))
    assert same(dict(plain.named_parameters()), learned.space.shared)


# META-LORA's two stages, from disk alone


def test_the_kept_adapters_give_the_outer_gradient_that_was_recorded(world: World, tmp_path: Path) -> None:
    changes = {"method.keep_task_adapters": True, "outer.tasks_per_step": 3, "method.inner.steps": 4}
    folder = small_run(world, "meta-lora", tmp_path / "run", changes).folder
    kept = folder / "task_adapters"
    query_ids = json.loads((kept / "query_ids.json").read_text())
    recorded = load_file(kept / "outer_gradient.safetensors")
    back = load_run(folder)
    session = prepare(back.config, model=back.model)
    pools = {task.task.name: {example.id: example for example in task.pool} for task in session.train}
    assert sorted(query_ids) == ["ada", "bob", "cy"]
    assert {path.name for path in kept.iterdir() if path.is_dir()} == set(map(file_name, query_ids))

    def gradient(values_of: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
        averaged = zeros_like(recorded)
        for name, ids in query_ids.items():
            batch = collate([[pools[name][id_] for id_ in ids]])
            _, one = back.space.loss_and_gradient(per_task(values_of(name), 1), batch)
            accumulate(averaged, one or {}, 1 / len(query_ids))
        return averaged

    lora = back.config.method.lora_settings()
    assert lora is not None

    def values_of(name: str) -> dict[str, Tensor]:
        return read_adapter(kept / file_name(name), back.model.model, lora=lora, base_names=("",))

    assert close(gradient(values_of), recorded)
    assert not close(gradient(lambda name: back.space.shared), recorded, 1e-3)
    small_run(world, "meta-lora", tmp_path / "plain", changes | {"method.keep_task_adapters": False})
    assert same(tensors_of(tmp_path / "plain" / "adapter"), tensors_of(folder / "adapter"))
    assert not (tmp_path / "plain" / "task_adapters").exists()
