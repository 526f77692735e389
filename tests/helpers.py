"""Small builders and comparisons that the tests of the engine share.

relative_error, close    finite, and against the largest entry (max(0, nan) is 0: a plain maximum hides nan)
examples, Tasks          ragged examples with unequal label counts, from a seed
lora_space, all_space    a space over a model, with the plain options tests need
reference_model          the model that naive.py trains from the same values
untouched                a context in which a model must stay bit-identical
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.data.batches import collate
from innerloop.data.tasks import Batch, TaskBatch
from innerloop.data.token_ids import Encoded
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.all_parameters import AllParameters
from innerloop.spaces.lora import LoraSettings, LoraSpace
from innerloop.spaces.loss import AnswerLoss
from innerloop.spaces.space import ParameterSpace
from reference import naive

TOLERANCE = 1e-5
VOCABULARY = 64


def relative_error(actual: Mapping[str, Tensor] | Tensor, expected: Mapping[str, Tensor] | Tensor) -> float:
    """The largest difference of any tensor over its largest entry.

    A tensor whose entries are all below a hundredth of the set's largest is measured against that hundredth:
    float32 noise of the large ones reaches it.
    """
    if isinstance(actual, Tensor) and isinstance(expected, Tensor):
        actual, expected = {"": actual}, {"": expected}
    assert isinstance(actual, Mapping)
    assert isinstance(expected, Mapping)
    assert actual.keys() == expected.keys(), sorted(actual.keys() ^ expected.keys())
    for name in expected:
        assert actual[name].shape == expected[name].shape, (name, actual[name].shape, expected[name].shape)
        assert torch.isfinite(actual[name]).all(), f"{name} is not finite"
        assert torch.isfinite(expected[name]).all(), f"expected {name} is not finite"
    largest = {name: float(value.abs().max()) for name, value in expected.items()}
    floor = 0.01 * max(largest.values())
    assert floor > 0, "everything expected is zero: any scaled zero would pass"
    return max(
        float((actual[name] - value).abs().max()) / max(largest[name], floor) for name, value in expected.items()
    )


def close(
    actual: Mapping[str, Tensor] | Tensor,
    expected: Mapping[str, Tensor] | Tensor,
    tolerance: float = TOLERANCE,
) -> bool:
    return relative_error(actual, expected) <= tolerance


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def examples(*, tasks: int, per_task: int, seed: int = 0, longest_prompt: int = 6) -> list[list[Encoded]]:
    """T lists of examples: lengths are ragged, and no two tasks have equally many labels."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def one(t: int, b: int) -> Encoded:
        prompt, answer = number(1, longest_prompt), number(2 * t + 1, 2 * t + 2)
        tokens = torch.randint(3, VOCABULARY, (prompt + answer,), generator=generator).tolist()
        return Encoded(f"{seed}/{t}/{b}", tuple(tokens), prompt)

    return [[one(t, b) for b in range(per_task)] for t in range(tasks)]


class Tasks:
    """T tasks as lists of examples (what the reference reads) and as a TaskBatch (what the engine reads)."""

    def __init__(self, *, tasks: int = 4, support: int = 3, query: int = 2, steps: int = 2, seed: int = 0) -> None:
        self.names = tuple(f"task {t}" for t in range(tasks))
        self.support = [examples(tasks=tasks, per_task=support, seed=100 * seed + k) for k in range(steps)]
        self.query = examples(tasks=tasks, per_task=query, seed=100 * seed + 99)

    @property
    def batch(self) -> TaskBatch:
        return TaskBatch(self.names, [collate(step) for step in self.support], collate(self.query))

    def of(self, task: int) -> tuple[list[list[Encoded]], list[Encoded]]:
        """The support examples of each inner step, and the query examples."""
        return [step[task] for step in self.support], self.query[task]

    @property
    def each(self) -> list[tuple[list[list[Encoded]], list[Encoded]]]:
        return [self.of(task) for task in range(len(self.names))]


def permuted(tasks: TaskBatch, order: list[int]) -> TaskBatch:
    """The same tasks in another order."""
    pick = {id(batch): _permuted(batch, order) for batch in tasks.support}
    return TaskBatch(
        tuple(tasks.names[t] for t in order),
        [pick[id(batch)] for batch in tasks.support],
        tasks.query and _permuted(tasks.query, order),
    )


def _permuted(batch: Batch, order: list[int]) -> Batch:
    again = collate([batch.examples[t] for t in order])
    return replace(
        again,
        mask_seeds=batch.mask_seeds and tuple(batch.mask_seeds[t] for t in order),
    )


def randomize_b(values: TensorSet, *, seed: int = 1, scale: float = 0.2) -> None:
    """Random B, in place: at B = 0 the gradient of every A is zero and a test of it would show nothing."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in values.items():
        if name.endswith("lora_B"):
            value.copy_(scale * torch.randn(value.shape, generator=generator))


def lora_space(model: nn.Module, *, seed: int = 0, loss: dict[str, Any] | None = None, **settings: Any) -> LoraSpace:
    """LoRA of rank 3 with a random B. `loss`: options of AnswerLoss; `settings`: of LoraSettings."""
    chosen = LoraSettings(**{"r": 3, "lora_alpha": 6.0} | settings)
    space = LoraSpace(model, AnswerLoss(model, **(loss or {})), chosen, seed=seed)
    randomize_b(space.shared)
    return space


def all_space(model: nn.Module, **loss: Any) -> AllParameters:
    return AllParameters(model, AnswerLoss(model, **loss))


def reference_model(space: ParameterSpace, values: Mapping[str, Tensor]) -> nn.Module:
    """What naive.py trains: a copy of the model with `values` (...), or a PEFT model that holds them."""
    if isinstance(space, LoraSpace):
        return naive.with_lora(space.model, values, space.settings)
    model = deepcopy(space.model).requires_grad_(True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    return model


def own_names(values: Mapping[str, Tensor]) -> TensorSet:
    """PEFT's names of LoRA's matrices become ours; any other name stays."""
    return {naive.own_name(name): value.detach() for name, value in values.items()}


def perturbed(values: TensorSet, tasks: int, *, seed: int = 5, scale: float = 0.1) -> TensorSet:
    """(T, ...): other values for every task."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + scale * value.std() * torch.randn(value.shape, generator=generator)
        for name, value in per_task(values, tasks).items()
    }


def of_task(values: Mapping[str, Tensor], task: int) -> TensorSet:
    """One task's slice, its axis kept: (1, ...)."""
    return {name: value[task : task + 1] for name, value in values.items()}


def frozen_copy(values: Mapping[str, Tensor]) -> TensorSet:
    return {name: value.detach().clone() for name, value in values.items()}


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Fails where the body left a trace: a value, a hook, a gradient, a flag, another storage."""
    before = _traces(model)
    yield
    after = _traces(model)
    assert before.keys() == after.keys()
    for name, trace in before.items():
        assert torch.equal(trace[0], after[name][0]), f"{name} changed"
        assert trace[1:] == after[name][1:], f"{name}: {trace[1:]} became {after[name][1:]}"
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(_hooks(module) for module in model.modules())


def _traces(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: (t.detach().clone(), t.requires_grad, t.data_ptr(), t.dtype) for name, t in tensors}


def _hooks(module: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    parameters = [len(p._post_accumulate_grad_hooks or ()) for p in module.parameters(recurse=False)]
    return sum(len(getattr(module, kind)) for kind in kinds) + sum(parameters)
