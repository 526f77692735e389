"""The outer learning rate and the rule over a run: nothing that a run has to keep."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import close, same
from innerloop.config.loading import load_config
from innerloop.engine.schedules import first_steps, joint_steps, rate_of, rule_at
from innerloop.engine.session import prepare
from innerloop.engine.trainer import Trainer
from innerloop.learning.methods import Joint
from innerloop.runs.meta_train import meta_train
from small_runs import World, settings, small_run, tensors_of

STEPS = 10


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3, 0.25])
def test_rates_are_those_that_transformers_steps_through(schedule: str, warmup: float) -> None:
    from transformers import get_scheduler

    first = first_steps(warmup, STEPS)
    assert first == {0: 0, 3: 3, 0.25: 3}[warmup]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(name, optimizer, num_warmup_steps=first, num_training_steps=STEPS)
    ours = rate_of(schedule, warmup=warmup, steps=STEPS)
    for step in range(STEPS):
        assert (1.0 if ours is None else ours(step)) == theirs.get_last_lr()[0]
        optimizer.step()
        theirs.step()


def test_a_rate_that_never_changes_is_no_schedule() -> None:
    assert rate_of("constant", warmup=0, steps=STEPS) is None


def test_a_step_takes_the_rate_of_its_place_in_the_run(world: World, tmp_path: Path) -> None:
    """After one step of warm-up, of two: the first step is at rate 0, and the second at the whole rate."""
    moved = small_run(world, "joint-lora", tmp_path / "moved", {"outer.steps": 1, "outer.warmup": 1})
    start = {name: value.clone() for name, value in moved.space.shared.items()}
    still = small_run(world, "joint-lora", tmp_path / "still", {"outer.steps": 2, "outer.schedule": "linear"})
    assert not same(start, dict(still.space.shared))
    fresh = small_run(world, "joint-lora", tmp_path / "fresh", {"outer.steps": 1, "outer.optimizer.lr": 1e-30})
    largest = max(float((start[name] - value).abs().max()) for name, value in fresh.space.shared.items())
    assert largest < 1e-25


def test_a_run_that_goes_on_has_the_same_rates(world: World, tmp_path: Path) -> None:
    changes = {"outer.steps": 4, "outer.schedule": "cosine", "outer.warmup": 0.25, "save.every": 2}
    whole = small_run(world, "fomaml-lora", tmp_path / "whole", changes)

    def stop(name: str, metrics: object) -> None:
        if getattr(metrics, "step", 0) == 2:
            raise KeyboardInterrupt

    config = settings(world, "fomaml-lora", tmp_path / "parts", changes)
    with pytest.raises(KeyboardInterrupt):
        meta_train(config, model=world.model, on_step=stop)
    meta_train(config, model=world.model, resume=True)
    assert same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))
    constant = small_run(world, "fomaml-lora", tmp_path / "constant", {"outer.steps": 4})
    assert not same(dict(whole.space.shared), dict(constant.space.shared))


JOINT_OF = {"fomaml": "joint", "maml-lora": "joint-lora", "meta-lora": "joint-lora", "reptile-lora": "joint-lora"}


def kept(folder: Path) -> list[dict[str, Any]]:
    """The lines of its metrics, without what clocks say."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines]


@pytest.mark.parametrize("method", JOINT_OF)
def test_a_run_of_joint_steps_alone_is_joint_training_bit_for_bit(world: World, tmp_path: Path, method: str) -> None:
    dropout = {"method.lora.lora_dropout": 0.2} if method.endswith("lora") else {}
    changes = {"outer.steps": 3, "tasks.support": 3, **dropout}
    split = {"tasks.support": 2, "tasks.query": 1} if method.startswith("reptile") else {}  # it has no query of its own
    joint = small_run(world, JOINT_OF[method], tmp_path / "joint", changes | split)
    phase = small_run(world, method, tmp_path / "phase", {**changes, "outer.joint_steps": 3})
    assert same(dict(joint.space.shared), dict(phase.space.shared))
    assert [{**line, "joint": True} for line in kept(tmp_path / "joint")] == kept(tmp_path / "phase")
    one_less = small_run(world, method, tmp_path / "less", {**changes, "outer.joint_steps": 2})
    assert not same(dict(one_less.space.shared), dict(phase.space.shared))
    assert kept(tmp_path / "less")[:2] == kept(tmp_path / "phase")[:2]


def test_the_method_goes_on_where_joint_training_ends(world: World, tmp_path: Path) -> None:
    """Against two trainers by hand, the second one with the first one's values and moments."""
    config = load_config(settings(world, "fomaml-lora", tmp_path / "run", {"outer.steps": 4, "outer.joint_steps": 0.5}))
    session = prepare(config, model=world.model)
    assert (joint_steps(config.outer), rule_at(config, 1), rule_at(config, 2)) == (2, Joint(), config.method.build())
    ((_, batches),) = session.streams()
    whole = session.trainer(session.space(), batches)
    for step in range(4):
        whole.step(batches[step])
    by_hand = Trainer(session.space(), Joint(), config.outer.build_optimizer(), seed=config.seed)
    for step in range(2):
        by_hand.step(batches.of(step, joint=True))
    values, steps = dict(by_hand.tensors), by_hand.steps
    after = Trainer(session.space(), config.method.build(), config.outer.build_optimizer(), seed=config.seed)
    fresh = Trainer(session.space(), config.method.build(), config.outer.build_optimizer(), seed=config.seed)
    for name, value in after.tensors.items():
        value.copy_(values[name])
    after.go_on_from(steps)
    for name, value in fresh.space.shared.items():
        value.copy_(values[f"shared/{name}"])
    for step in range(2, 4):
        after.step(batches[step])
        fresh.step(batches[step])
    assert same(whole.tensors, after.tensors)
    assert not close(whole.space.shared, fresh.space.shared), "the outer optimizer's moments go on"


def test_more_joint_steps_than_steps_are_all_of_them(world: World) -> None:
    outer = load_config(settings(world, "fomaml-lora", Path("unused"), {"outer.joint_steps": 9})).outer
    assert joint_steps(outer) == outer.steps == 2
    assert (joint_steps(outer, of=20), joint_steps(outer, of=5)) == (9, 5)
