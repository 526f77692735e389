"""Compiled layers give the numbers of those that aren't, are recorded once, and leave no trace.

The recordings here are torch's own and run operator by operator (backend "eager"): generated code has its test in
tests/config/test_schema_every_key.py. One that would change a number is planted in the control.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from helpers import close, examples, lora_space, perturbed, relative_error, untouched
from innerloop.data.batches import collate
from innerloop.data.tasks import Batch
from innerloop.spaces.compiled import CompiledLayers
from innerloop.spaces.lora import LoraSettings, LoraSpace
from innerloop.spaces.loss import AnswerLoss
from tiny import tiny_model

FEW = {"gpt_neox": ("dense", "dense_4h_to_h")}


def recorded() -> int:
    return counters["stats"]["unique_graphs"]


def both(family: str, *, scale: float = 1.0, loss: dict[str, Any] | None = None, **lora: Any) -> list[LoraSpace]:
    """The same space twice: with hooks, and compiled."""
    model, options = tiny_model(family), loss or {}
    hooked = lora_space(model, loss=options, target_modules=FEW.get(family, ("o_proj", "down_proj")), **lora)
    layers = CompiledLayers(hooked.targets, scale=scale * hooked.settings.scale, backend="eager")
    answers = AnswerLoss(model, compiled=layers, **options)
    return [hooked, LoraSpace(model, answers, hooked.settings, seed=0, compiled=layers)]


def batch(tasks: int, per_task: int, seed: int, *, packed: bool = False) -> Batch:
    made = collate(examples(tasks=tasks, per_task=per_task, seed=seed), packed=packed)
    assert (made.packing is not None) == packed
    return made


def check(hooked: LoraSpace, compiled: LoraSpace, on: Batch) -> None:
    values = perturbed(hooked.shared, on.tasks)
    with untouched(hooked.model):
        loss, gradient = compiled.loss_and_gradient(values, on)
    expected_loss, expected = hooked.loss_and_gradient(values, on)
    assert gradient is not None
    assert expected is not None
    assert close(loss, expected_loss)
    assert close(gradient, expected)


@pytest.fixture(scope="module")
def spaces() -> Iterator[list[LoraSpace]]:
    yield both("llama")
    torch.compiler.reset()


def test_same_numbers_without_another_recording(spaces: list[LoraSpace]) -> None:
    check(*spaces, batch(4, 3, 0))
    check(*spaces, batch(4, 3, 0, packed=True))
    before = recorded()
    for other in (batch(3, 5, 2), batch(3, 5, 2, packed=True), batch(2, 3, 6), batch(2, 3, 6, packed=True)):
        check(*spaces, other)
    assert recorded() == before > 0


def test_a_task_alone_is_recorded_once(spaces: list[LoraSpace]) -> None:
    """Also the control of the one above: another recording is counted."""
    before = recorded()
    check(*spaces, batch(1, 3, 4))
    once = recorded()
    check(*spaces, batch(1, 5, 5))
    assert recorded() == once > before


@pytest.mark.parametrize(
    ("family", "loss", "lora"),
    [("gpt_neox", {"checkpointing": True}, {}), ("gemma3", {"cut": 2}, {"layers": "last-1"})],
)
def test_with_checkpoints_and_above_a_cut(family: str, loss: dict[str, Any], lora: dict[str, Any]) -> None:
    spaces = both(family, loss=loss, **lora)
    check(*spaces, batch(4, 3, 0))
    before = recorded()
    check(*spaces, batch(3, 4, 1))
    assert recorded() == before > 0


def test_another_scale_would_be_seen() -> None:
    hooked, compiled = both("llama", scale=1.01, loss={"cut": 2}, layers="last-1")
    on = batch(2, 3, 0)
    values = perturbed(hooked.shared, 2)
    gradient, expected = (space.loss_and_gradient(values, on)[1] for space in (compiled, hooked))
    assert gradient is not None
    assert expected is not None
    assert relative_error(gradient, expected) > 1e-3


def test_all_else_runs_uncompiled(spaces: list[LoraSpace]) -> None:
    shared, on, before = spaces[0].shared, batch(2, 3, 1), recorded()
    values, vector = perturbed(shared, 2), perturbed(shared, 2, seed=6)
    products = [space.hessian_vector_product(values, on, vector) for space in spaces]
    assert close(*products)
    scores: list[Any] = []
    for space in spaces:
        assert isinstance(space.loss, AnswerLoss)
        with space.installed(values):
            scores.append(space.loss.score(on).nats)
    assert torch.equal(*scores)
    assert recorded() == before


def test_dropout_is_refused() -> None:
    model = tiny_model("llama")
    settings = LoraSettings(lora_dropout=0.1)
    layers = CompiledLayers({}, scale=1.0)
    with pytest.raises(ValueError, match="dropout"):
        LoraSpace(model, AnswerLoss(model, compiled=layers), settings, seed=0, compiled=layers)
