"""What is said of a run's health: how far it moves, what its gradients are like, and a start that became worse."""

import warnings
from typing import Any

import pytest
import torch

from helpers import Tasks, all_space, frozen_copy, lora_space, same
from innerloop.data.batches import collate
from innerloop.data.tasks import TaskBatch
from innerloop.engine import diagnosis
from innerloop.engine.diagnosis import Sample, StartCheck, a_to_b
from innerloop.engine.trainer import Trainer
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import Fomaml
from innerloop.learning.passes import how_far
from innerloop.numerics.optimizers import Sgd
from innerloop.numerics.tensors import distance, norm, per_task
from innerloop.spaces.space import ParameterSpace
from reference import naive
from tiny import tiny_model


def said(space: ParameterSpace, tasks: TaskBatch, losses: dict[int, float | None], **options: Any) -> dict[int, str]:
    """The warnings of a check that sees these steps, by step."""
    check, found = StartCheck(), dict[int, str]()
    for step, loss in losses.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check.see(space, tasks, loss, step=step, **{"tasks_per_forward": None, **options})
        if caught:
            (warning,) = caught
            found[step] = str(warning.message)
    return found


def test_a_start_that_became_worse_is_told_of_once() -> None:
    space, tasks = lora_space(tiny_model("llama", layers=1)), Tasks(tasks=3, steps=2)
    model = tiny_model("llama", layers=1)
    now = sum(naive.loss(naive.with_lora(model, space.shared, space.settings), s[0]).item() for s, _ in tasks.each) / 3
    before = frozen_copy(space.shared)
    steps = {step: now / 1.2 if step == 1 else None for step in (1, 8, 15, 16, 17, 32)}
    for tasks_per_forward in (None, 2, 1):
        found = said(space, tasks.batch, steps, tasks_per_forward=tasks_per_forward)
        assert list(found) == [16], "not before, and not again"
        assert f"{now:.3g} nats" in found[16]
        assert "method.inner.steps" in found[16]
    assert same(space.shared, before)
    assert not said(space, tasks.batch, {**steps, 1: now / 1.05}), "a little worse is nothing to tell"
    assert not said(space, tasks.batch, {**steps, 1: None}), "without an inner step in the first outer step"
    assert list(said(space, tasks.batch, {1: now / 1.2, 16: None}, tasks_per_forward=1)) == [16]


@pytest.mark.parametrize("tasks_per_forward", [None, 2])
def test_examples_side_by_side_are_looked_at_as_padded_ones_are(tasks_per_forward: int | None) -> None:
    """Without fillers, as training has them on a CPU, where tasks have unequally many tokens."""
    space, tasks = lora_space(tiny_model("llama", layers=1)), Tasks(tasks=3, steps=1)
    packed = collate(tasks.support[0], packed=True, even=False)
    assert packed.packing is not None
    assert len({sum(task) for task in packed.lengths}) > 1
    steps, options = {1: 1e-3, 16: None}, {"tasks_per_forward": tasks_per_forward}
    found = said(space, tasks.batch._replace(support=[packed]), steps, **options)
    assert found == said(space, tasks.batch, steps, **options)
    assert list(found) == [16]


@pytest.mark.parametrize(("steps", "worse", "warns"), [(3, 0.5, True), (3, 1.1, False), (0, 0.5, False)])
def test_a_trainer_looks_after_its_start(
    monkeypatch: pytest.MonkeyPatch, steps: int, worse: float, warns: bool
) -> None:
    """A model this small gets hardly worse: half of its first loss counts as worse here."""
    monkeypatch.setattr(diagnosis, "WORSE", worse)
    space, inner = lora_space(tiny_model("llama", layers=1)), InnerLoop(steps=steps, optimizer=Sgd(lr=0.1, clip=1.0))
    trainer = Trainer(space, Fomaml(inner=inner), Sgd(lr=1e-3))
    tasks = Tasks(tasks=2, steps=3).batch
    tasks = tasks if steps else tasks._replace(support=[])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(17):
            trainer.step(tasks)
    assert any("step 16: without an inner step" in str(each.message) for each in caught) == warns


def test_metrics_say_how_far_a_step_went() -> None:
    space, tasks = lora_space(tiny_model("llama", layers=1)), Tasks(tasks=3, steps=2).batch
    loop = InnerLoop(steps=2, optimizer=Sgd(lr=0.3))
    start = per_task(space.shared, 3)
    reached = loop.adapt(space, start, tasks.support)
    flat = [torch.cat([v[task].flatten() for v in reached.values.values()]) for task in range(3)]
    theta = torch.cat([value.flatten() for value in space.shared.values()])
    wanted = torch.stack([(phi - theta).norm() / theta.norm() for phi in flat])
    moved = how_far(start, reached)
    assert moved is not None
    assert torch.allclose(moved, wanted, rtol=1e-4)
    metrics = Trainer(space, Fomaml(inner=loop), Sgd(lr=0.1)).step(tasks)
    assert metrics.inner_moved == pytest.approx(float(wanted.mean()), rel=1e-4)
    assert metrics.inner_moved != pytest.approx(float(wanted.max()), rel=1e-2)
    assert metrics.bf16_changed is None
    still = loop.adapt(space, start, tasks.support)._replace(losses=torch.empty(0, 3))
    assert how_far(start, still) is None


def test_a_to_b_is_of_the_gradients_norms() -> None:
    gradient = {"x.lora_A": torch.full((1, 4), 3.0), "x.lora_B": torch.full((1, 9), 1.0), "y.lora_A": torch.zeros(1, 2)}
    assert a_to_b(gradient) == pytest.approx(2.0)
    assert a_to_b({**gradient, "x.lora_B": torch.zeros(1, 9)}) is None
    assert a_to_b({"weight": torch.ones(1, 3)}) is None


def test_a_sample_counts_what_changed_in_bfloat16() -> None:
    values = {"a": torch.ones(3, 5000).bfloat16(), "b": torch.ones(10).bfloat16(), "c": torch.ones(4)}
    sample = Sample(values)
    assert sample.changed == 0.0
    values["a"].add_(1e-4)  # rounds away
    assert sample.changed == 0.0
    values["a"].view(-1)[:7500].add_(1.0)
    assert sample.changed == pytest.approx(0.5, abs=0.01)
    assert Sample({"c": values["c"]}).changed is None


def test_distances_are_each_tasks_own() -> None:
    space = all_space(tiny_model("llama", layers=1))
    left, right = ({name: scale * value[None] for name, value in space.shared.items()} for scale in (1.0, 1.5))
    assert torch.allclose(distance(left, right), 0.5 * norm(left))
    some = {"a": torch.arange(12.0).view(3, 4), "b": torch.zeros(3)}
    other = {"a": torch.zeros(3, 4), "b": torch.tensor([1.0, 0.0, 2.0])}
    assert torch.allclose(distance(some, other), torch.cat([some["a"], other["b"][:, None]], 1).norm(dim=1))
