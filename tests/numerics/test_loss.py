from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from helpers import close
from innerloop.numerics.loss import CHUNK_ROWS, Head, plain_cross_entropy, score_rows, task_cross_entropy
from numerics.live_bytes import LiveBytes, peak_bytes

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
    with pytest.raises(ValueError, match="one task per forward pass"):
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


@pytest.mark.parametrize("softcap", [None, SOFTCAP])
def test_the_chunks_size_changes_nothing(softcap: float | None) -> None:
    def with_chunks(rows: int) -> list[Tensor]:
        hidden, head, targets, task = case(40, tasks=1, softcap=softcap)
        inputs = [x.requires_grad_() for x in (hidden, head.weight, head.bias) if x is not None]
        loss = task_cross_entropy(hidden, head, targets, task, 1, chunk_rows=rows)
        nats, greedy = score_rows(hidden, head, targets, chunk_rows=rows)
        return [loss.detach(), *torch.autograd.grad(loss.sum(), inputs), nats, greedy.float()]

    whole = with_chunks(40)
    for rows in (1, 7, 39, 1000):
        for left, right in zip(with_chunks(rows), whole, strict=True):
            assert close(left, right, 1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_large_and_small_logits_are_as_exact_as_torchs(scale: float) -> None:
    """Against float64; at 1e4 the target's probability is zero in float32, its nats are not."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(64, 5, generator=generator) * scale, torch.randn(300, 5, generator=generator)
    targets, task = torch.randint(300, (64,), generator=generator), torch.zeros(64, dtype=torch.long)
    targets[:8] = (hidden @ weight.T)[:8].argmax(-1)  # some are all but certain
    found: list[list[Tensor]] = []
    for loss, dtype in ((task_cross_entropy, torch.float32), (plain_cross_entropy, torch.float64)):
        leaf = hidden.to(dtype, copy=True).requires_grad_()
        value = loss(leaf, Head(weight.to(dtype)), targets, task, 1)
        found.append([value.detach(), *torch.autograd.grad(value.sum(), leaf)])
    for ours, exact in zip(*found, strict=True):
        assert close(ours.double(), exact, 1e-6 * max(1.0, scale / 10))
    nats, _ = score_rows(hidden, Head(weight), targets)
    assert close(nats.double(), cross_entropy(hidden.double() @ weight.double().T, targets, reduction="none"), 1e-6)


def test_a_second_backward_raises_and_gives_no_wrong_numbers() -> None:
    hidden, head, targets, task = case(12, tasks=1, softcap=None)
    for leaf in (hidden, head.weight):
        leaf.requires_grad_()
        losses = task_cross_entropy(hidden, head, targets, task, 1)
        torch.autograd.grad(3 * losses.sum(), leaf, retain_graph=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(3 * losses.sum(), leaf)


def test_the_backward_makes_no_second_gradient_of_the_head() -> None:
    hidden, head, targets, task = case(40, tasks=1, softcap=None)
    leaves = [x.requires_grad_() for x in (hidden, head.weight, head.bias) if x is not None]
    loss = 3 * task_cross_entropy(hidden, head, targets, task, 1).sum()
    with LiveBytes() as live:
        loss.backward()
    assert live.peak < min(leaf.nbytes for leaf in leaves[:2])
    plain = case(40, tasks=1, softcap=None)
    expected = [x.requires_grad_() for x in (plain[0], plain[1].weight, plain[1].bias) if x is not None]
    (3 * plain_cross_entropy(*plain, 1).sum()).backward()
    assert all(close(a.grad, b.grad) for a, b in zip(leaves, expected, strict=True))


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize(
    ("dtype", "softcap", "bytes_a_logit"),
    [(torch.float32, None, 4), (torch.float32, 30.0, 8), (torch.bfloat16, None, 6), (torch.bfloat16, 30.0, 8)],
)
def test_one_chunk_of_logits_is_all_that_exists(
    dtype: torch.dtype, softcap: float | None, bytes_a_logit: int, trained_head: bool
) -> None:
    """Four chunks, float32 or a bfloat16 model's logits and their float32; the gradients besides."""
    rows, chunk, width, vocabulary = 400, 100, 64, 30_000

    def prepare() -> Callable[[], Any]:
        hidden = torch.zeros(rows, width, dtype=dtype).requires_grad_()
        head = Head(torch.zeros(vocabulary, width, dtype=dtype).requires_grad_(trained_head), None, softcap)
        index = torch.zeros(rows, dtype=torch.long)
        return lambda: task_cross_entropy(hidden, head, index, index, 1, chunk_rows=chunk).sum().backward()

    gradients = dtype.itemsize * width * (rows + vocabulary * trained_head)
    assert peak_bytes(prepare) == pytest.approx(chunk * vocabulary * bytes_a_logit + gradients, rel=0.01)


@pytest.mark.parametrize(("dtype", "softcap"), [(torch.float32, None), (torch.float32, 30.0), (torch.bfloat16, None)])
def test_scoring_takes_one_chunk_of_logits(dtype: torch.dtype, softcap: float | None) -> None:
    def prepare() -> Callable[[], Any]:
        hidden, weight = torch.zeros(400, 64, dtype=dtype), torch.zeros(30_000, 64, dtype=dtype)
        targets = torch.zeros(400, dtype=torch.long)
        return lambda: score_rows(hidden, Head(weight, None, softcap), targets, chunk_rows=100)

    assert peak_bytes(prepare) == pytest.approx(100 * 30_000 * {4: 4, 2: 6}[dtype.itemsize], rel=0.01)
