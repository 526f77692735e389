"""`outer.ema`: what is learned is the moving average, in every kind of space, and the steps are those without it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import close, same
from innerloop.config.loading import load_config
from innerloop.engine.parts import make_space, make_trainer
from innerloop.engine.session import prepare
from innerloop.numerics.tensors import TensorSet, clone
from innerloop.planning.devices import chosen
from innerloop.planning.forecast import forecast
from innerloop.planning.workload import workload_of_session
from innerloop.runs.checkpoint import newest, size_of
from innerloop.runs.meta_train import meta_train
from innerloop.runs.reloading import load_run
from small_runs import World, settings, small_run, tensors_of

DECAY, STEPS = 0.6, 4
LEAN = {"model.dtype": "bfloat16", "memory.lean": True}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("meta-lora", {}),
    "all": ("fomaml", {"outer.optimizer.lr": 1e-2}),
    "lean": ("joint", {"outer.optimizer.lr": 1e-2, **LEAN}),
}
EMA = {"outer.ema": DECAY, "outer.steps": STEPS}


def weighted(values: list[TensorSet], decay: float = DECAY) -> TensorSet:
    weights = [decay ** (len(values) - i) for i in range(1, len(values) + 1)]
    return {
        name: sum((w * at[name].float() for w, at in zip(weights, values, strict=True)), torch.zeros(())) / sum(weights)
        for name in values[0]
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learned_is_the_weighted_mean_of_the_values_after_each_step(
    world: World, tmp_path: Path, kind: str
) -> None:
    method, changes = KINDS[kind]
    config = load_config(settings(world, method, tmp_path / "run", {**changes, **EMA}))
    session = prepare(config, model=None if kind == "lean" else world.model)
    (_, batches), *_ = session.streams()
    space = session.space()
    trainer = session.trainer(space, batches)
    assert same(trainer.learned_values, {name: value.float() for name, value in space.shared.items()})
    path: list[TensorSet] = []
    for step in range(STEPS):
        trainer.step(batches[step])
        path.append(clone(space.shared))
    assert {value.dtype for value in trainer.learned_values.values()} == {torch.float32}
    assert close(trainer.learned_values, weighted(path))
    assert not close(trainer.learned_values, weighted(path, 0.7), 1e-5)
    assert not close(trainer.learned_values, {name: value.float() for name, value in path[-1].items()}, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_exported_and_the_values_go_their_own_way(world: World, tmp_path: Path, kind: str) -> None:
    method, changes = KINDS[kind]
    model = None if kind == "lean" else world.model
    plain = settings(world, method, tmp_path / "plain", {**changes, "outer.steps": STEPS})
    config = settings(world, method, tmp_path / "run", {**changes, **EMA})
    without = meta_train(plain, model=model)
    learned = meta_train(config, model=model)
    lines = ((tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("plain", "run"))
    steps = [[{**json.loads(line), "timing": None} for line in each] for each in lines]
    assert steps[0] == steps[1], "the average has no part in training"
    assert not same(tensors_of(tmp_path / "plain"), tensors_of(tmp_path / "run"))
    found = load_run(tmp_path / "run").space.shared
    dtype = torch.bfloat16 if kind == "lean" else torch.float32
    assert same(found, {name: value.to(dtype).float() for name, value in learned.space.shared.items()})
    assert not same(dict(without.space.shared), dict(learned.space.shared))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_goes_on_has_the_same_average(world: World, tmp_path: Path, kind: str) -> None:
    method, changes = KINDS[kind]
    model = None if kind == "lean" else world.model
    meta_train(settings(world, method, tmp_path / "whole", {**changes, **EMA}), model=model)
    config = settings(world, method, tmp_path / "parts", {**changes, **EMA, "save.every": 2})

    def stop(name: str, metrics: Any) -> None:
        if metrics.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meta_train(config, model=model, on_step=stop)
    saved = newest(tmp_path / "parts").state
    assert saved is not None
    assert {name.split("/")[0] for name in saved.tensors} >= {"shared", "average"}
    meta_train(config, model=model, resume=True)
    assert same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))


def test_a_plan_counts_its_bytes_in_memory_and_in_checkpoints(world: World, tmp_path: Path) -> None:
    def planned(changes: dict[str, Any]) -> tuple[int, int, int]:
        config = load_config(settings(world, "fomaml", tmp_path / "run", changes))
        session = prepare(config, model=world.model)
        (_, batches), *_ = session.streams()
        taken = size_of(session.trainer(session.space(), batches).tensors)
        found = forecast(workload_of_session(session), chosen("cpu", model_device="cpu"))
        return found.phases["outer"]["meta-optimizer"], found.checkpoint_bytes, taken

    without, averaged = planned({}), planned({"outer.ema": DECAY})
    values = sum(parameter.numel() for parameter in world.model.model.parameters())
    for before, after in zip(without, averaged, strict=True):
        assert after - before == 4 * values


def test_adapters_of_the_last_step_are_those_without_an_average(world: World, tmp_path: Path) -> None:
    keep = {"method.keep_task_adapters": True}
    small_run(world, "meta-lora", tmp_path / "plain", keep)
    small_run(world, "meta-lora", tmp_path / "ema", {**keep, "outer.ema": DECAY})
    plain, ema = tensors_of(tmp_path / "plain"), tensors_of(tmp_path / "ema")
    last = {name: value for name, value in plain.items() if "task_adapters" in name}
    assert last
    assert same(last, {name: value for name, value in ema.items() if "task_adapters" in name})


def test_a_trainer_without_it_learns_the_values_themselves(world: World, tmp_path: Path) -> None:
    config = load_config(settings(world, "fomaml-lora", tmp_path / "run"))
    space = make_space(config, world.model.model)
    trainer = make_trainer(config, space)
    assert trainer.learned_values is space.shared
    assert not any(name.startswith("average/") for name in trainer.tensors)
