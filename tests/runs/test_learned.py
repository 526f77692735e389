"""The library's front door: what comes back from a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

import innerloop
from helpers import close, relative_error, same
from innerloop.api import trainer
from innerloop.artifacts.adapter_folder import read_adapter
from innerloop.artifacts.export import reload_logits
from innerloop.config.loading import load_config
from innerloop.data.batches import collate
from innerloop.engine.session import prepare
from innerloop.files import file_name
from innerloop.loading.models import load_model
from innerloop.numerics.tensors import accumulate, per_task, zeros_like
from innerloop.runs.meta_train import meta_train
from innerloop.runs.reloading import load_run
from small_runs import (
    SUPPORT,
    Runs,
    World,
    logits_of,
    new_world,
    settings,
    small_run,
    tensors_of,
    tokens_of,
)

ONE_INITIALIZATION = ["meta-lora", "fomaml", "joint-lora", "reptile-lora", "maml-lora"]
TRAINED = [*ONE_INITIALIZATION, "lora"]


def test_the_public_names_come_from_the_package() -> None:
    assert innerloop.load_run is load_run
    assert innerloop.meta_train is trainer.meta_train
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
