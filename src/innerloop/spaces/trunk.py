"""The part of a model below the lowest trained layer: run once for each example, then looked up.

Legend: N = rows (tasks x examples), S = tokens, D = width of the model.

with_layers   a model that shares every weight with another but runs other callables as its decoder layers
Store         where hidden states of examples are kept, by a digest of their tokens
Trunk         hidden states (N, S, D) at the cut, from a store passed in; a causal model that starts there

Padding is on the right and the model is causal, so a hidden state doesn't depend on the batch it was computed in.
"""

import copy
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from innerloop.data.tasks import Batch

Forward = Callable[..., Any]


class Store(Protocol):
    """Hidden states (S, D) of one model at one cut. It copies what it keeps, and need not keep all that it is given.

    A dict will do where every batch may stay in memory.
    """

    def get(self, key: bytes, /) -> Tensor | None: ...
    def __setitem__(self, key: bytes, states: Tensor, /) -> None: ...


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

    def __init__(self, base: nn.Module, cut: int, store: Store) -> None:
        self.cut = cut
        self.store = store
        self._captured: Tensor | None = None
        layers = base.layers
        assert isinstance(layers, nn.ModuleList)
        self._lower = with_layers(base, [None] * cut + [self._capture] + [_pass_on] * (len(layers) - cut - 1))

    def hidden(self, batch: Batch) -> Tensor:
        """(N, S, D) hidden states that enter layer `cut`: from the store, or computed and offered to it.

        Each example is computed alone: in company, the last bit of its states would depend on the company, and a run
        that was stopped and went on would not end with the same numbers.
        """
        keys, lengths = list(chain.from_iterable(batch.keys)), list(chain.from_iterable(batch.lengths))
        found = {key: states for key in keys if (states := self.store.get(key)) is not None}
        missing = {key: row for row, key in enumerate(keys) if key not in found}
        for key, row in missing.items():
            found[key] = self._run(batch.tokens.flatten(0, 1)[row : row + 1, : lengths[row]])[0]
            self.store[key] = found[key]
        return _side_by_side([found[key] for key in keys], batch.tokens.shape[-1], batch.tokens.device)

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


def _side_by_side(rows: Sequence[Tensor], length: int, device: torch.device) -> Tensor:
    """(N, S, D) on the device, zeros behind each example. What is in host memory goes to a GPU in one copy."""
    apart = any(states.device != device for states in rows)
    places = [torch.device("cpu"), device] if apart else [device]
    shape, dtype = (len(rows), length, rows[0].shape[-1]), rows[0].dtype
    hidden = torch.zeros(shape, dtype=dtype, device=places[0], pin_memory=apart)
    for place in places:
        hidden = hidden.to(place, non_blocking=True)
        for row, states in enumerate(rows):
            if states.device == place:
                hidden[row, : len(states)] = states
    return hidden
