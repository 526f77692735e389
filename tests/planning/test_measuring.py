"""Phases and parts of real steps, and that first-order methods take no more for more steps or more tasks."""

from typing import Any

import pytest
import torch

from helpers import Tasks, all_space, lora_space, untouched
from innerloop.engine.trainer import Trainer
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS
from innerloop.loading.architecture import head
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.numerics.tensors import clone
from innerloop.planning.measuring import tracked
from innerloop.planning.tracking import ByteTracker, Footprint, footprint
from innerloop.spaces.space import ParameterSpace
from tiny import tiny_model

FIRST_ORDER = [name for name in METHODS if not name.startswith("maml")]
CPU = torch.device("cpu")


def space_of(method: str) -> ParameterSpace:
    return {"all": all_space, "lora": lora_space}[METHODS[method].space.name](tiny_model("llama"))


def trainer_of(method: str, *, steps: int = 2, space: ParameterSpace | None = None) -> Trainer:
    rule = METHODS[method].rule
    options: dict[str, Any] = {}
    if "inner" in rule.options():
        options["inner"] = InnerLoop(steps=steps, optimizer=Sgd(lr=0.1))
    return Trainer(space or space_of(method), rule(**options), AdamW(lr=0.01), tasks_per_forward=1)


def alike(tasks: int) -> Tasks:
    """Tasks of equal size, as many as asked for."""
    made = Tasks(tasks=1, steps=1)
    made.names = tuple(f"task {task}" for task in range(tasks))
    made.support, made.query = [step * tasks for step in made.support], made.query * tasks
    return made


def footprint_of(method: str, *, steps: int = 2, tasks: int = 1) -> Footprint:
    trainer, tracker, batch = trainer_of(method, steps=steps), ByteTracker(CPU), alike(tasks).batch
    batch = batch._replace(support=[*batch.support] * steps)  # one for each inner step, as a run has it
    with tracked(trainer, tracker):
        trainer.step(batch)
    return footprint(tracker.peaks, tracker.host_peak, tracker.flops)


@pytest.mark.parametrize("method", FIRST_ORDER)
def test_the_peak_is_flat_in_inner_steps_and_in_tasks(method: str) -> None:
    one, more = footprint_of(method, steps=1, tasks=1), footprint_of(method, steps=4, tasks=4)
    assert abs(more.peak - one.peak) < 0.02 * one.peak  # losses and token numbers of more tasks


@pytest.mark.parametrize("method", ["maml", "maml-lora"])
def test_the_second_order_keeps_the_values_of_every_step(method: str) -> None:
    """That the tests above would see what grows."""
    one, four = (footprint_of(method, steps=steps).parts["fast weights"] for steps in (1, 4))
    values = sum(value.nbytes for value in space_of(method).shared.values())
    assert four - one == 3 * values


@pytest.mark.parametrize("method", ["fomaml", "maml-lora"])
def test_listening_changes_nothing(method: str) -> None:
    plain, seen = trainer_of(method), trainer_of(method)
    space, rule, loss, tracker = seen.space, seen.method, seen.space.loss, ByteTracker(CPU)
    tasks = Tasks(tasks=3).batch
    expected = plain.step(tasks)
    with tracked(seen, tracker):
        assert seen.step(tasks) == expected
    for name, value in plain.space.shared.items():
        assert torch.equal(seen.space.shared[name], value), name
    assert (seen.space, seen.method, seen.space.loss) == (space, rule, loss)


def test_a_base_is_left_as_it_was() -> None:
    space = space_of("fomaml-lora")
    with untouched(space.model):
        trainer = trainer_of("fomaml-lora", space=space)
        with tracked(trainer, ByteTracker(CPU)):
            trainer.step(Tasks(tasks=2).batch)


def test_parts_at_rest_are_what_the_trainer_holds() -> None:
    trainer, tracker = trainer_of("fomaml-lora"), ByteTracker(CPU)
    with tracked(trainer, tracker):
        trainer.step(Tasks(tasks=2).batch)
        rest = tracker.parts()
    values = sum(value.nbytes for value in trainer.space.shared.values())
    model = trainer.space.model
    base = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    assert rest.pop("activations", 0) < 1000  # views of the batch
    assert rest == {
        "base": sum(base.values()),
        "shared values": values,
        "gradients": values,
        "meta-optimizer": 2 * values,
    }


def test_each_part_has_its_phase() -> None:
    peaks = footprint_of("fomaml").peaks
    values = sum(value.nbytes for value in space_of("fomaml").shared.values())
    for phase in ("inner", "query"):
        assert peaks[phase]["fast weights"] == values
        assert peaks[phase]["logits"] > 0
        assert peaks[phase]["activations"] > 0
    assert "fast weights" not in peaks["outer"]
    assert peaks["outer"]["meta-optimizer"] > 2 * values
    assert peaks["outer"]["shared values"] == values


def test_operations_of_a_pass() -> None:
    """Six for each parameter of a linear layer and token (forward 2, backward 4), and attention's little."""
    method, tracker, tasks = trainer_of("joint"), ByteTracker(CPU), alike(1).batch
    with tracked(method, tracker):
        method.step(tasks)
    assert tasks.query is not None
    linears = [module for module in method.space.model.modules() if isinstance(module, torch.nn.Linear)]
    output, _ = head(method.space.model)
    weights = sum(linear.weight.numel() for linear in linears if linear.weight is not output)
    least = 6 * (weights * tasks.query.computed_tokens + output.numel() * len(tasks.query.scored_rows))
    assert least < tracker.flops["query"] < 1.1 * least


def test_a_failed_step_leaves_the_trainer_as_it_was() -> None:
    trainer = trainer_of("fomaml-lora")
    space, rule = trainer.space, trainer.method
    broken = clone(space.shared)
    with pytest.raises(ValueError, match="stop"), tracked(trainer, ByteTracker(CPU)):
        raise ValueError("stop")
    assert (trainer.space, trainer.method) == (space, rule)
    assert all(torch.equal(space.shared[name], value) for name, value in broken.items())
