"""Answer-token cross-entropy, one mean a task, projected on scored rows only, in chunks.

Legend: T = tasks, R = scored rows, D = width of the model, V = vocabulary, C = rows of a chunk.

Head                  the output projection: weight (V, D), bias (V,) or None, soft cap or None
task_cross_entropy    (T,) mean nats a scored token; gradients computed in the forward, once differentiable
plain_cross_entropy   the same numbers from torch's own operators: any number of derivatives, all logits at once
score_rows            (R,) nats and whether the greedy token is the target

A full (R, V) block of logits is the largest tensor of a training step. With the gradient taken chunk by chunk
in the forward pass, no more than (C, V) of it exists at any time.
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
        raw = F.linear(hidden_RD, self.weight, self.bias)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        return raw if self.softcap is None else self.softcap * torch.tanh(raw / self.softcap)


def plain_cross_entropy(hidden_RD: Tensor, head: Head, targets_R: Tensor, task_R: Tensor, tasks: int) -> Tensor:
    """(T,) mean cross-entropy of each task's rows; every derivative exists."""
    nats = F.cross_entropy(head.logits(hidden_RD), targets_R, reduction="none")
    return _mean_per_task(nats, task_R, tasks)


def task_cross_entropy(hidden_RD: Tensor, head: Head, targets_R: Tensor, task_R: Tensor, tasks: int) -> Tensor:
    """The numbers of plain_cross_entropy with (C, V) logits at a time.

    Raises RuntimeError under create_graph: use plain_cross_entropy there.
    """
    arguments = (hidden_RD, head.weight, head.bias, head.softcap, targets_R, task_R, tasks)
    return cast(Tensor, _ChunkedCrossEntropy.apply(*arguments))  # pyright: ignore[reportUnknownMemberType]


@torch.no_grad()
def score_rows(hidden_RD: Tensor, head: Head, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of each target, and whether it is the most likely token: (R,) float32 and (R,) bool."""
    nats = torch.empty(len(targets_R), device=hidden_RD.device)
    greedy = torch.empty(len(targets_R), dtype=torch.bool, device=hidden_RD.device)
    for rows in _chunks(len(targets_R)):
        logits = head.logits(hidden_RD[rows])
        nats[rows] = F.cross_entropy(logits, targets_R[rows], reduction="none")
        greedy[rows] = logits.argmax(-1) == targets_R[rows]
    return nats, greedy


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
    ) -> Tensor:
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        if (wants_weight or wants_bias) and tasks != 1:
            raise ValueError("a trained head needs one task a forward: its gradient would mix the tasks")
        head = Head(weight_VD, bias_V, softcap)
        nats_R = hidden_RD.new_empty(len(targets_R), dtype=torch.promote_types(hidden_RD.dtype, torch.float32))
        d_hidden = torch.empty_like(hidden_RD) if wants_hidden else None
        d_weight = torch.zeros_like(weight_VD) if wants_weight else None
        d_bias = torch.zeros_like(bias_V) if wants_bias and bias_V is not None else None
        share_R = (1.0 / _count_per_task(task_R, tasks))[task_R]  # a row's part in its task's mean
        for rows in _chunks(len(targets_R)):
            logits_CV = head.logits(hidden_RD[rows])
            nats_R[rows] = F.cross_entropy(logits_CV, targets_R[rows], reduction="none")
            if not (wants_hidden or wants_weight or wants_bias):
                continue
            d_CV = _logit_gradient(logits_CV, targets_R[rows], share_R[rows], softcap).to(hidden_RD.dtype)
            if d_hidden is not None:
                torch.mm(d_CV, weight_VD, out=d_hidden[rows])
            if d_weight is not None:
                d_weight.addmm_(d_CV.T, hidden_RD[rows])
            if d_bias is not None:
                d_bias.add_(d_CV.sum(0))
        ctx.save_for_backward(d_hidden, d_weight, d_bias, task_R)
        return _mean_per_task(nats_R, task_R, tasks)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        # torch's once_differentiable lets a graph pass whose incoming gradient is a constant, as that of a
        # sum is: the second derivative would then silently lack the loss's own part.
        if torch.is_grad_enabled():
            raise RuntimeError("task_cross_entropy is once differentiable: use plain_cross_entropy for create_graph")
        (grad_T,) = grad_outputs
        d_hidden, d_weight, d_bias, task_R = ctx.saved_tensors
        if d_hidden is not None:
            d_hidden = d_hidden * grad_T[task_R].unsqueeze(1).to(d_hidden.dtype)
        if d_weight is not None:
            d_weight = d_weight * grad_T.to(d_weight.dtype)
        if d_bias is not None:
            d_bias = d_bias * grad_T.to(d_bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None


def _logit_gradient(logits_CV: Tensor, targets_C: Tensor, share_C: Tensor, softcap: float | None) -> Tensor:
    """d loss / d raw logits, (C, V); overwrites the logits."""
    slope = None if softcap is None else 1 - (logits_CV / softcap) ** 2
    d_CV = torch.softmax(logits_CV, -1, out=logits_CV)
    d_CV[torch.arange(len(targets_C), device=d_CV.device), targets_C] -= 1
    d_CV *= share_C.unsqueeze(1)
    return d_CV if slope is None else d_CV.mul_(slope)


def _count_per_task(task_R: Tensor, tasks: int) -> Tensor:
    return torch.zeros(tasks, device=task_R.device).index_add_(0, task_R, torch.ones_like(task_R, dtype=torch.float32))


def _mean_per_task(nats_R: Tensor, task_R: Tensor, tasks: int) -> Tensor:
    total = torch.zeros(tasks, dtype=nats_R.dtype, device=nats_R.device).index_add(0, task_R, nats_R)
    return total / _count_per_task(task_R, tasks).to(nats_R.dtype)


def _chunks(rows: int) -> list[slice]:
    return [slice(first, first + CHUNK_ROWS) for first in range(0, rows, CHUNK_ROWS)]
