"""Attention within the examples of a packed batch, in a model whose other layers see packed tokens.

Legend: N = rows of the model's input, M = tokens of one (packed; a task's, or those of all), P = N*M,
G = rows (examples and fillers), L = tokens of the longest of them, H = heads, C = channels of a head,
W = width of a token's vector.

attending   a context in which a model attends this way, by transformers' own scaled-dot-product attention on rows
unpack      (P, W) -> (G*L, W), zero where a row has no token
repack      the other way

No mask is built, and none is looked for: examples are padded on the right and attention is causal. The packing is a
keyword of the model's forward, which every family that `packs` hands down to its attention
(docs/design/0009-examples-side-by-side.md).
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from innerloop.data.packing import Packing

_NAME = "innerloop"  # in transformers' table of attention functions


@contextmanager
def attending(base: nn.Module) -> Generator[None]:
    """Inside, `base` takes `packing=` in its forward; outside, and so for its owner, it is as it was.

    A layer that is computed again in the backward pass has to be so in such a context, too.
    """
    from transformers import AttentionInterface

    cast(Any, AttentionInterface).register(_NAME, _attend)
    model = cast(Any, base)
    own: str = model.config._attn_implementation
    # The setter of the config alone would not ask whether the family looks its attention up by name.
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


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
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    packing: Packing | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What a family's attention calls: (N, H, M, C) queries, packed or padded -> the outputs, heads behind tokens."""
    from transformers.integrations import sdpa_attention

    # No mask function is registered under the name, so transformers builds none (note 9).
    assert mask is None, "a mask for an attention that builds its own"
    # Attention alone works on rows: one example each, so that none sees another (note 9).
    if packing is not None:
        query, key, value = (_rows(part, packing) for part in (query, key, value))
    window = _window(query.shape[2], options.get("sliding_window"), query.device)
    out = cast(Any, sdpa_attention).sdpa_attention_forward(module, query, key, value, window, **options)[0]
    if packing is None:
        return out, None
    # Back to packed tokens before anything else: a family's output projection sees no fillers of the rows.
    packed_rows = len(packing.source)
    return repack(out.flatten(0, 1).flatten(1), packing).view(packed_rows, -1, *out.shape[2:]), None


def _rows(heads_NHMC: Tensor, packing: Packing) -> Tensor:
    """(G, H, L, C)."""
    tokens = heads_NHMC.transpose(1, 2)
    rows = unpack(tokens.flatten(0, 1).flatten(1), packing)
    return rows.view(-1, packing.longest, *tokens.shape[2:]).transpose(1, 2)


def _window(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """(1, 1, L, L) which tokens see which, where a row is longer than the window of a layer; else None."""
    # Causal attention needs no mask; only a window that cuts something off does.
    if window is None or length <= window:
        return None
    places = torch.arange(length, device=device)
    behind = places[:, None] - places
    return ((behind >= 0) & (behind < window))[None, None]
