"""The outer learning rate over a run: transformers' own numbers, and nothing that a run has to keep."""

from pathlib import Path

import pytest
import torch

from helpers import same
from innerloop.engine.schedules import rate_of, warmup_steps
from innerloop.runs.meta_train import meta_train
from small_runs import World, settings, small_run, tensors_of

STEPS = 10


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3, 0.25])
def test_rates_are_those_that_transformers_steps_through(schedule: str, warmup: float) -> None:
    from transformers import get_scheduler

    first = warmup_steps(warmup, STEPS)
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
