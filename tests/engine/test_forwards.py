"""As many tasks go through a forward as a device's token budget has room for, and at least one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from innerloop.config.loading import load_config
from innerloop.engine import forwards
from innerloop.engine.forwards import evenly, tasks_that_fit
from innerloop.engine.session import prepare
from innerloop.engine.task_batches import TaskBatches
from innerloop.machine import AUTO_TOKENS_PER_FORWARD
from small_runs import World, settings

CPU = torch.device("cpu")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("method", ["fomaml-lora", "joint-lora"])
def test_the_largest_task_counts_against_the_budget(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str, packed: bool
) -> None:
    changes: dict[str, Any] = {"outer.tasks_per_step": 3}
    session = prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)
    first = TaskBatches(session.config, session.train, packed=packed)[0]
    sizes = [
        max(batch.packing.sizes) if batch.packing else batch.tokens.shape[1] * batch.tokens.shape[2]
        for batch in first.batches
    ]
    largest = max(sizes)
    for budget, count in ((largest - 1, 1), (largest, 1), (2 * largest, 2), (3 * largest, 3), (99 * largest, 3)):
        monkeypatch.setattr(forwards, "AUTO_TOKENS_PER_FORWARD", {"cpu": budget})
        assert tasks_that_fit(session.config, first, CPU) == count


def test_a_space_that_takes_one_task_takes_one(world: World) -> None:
    session = prepare(load_config(settings(world, "fomaml", Path("unused"))), model=world.model)
    first = TaskBatches(session.config, session.train)[0]
    assert len(first.names) == 2
    assert first.batches[0].tokens[0].numel() * 2 < AUTO_TOKENS_PER_FORWARD["cpu"], "there would be room for both"
    assert tasks_that_fit(session.config, first, CPU) == 1


def test_a_cpu_fills_nothing_up() -> None:
    assert not evenly("cpu")
    assert evenly("cuda")
