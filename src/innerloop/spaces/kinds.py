"""The kinds of spaces: which tensors a method may train, one row each.

SpaceKind      what a kind of space is called, how one is made, what it needs, and the defaults of a run that trains it
KINDS          name -> SpaceKind; LORA and ALL_PARAMETERS are its rows
SpaceOptions   all that a space may be made with: each kind reads its own part
Steps, Grid    inner steps of an optimizer; learning rates and numbers of steps to choose among

A method names its kind in its row (`learning.methods`). Config, exports, planning and comparison ask a kind for what
they have to know, never which one it is: a new space is its module and a row here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from innerloop.numerics.loss import CHUNK_ROWS
from innerloop.numerics.optimizers import AdamW, Optimizer, Sgd
from innerloop.spaces.all_parameters import AllParameters
from innerloop.spaces.lora import LoraSettings, LoraSpace
from innerloop.spaces.loss import AnswerLoss
from innerloop.spaces.space import ParameterSpace
from innerloop.spaces.trunk import Companies, Store


class Steps(NamedTuple):
    steps: int
    optimizer: Optimizer


class Grid(NamedTuple):
    lrs: tuple[float, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SpaceOptions:
    """device, dtype: of the forward, None = the model's; cut: the layers below it are computed once per example."""

    lora: LoraSettings | None = None
    seed: int = 0
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    checkpointing: bool = False
    logit_rows: int = CHUNK_ROWS
    lean: bool = False
    offload: bool = False
    cut: int = 0
    store: Store | None = None
    companies: Companies | None = None


@dataclass(frozen=True, kw_only=True)
class SpaceKind:
    """
    name         as a comparison's file calls its methods' settings
    title        in words
    make         model, options -> the space at its starting values
    reads_lora   it is made of a LoRA's settings, and what is configured of one goes with it
    trains_base  the model's own tensors are trained, so it can't be shared with another run
    limit        most tasks that fit one forward; None = any number
    exported     what a run writes: an adapter beside its base, or the whole model; also the folder's name
    inner, outer, adaptation, grid   defaults: of the inner loop, of the outer optimizer, of adapting what a method
                 without an inner loop learned, and of what a comparison tunes
    """

    name: str
    title: str
    make: Callable[[nn.Module, SpaceOptions], ParameterSpace]
    reads_lora: bool
    trains_base: bool
    limit: int | None
    exported: Literal["adapter", "model"]
    inner: Steps
    outer: Optimizer
    adaptation: Steps
    grid: Grid


def _lora(model: nn.Module, options: SpaceOptions) -> LoraSpace:
    loss = AnswerLoss(
        model,
        cut=options.cut,
        store=options.store,
        companies=options.companies,
        checkpointing=options.checkpointing,
        logit_rows=options.logit_rows,
    )
    return LoraSpace(model, loss, options.lora or LoraSettings(), seed=options.seed)


def _all_parameters(model: nn.Module, options: SpaceOptions) -> AllParameters:
    loss = AnswerLoss(model, checkpointing=options.checkpointing, logit_rows=options.logit_rows)
    return AllParameters(
        model, loss, dtype=options.dtype, device=options.device, lean=options.lean, offload=options.offload
    )


LORA = SpaceKind(
    name="lora",
    title="LoRA",
    make=_lora,
    reads_lora=True,
    trains_base=False,
    limit=LoraSpace.limit,
    exported="adapter",
    inner=Steps(3, Sgd(lr=0.3, clip=1.0)),
    outer=AdamW(lr=2e-3),
    adaptation=Steps(5, AdamW(lr=3e-3, betas=(0.9, 0.99))),
    grid=Grid(lrs=(1e-3, 3e-3, 1e-2), steps=(3, 10, 30)),
)
ALL_PARAMETERS = SpaceKind(
    name="all",
    title="all parameters",
    make=_all_parameters,
    reads_lora=False,
    trains_base=True,
    limit=AllParameters.limit,
    exported="model",
    inner=Steps(3, Sgd(lr=1e-3)),
    outer=AdamW(lr=1e-5),
    adaptation=Steps(3, Sgd(lr=1e-3)),
    grid=Grid(lrs=(1e-5, 3e-5, 1e-4), steps=(3, 10, 30)),
)
KINDS = {kind.name: kind for kind in (LORA, ALL_PARAMETERS)}
