"""The part of a model below the lowest trained layer: run once for each example, then looked up.

Legend: N = rows (tasks x examples), S = tokens, D = width of the model.

with_layers   a model that shares every weight with another but runs other callables as its decoder layers
Trunk         hidden states (N, S, D) at the cut, from a store passed in; a causal model that starts there

Padding is on the right and the model is causal, so a hidden state doesn't depend on the batch it was computed in.
"""

import copy
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from innerloop.data.tasks import Batch

Forward = Callable[..., Any]


def with_layers(base: nn.Module, forwards: Sequence[Forward | None]) -> nn.Module:
    """A shallow copy of `base` whose i-th decoder layer computes forwards[i]; None keeps the layer's own.

    Everything else a family's forward does (embedding, positions, masks, last norm) stays the family's own code,
    and `base` is left as it was.
    """
    layers = base.layers
    assert isinstance(layers, nn.ModuleList)
    assert len(layers) == len(forwards)
    replaced: list[nn.Module] = []
    for layer, forward in zip(layers, forwards, strict=True):
        twin = layer
        if forward is not None:
            twin = copy.copy(layer)  # keeps the attributes that a family's loop reads from its layers
            twin.forward = forward
        replaced.append(twin)
    twin_base = copy.copy(base)
    twin_base.__dict__["_modules"] = {**base._modules, "layers": nn.ModuleList(replaced)}  # pyright: ignore[reportPrivateUsage]
    return twin_base


class Trunk:
    """Decoder layers 0..cut-1 of a model that never change during a run."""

    def __init__(self, base: nn.Module, cut: int, store: MutableMapping[str, Tensor]) -> None:
        self.cut = cut
        self.store = store
        self._captured: Tensor | None = None
        layers = base.layers
        assert isinstance(layers, nn.ModuleList)
        self._lower = with_layers(base, [None] * cut + [self._capture] + [_pass_on] * (len(layers) - cut - 1))

    def hidden(self, batch: Batch) -> Tensor:
        """(N, S, D) hidden states that enter layer `cut`, from the store; what is missing is computed and stored."""
        ids = [example_id for task in batch.example_ids for example_id in task]
        tokens_NS = batch.tokens.flatten(0, 1)
        lengths = [length for task in batch.lengths for length in task]
        missing = {example_id: row for row, example_id in enumerate(ids) if example_id not in self.store}
        if missing:
            computed = self._run(tokens_NS[list(missing.values())])
            kept = [states[: lengths[row]].clone() for states, row in zip(computed, missing.values(), strict=True)]
            self.store.update(zip(missing, kept, strict=True))
        first = self.store[ids[0]]
        hidden = torch.zeros(*tokens_NS.shape, first.shape[-1], dtype=first.dtype, device=tokens_NS.device)
        for row, example_id in enumerate(ids):
            hidden[row, : lengths[row]] = self.store[example_id]
        return hidden

    @torch.no_grad()
    def _run(self, tokens_NS: Tensor) -> Tensor:
        self._lower(input_ids=tokens_NS, use_cache=False)
        captured, self._captured = self._captured, None
        assert captured is not None
        return captured

    def _capture(self, hidden_NSD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._captured = hidden_NSD
        return hidden_NSD


def _pass_on(hidden_NSD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_NSD
