from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from helpers import close
from innerloop.numerics.loss import CHUNK_ROWS, Head, plain_cross_entropy, score_rows, task_cross_entropy

SIZES = [12, 1, 2 * CHUNK_ROWS + 37]
SOFTCAP = 1.5  # below most logits here, so that the cap matters
LOSSES = (plain_cross_entropy, task_cross_entropy)


def case(rows: int, *, tasks: int, softcap: float | None, bias: bool = True) -> tuple[Tensor, Head, Tensor, Tensor]:
    """Hidden states, head, targets and the task of each row; every task has another number of rows."""
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 6, generator=generator)
    head = Head(torch.randn(9, 6, generator=generator), torch.randn(9, generator=generator) if bias else None, softcap)
    targets = torch.randint(9, (rows,), generator=generator)
    task = torch.cat([torch.arange(tasks), torch.randint(tasks, (rows,), generator=generator) // 2])[:rows]
    return hidden, head, targets, task.sort().values


def values_and_gradients(
    loss: Callable[..., Tensor], *, tasks: int, trained_head: bool, **settings: Any
) -> list[Tensor]:
    """Losses, then d hidden (and d weight, d bias) of a sum that weighs each task differently."""
    hidden, head, targets, task = case(tasks=tasks, **settings)
    inputs = [hidden] + ([x for x in (head.weight, head.bias) if x is not None] if trained_head else [])
    for x in inputs:
        x.requires_grad_()
    losses = loss(hidden, head, targets, task, tasks)
    weights = torch.arange(1.0, tasks + 1)
    return [losses.detach(), *torch.autograd.grad((losses * weights).sum(), inputs)]


@pytest.mark.parametrize("softcap", [None, SOFTCAP])
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize(("tasks", "trained_head", "bias"), [(1, True, True), (1, True, False), (5, False, True)])
def test_the_chunked_loss_is_the_plain_one(
    rows: int, softcap: float | None, tasks: int, trained_head: bool, bias: bool
) -> None:
    settings = {"rows": max(rows, tasks), "tasks": tasks, "softcap": softcap, "bias": bias}
    plain, chunked = (values_and_gradients(loss, trained_head=trained_head, **settings) for loss in LOSSES)
    assert len(plain) == (2 if not trained_head else 3 + bias)
    for left, right in zip(chunked, plain, strict=True):
        assert close(left, right)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_task_has_the_mean_of_its_own_rows(loss: Callable[..., Tensor]) -> None:
    hidden, head, targets, task = case(40, tasks=3, softcap=None)
    losses = loss(hidden, head, targets, task, 3)
    assert len(set(torch.bincount(task).tolist())) > 1
    for t in range(3):
        logits = hidden[task == t] @ head.weight.T + head.bias
        assert torch.allclose(losses[t], cross_entropy(logits, targets[task == t]), rtol=1e-5)
    over_all_rows = cross_entropy(hidden @ head.weight.T + head.bias, targets)
    assert not torch.allclose(losses.mean(), over_all_rows, rtol=1e-3), "the mean over tasks isn't the mean over rows"


def test_the_soft_cap_changes_the_loss() -> None:
    settings = {"rows": 12, "tasks": 1, "trained_head": True}
    capped, free = (values_and_gradients(task_cross_entropy, softcap=cap, **settings) for cap in (SOFTCAP, None))
    assert not any(close(left, right, 1e-2) for left, right in zip(capped, free, strict=True))


def test_a_second_derivative_is_refused_by_the_chunked_loss_alone() -> None:
    """Also where the network below could give *a* second derivative: it would lack the loss's own part."""
    features, head, targets, task = case(12, tasks=2, softcap=None)
    weight = torch.eye(6).requires_grad_()

    def gradient(loss: Callable[..., Tensor], *, create_graph: bool) -> Tensor:
        losses = loss(torch.tanh(features @ weight), head, targets, task, 2)
        return torch.autograd.grad(losses.sum(), weight, create_graph=create_graph)[0]

    with pytest.raises(RuntimeError, match="once differentiable"):
        gradient(task_cross_entropy, create_graph=True)
    plain = gradient(plain_cross_entropy, create_graph=True)
    assert torch.autograd.grad(plain.square().sum(), weight)[0].abs().max() > 0
    assert close(gradient(task_cross_entropy, create_graph=False), plain.detach())


def test_a_trained_head_with_several_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="one task a forward"):
        values_and_gradients(task_cross_entropy, rows=12, tasks=2, softcap=None, trained_head=True)


def test_bfloat16_is_reduced_in_float32() -> None:
    hidden, head, targets, task = case(CHUNK_ROWS + 5, tasks=2, softcap=None)
    hidden, weight = hidden.bfloat16().requires_grad_(), head.weight.bfloat16()
    losses = task_cross_entropy(hidden, Head(weight), targets, task, 2)
    (gradient,) = torch.autograd.grad(losses.sum(), hidden)
    assert losses.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    exact = hidden.detach().float().requires_grad_()
    expected = plain_cross_entropy(exact, Head(weight.float()), targets, task, 2)
    assert close(losses.detach(), expected.detach(), 1e-2)
    assert close(gradient.float(), torch.autograd.grad(expected.sum(), exact)[0], 2e-2)


@pytest.mark.parametrize("softcap", [None, SOFTCAP])
def test_scores_are_each_rows_nats_and_whether_it_is_greedy(softcap: float | None) -> None:
    hidden, head, targets, _ = case(CHUNK_ROWS + 50, tasks=1, softcap=softcap)
    logits = head.logits(hidden)
    targets[::2] = logits.argmax(-1)[::2]
    nats, greedy = score_rows(hidden, head, targets)
    assert close(nats, -logits.log_softmax(-1)[torch.arange(len(targets)), targets])
    assert greedy[::2].all()
    assert torch.equal(greedy, logits.argmax(-1) == targets)
    assert not greedy.all()
