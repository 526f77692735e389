"""Decoder layers as compiled functions that take a task's LoRA as arguments.

Legend: T = tasks, B = rows a task, N = T*B rows, S = tokens, D = width of the model, M = tokens a task.

CompiledLayers   a layer -> one that runs compiled while values are held, and is the layer itself otherwise

torch.compile records a function again where something that it was recorded with has changed: a hook, or a tensor's
size. Hooks come and go with every call of a space, so the targets' LoRA is reached another way: each layer gets a
twin that shares every weight, whose targets read A and B from a slot. Slots are filled inside the compiled function,
from its arguments. Layers of a kind share one recording, and T, B and S are free in it; each kind has a function of
its own, so that a limit on recordings counts those of that kind alone. `fullgraph` makes what can't be recorded, or
would be recorded again and again, an error: nothing runs uncompiled in silence. Where examples are packed, their
packing has to be even.
"""

import copy
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from innerloop.data.packing import Packing
from innerloop.spaces.trunk import Forward

_Pair = tuple[Tensor, Tensor]


class _Slot:
    """What a target adds: scale * B A x. rows: (T, B) of the hidden states that are coming."""

    def __init__(self, name: str, scale: float) -> None:
        self.name, self.scale = name, scale
        self.pair: _Pair | None = None
        self.rows: tuple[int, int] = (1, 1)


class _Target(nn.Linear):
    """A linear module with the LoRA of its slot; shares the parameters of the one it was copied from."""

    slot: _Slot

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        assert self.slot.pair is not None
        A_TRI, B_TOR = self.slot.pair
        output = nn.functional.linear(input, self.weight, self.bias)
        x_TMI, y_TMO = (_split(part, self.slot.rows).flatten(1, 2) for part in (input, output))
        low_TMR = torch.bmm(x_TMI, A_TRI.mT.to(x_TMI.dtype))
        return torch.baddbmm(y_TMO, low_TMR, B_TOR.mT.to(x_TMI.dtype), alpha=self.slot.scale).view_as(output)


class CompiledLayers:
    """For the LoRA of `targets` (path -> module); any number of losses over the same model may share it."""

    def __init__(self, targets: Mapping[str, nn.Linear], *, scale: float, backend: str = "inductor") -> None:
        self.scale, self.backend = scale, backend
        self._names = {id(module): name for name, module in targets.items()}
        self._values: Mapping[str, Tensor] | None = None
        self._kinds: dict[tuple[bool, ...], Callable[..., Any]] = {}

    @property
    def recordings(self) -> tuple[tuple[bool, ...], ...]:
        """The kinds that have run."""
        return tuple(self._kinds)

    @contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Generator[None]:
        """Layers run compiled, with these values (T, ...), in the forward and in a recomputation."""
        self._values = values
        try:
            yield
        finally:
            self._values = None

    def layer(self, layer: nn.Module) -> Forward:
        """What is called in the layer's place."""
        slots: list[_Slot] = []
        twin = self._twin(layer, slots)

        def forward(hidden_NSD: Tensor, *args: Any, packing: Packing | None = None, **kwargs: Any) -> Any:
            keywords = kwargs if packing is None else {**kwargs, "packing": packing}
            values = self._values
            if values is None:
                return layer.forward(hidden_NSD, *args, **keywords)
            pairs = [(values[f"{slot.name}.lora_A"], values[f"{slot.name}.lora_B"]) for slot in slots]
            tasks = len(next(iter(values.values())))
            hidden_TBSD = _split(hidden_NSD, (tasks, -1))
            _free_sizes(hidden_TBSD, pairs, packing, (args, kwargs))
            run = self._kind(hidden_TBSD, packing)
            return run(twin, slots, pairs, hidden_TBSD, args, keywords)

        return forward

    def _kind(self, hidden_TBSD: Tensor, packing: Packing | None) -> Callable[..., Any]:
        """A size of 1 is recorded as such, and a lowest layer's input takes no gradient."""
        kind = (packing is None, hidden_TBSD.requires_grad, *(size == 1 for size in hidden_TBSD.shape[:3]))
        if kind not in self._kinds:
            own = FunctionType(_run.__code__.replace(), _run.__globals__)  # recordings belong to a code object
            compiled = cast(Any, torch.compile)(own, fullgraph=True, backend=self.backend)
            self._kinds[kind] = cast(Callable[..., Any], compiled)
        return self._kinds[kind]

    def _twin(self, module: nn.Module, slots: list[_Slot]) -> nn.Module:
        if (name := self._names.get(id(module))) is not None:
            slots.append(_Slot(name, self.scale))
            target = copy.copy(module)
            target.__class__ = _Target
            target.__dict__["slot"] = slots[-1]
            return target
        if not any(id(part) in self._names for part in module.modules()):
            return module
        twin = copy.copy(module)
        twin.__dict__["_modules"] = {
            name: child if child is None else self._twin(child, slots)
            for name, child in module._modules.items()  # pyright: ignore[reportPrivateUsage]
        }
        return twin


def _run(
    layer: nn.Module,
    slots: list[_Slot],
    pairs: list[_Pair],
    hidden_TBSD: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """What is compiled. Tensors found on a module would be recorded with their sizes: all that vary are arguments."""
    for slot, pair in zip(slots, pairs, strict=True):
        slot.pair, slot.rows = pair, (hidden_TBSD.shape[0], hidden_TBSD.shape[1])
    out = layer.forward(hidden_TBSD.flatten(0, 1), *args, **kwargs)
    for slot in slots:
        slot.pair = None
    return out


def _free_sizes(hidden_TBSD: Tensor, pairs: list[_Pair], packing: Packing | None, rest: Any) -> None:
    """Says which sizes are to stay free: those of tasks, rows and tokens. A mark too many or too few is a recording."""
    _mark(hidden_TBSD, 0, 1, 2)
    for pair in pairs:
        for value in pair:
            _mark(value, 0)
    for leaf in tree_leaves(rest):
        if isinstance(leaf, Tensor):  # angles of positions (N, S, C), positions (N, S), masks (N, 1, S, S)
            _mark(leaf, *range(2 if leaf.ndim == 3 else leaf.ndim))
    if packing is not None:
        for tensor in packing.tensors.values():
            _mark(tensor, *range(tensor.ndim))


def _split(rows_NSW: Tensor, rows: tuple[int, int]) -> Tensor:
    """(T, B, S, W)."""
    return cast(Tensor, cast(Any, rows_NSW).unflatten(0, rows))


def _mark(tensor: Tensor, *places: int) -> None:
    for place in places:
        cast(Any, torch)._dynamo.maybe_mark_dynamic(tensor, place)
