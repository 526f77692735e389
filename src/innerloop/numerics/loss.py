"""Answer-token cross-entropy, one mean per task, projected on scored rows only, in chunks.

Legend: T = tasks, R = scored rows, D = width of the model, V = vocabulary, C = rows of a chunk.

Head                  the output projection: weight (V, D), bias (V,) or None, soft cap or None
task_cross_entropy    (T,) mean nats per scored token; gradients computed in the forward, once differentiable
plain_cross_entropy   the same numbers from torch's own operators: any number of derivatives, all logits at once
score_rows            (R,) nats and whether the greedy token is the target

A full (R, V) block of logits is the largest tensor of a training step. With the gradient taken chunk by chunk
in the forward pass, no more than (C, V) of it exists at any time: one float32 buffer in which logits become
probabilities and then the gradient, with one more for a soft cap's slope, and for a model of 16 bits its own logits
before, or its own gradient after.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

CHUNK_ROWS = 1024


class Head(NamedTuple):
    """logits = cap(hidden W^T + b), cap(z) = softcap * tanh(z / softcap) where the model has one (Gemma 2)."""

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None

    def logits(self, hidden_RD: Tensor) -> Tensor:
        """(R, V), in float32 at least."""
        raw = self.uncapped(hidden_RD)
        return raw if self.softcap is None else self.softcap * torch.tanh(raw / self.softcap)

    def uncapped(self, hidden_RD: Tensor) -> Tensor:
        """(R, V), in float32 at least: a new tensor."""
        raw = F.linear(hidden_RD, self.weight, self.bias)
        return raw.to(torch.promote_types(raw.dtype, torch.float32))


def plain_cross_entropy(hidden_RD: Tensor, head: Head, targets_R: Tensor, task_R: Tensor, tasks: int) -> Tensor:
    """(T,) mean cross-entropy of each task's rows; every derivative exists."""
    nats = F.cross_entropy(head.logits(hidden_RD), targets_R, reduction="none")
    return _mean_per_task(nats, task_R, tasks)


def task_cross_entropy(
    hidden_RD: Tensor, head: Head, targets_R: Tensor, task_R: Tensor, tasks: int, *, chunk_rows: int = CHUNK_ROWS
) -> Tensor:
    """The numbers of plain_cross_entropy with (C, V) logits at a time, C = chunk_rows.

    Raises RuntimeError under create_graph (use plain_cross_entropy there), and at a second backward: the first
    scales the gradients in place, so that no second (V, D) exists.
    """
    arguments = (hidden_RD, head.weight, head.bias, head.softcap, targets_R, task_R, tasks, chunk_rows)
    return cast(Tensor, _ChunkedCrossEntropy.apply(*arguments))  # pyright: ignore[reportUnknownMemberType]


@torch.no_grad()
def score_rows(
    hidden_RD: Tensor, head: Head, targets_R: Tensor, *, chunk_rows: int = CHUNK_ROWS
) -> tuple[Tensor, Tensor]:
    """Nats of each target, and whether it is the most likely token: (R,) float32 and (R,) bool."""
    nats = torch.empty(len(targets_R), device=hidden_RD.device)
    greedy = torch.empty(len(targets_R), dtype=torch.bool, device=hidden_RD.device)
    for rows in _chunks(len(targets_R), chunk_rows):
        nats[rows], greedy[rows] = _scores(hidden_RD[rows], head, targets_R[rows])
    return nats, greedy


class _Gradients(NamedTuple):
    """(R, D), (V, D) and (V,): what each chunk adds its part to; None where nobody asks."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


class _ChunkedCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_RD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        softcap: float | None,
        targets_R: Tensor,
        task_R: Tensor,
        tasks: int,
        chunk_rows: int,
    ) -> Tensor:
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        if (wants_weight or wants_bias) and tasks != 1:
            raise ValueError("a trained head needs one task per forward pass: its gradient would mix the tasks")
        head = Head(weight_VD, bias_V, softcap)
        nats_R = hidden_RD.new_empty(len(targets_R), dtype=torch.promote_types(hidden_RD.dtype, torch.float32))
        into = _Gradients(
            torch.empty_like(hidden_RD) if wants_hidden else None,
            torch.zeros_like(weight_VD) if wants_weight else None,
            torch.zeros_like(bias_V) if wants_bias and bias_V is not None else None,
        )
        share_R = (1.0 / _count_per_task(task_R, tasks))[task_R]  # a row's part in its task's mean
        for rows in _chunks(len(targets_R), chunk_rows):
            nats_R[rows] = _chunk(hidden_RD, head, targets_R, share_R, rows, into)
        ctx.save_for_backward(*into, task_R)
        return _mean_per_task(nats_R, task_R, tasks)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        # torch's once_differentiable lets a graph pass whose incoming gradient is a constant, as that of a
        # sum is: the second derivative would then silently lack the loss's own part.
        if torch.is_grad_enabled():
            raise RuntimeError("task_cross_entropy is once differentiable: use plain_cross_entropy for create_graph")
        (grad_T,) = grad_outputs
        # In place: torch counts the changes of what it has saved, and refuses to hand it out a second time.
        d_hidden, d_weight, d_bias, task_R = ctx.saved_tensors
        if d_hidden is not None:
            d_hidden.mul_(grad_T[task_R].unsqueeze(1).to(d_hidden.dtype))
        for d_head in (d_weight, d_bias):
            if d_head is not None:
                d_head.mul_(grad_T.to(d_head.dtype))
        return d_hidden, d_weight, d_bias, None, None, None, None, None


def _chunk(hidden_RD: Tensor, head: Head, targets_R: Tensor, share_R: Tensor, rows: slice, into: _Gradients) -> Tensor:
    """(C,) nats of one chunk of rows, its gradient added; all (C, V) tensors are gone at the end."""
    hidden_CD, targets_C = hidden_RD[rows], targets_R[rows]
    logits_CV = head.uncapped(hidden_CD)
    wanted = any(gradient is not None for gradient in into)
    slope_CV = _cap_(logits_CV, head.softcap, slope=wanted)
    nats_C = _nats_(logits_CV, targets_C)
    if not wanted:
        return nats_C
    logits_CV[torch.arange(len(targets_C), device=targets_C.device), targets_C] -= 1
    logits_CV *= share_R[rows].unsqueeze(1)
    if slope_CV is not None:
        logits_CV *= slope_CV
    del slope_CV
    d_CV = logits_CV.to(hidden_CD.dtype)
    del logits_CV
    if into.hidden is not None:
        torch.mm(d_CV, head.weight, out=into.hidden[rows])
    if into.weight is not None:
        into.weight.addmm_(d_CV.T, hidden_CD)
    if into.bias is not None:
        into.bias.add_(d_CV.sum(0))
    return nats_C


def _scores(hidden_CD: Tensor, head: Head, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """(C,) nats and (C,) whether greedy; all (C, V) tensors are gone at the end."""
    logits_CV = head.uncapped(hidden_CD)
    _cap_(logits_CV, head.softcap, slope=False)
    greedy_C = logits_CV.argmax(-1) == targets_C
    return _nats_(logits_CV, targets_C), greedy_C


def _cap_(logits_CV: Tensor, softcap: float | None, *, slope: bool) -> Tensor | None:
    """Cap the logits in place; (C, V) d capped / d raw where it is asked for and not 1."""
    if softcap is None:
        return None
    logits_CV.div_(softcap).tanh_()
    slope_CV = logits_CV.square().neg_().add_(1) if slope else None
    logits_CV.mul_(softcap)
    return slope_CV


def _nats_(logits_CV: Tensor, targets_C: Tensor) -> Tensor:
    """(C,) -log p of each target; overwrites the logits with the probabilities p."""
    # log sum exp = the largest logit - log of its probability. cross_entropy would take another (C, V) tensor, and
    # exp, sum and division in place of softmax 1.5 times as long.
    target_C = logits_CV.gather(1, targets_C.unsqueeze(1)).squeeze(1)
    largest_C = logits_CV.amax(-1)
    torch.softmax(logits_CV, -1, out=logits_CV)
    return largest_C - target_C - logits_CV.amax(-1).log()


def _count_per_task(task_R: Tensor, tasks: int) -> Tensor:
    return torch.zeros(tasks, device=task_R.device).index_add_(0, task_R, torch.ones_like(task_R, dtype=torch.float32))


def _mean_per_task(nats_R: Tensor, task_R: Tensor, tasks: int) -> Tensor:
    total = torch.zeros(tasks, dtype=nats_R.dtype, device=nats_R.device).index_add(0, task_R, nats_R)
    return total / _count_per_task(task_R, tasks).to(nats_R.dtype)


def _chunks(rows: int, size: int) -> list[slice]:
    return [slice(first, first + size) for first in range(0, rows, size)]
