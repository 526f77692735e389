"""Attention within the examples of a packed batch, in a model whose other layers see packed tokens.

Legend: N = rows of the model's input, M = tokens of one (packed; a task's, or those of all), P = N*M,
G = rows (examples and fillers), L = tokens of the longest of them, H = heads, C = channels of a head,
W = width of a token's vector.

Attention   transformers' own scaled-dot-product attention, on rows; made part of a model by `within`
unpack      (P, W) -> (G*L, W), zero where a row has no token
repack      the other way

No mask is built, and none is looked for: examples are padded on the right and attention is causal.
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from innerloop.data.packing import Packing

_NAME = "innerloop"  # in transformers' table of attention functions


class Attention:
    """packing: of the batch that goes through the model; None = one example a row."""

    def __init__(self) -> None:
        self.packing: Packing | None = None

    def within(self, base: nn.Module) -> nn.Module:
        """A shallow copy of `base` that shares every weight and attends this way; `base` is left as it was."""
        from transformers import AttentionInterface

        cast(Any, AttentionInterface).register(_NAME, _attend)
        config = copy.copy(cast(Any, base).config)
        config._attn_implementation_internal = _NAME  # the setter would reach into parts that both configs share
        return self._twin(base, config)

    def _twin(self, module: nn.Module, config: Any) -> nn.Module:
        if not any(hasattr(part, "config") for part in module.modules()):
            return module
        twin = copy.copy(module)
        twin.__dict__["_modules"] = {
            name: child if child is None else self._twin(child, config)
            for name, child in module._modules.items()  # pyright: ignore[reportPrivateUsage]
        }
        if hasattr(module, "config"):
            twin.config = config
            twin.__dict__["within"] = self
        return twin

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """(N, H, M, C) queries, packed or padded -> the outputs, heads behind tokens."""
        from transformers.integrations import sdpa_attention

        packing = self.packing
        if packing is not None:
            query, key, value = (_rows(part, packing) for part in (query, key, value))
        mask = _window(query.shape[2], options.get("sliding_window"), query.device)
        out = cast(Any, sdpa_attention).sdpa_attention_forward(module, query, key, value, mask, **options)[0]
        if packing is None:
            return out
        packed_rows = len(packing.source)
        return repack(out.flatten(0, 1).flatten(1), packing).view(packed_rows, -1, *out.shape[2:])


def unpack(packed: Tensor, packing: Packing) -> Tensor:
    return cast(Tensor, cast(Any, _Unpack).apply(packed, packing))


def repack(rows: Tensor, packing: Packing) -> Tensor:
    return cast(Tensor, cast(Any, _Repack).apply(rows, packing))


class _Unpack(torch.autograd.Function):
    """A gather; its transpose is one as well, which is faster than the scattered sum autograd would take."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, packing: Packing) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.packing = packing
        return packed.index_select(0, packing.grid.flatten()).index_fill_(0, packing.holes, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return repack(gradient, ctx.packing), None


class _Repack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, packing: Packing) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.packing = packing
        return rows.index_select(0, packing.place)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return unpack(gradient, ctx.packing), None


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """What a family's attention calls."""
    assert mask is None, "a mask for an attention that builds its own"
    return cast(Any, module).within(module, query, key, value, **options), None


def _rows(heads_NHMC: Tensor, packing: Packing) -> Tensor:
    """(G, H, L, C)."""
    tokens = heads_NHMC.transpose(1, 2)
    rows = unpack(tokens.flatten(0, 1).flatten(1), packing)
    return rows.view(-1, packing.longest, *tokens.shape[2:]).transpose(1, 2)


def _window(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """(1, 1, L, L) which tokens see which, where a row is longer than the window of a layer; else None."""
    if window is None or length <= window:
        return None
    places = torch.arange(length, device=device)
    behind = places[:, None] - places
    return ((behind >= 0) & (behind < window))[None, None]
