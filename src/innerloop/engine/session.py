"""Everything before the first step: a config becomes a model, encoded tasks, a space and a trainer.

StartValues   values to begin with, in place of the model's own
Session       what a run works with; several runs may share a model and the hidden states below the cut
prepare       config -> Session, once its groundwork is sound
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from innerloop.config.loading import RunConfig
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask
from innerloop.data.leaks import Overlap
from innerloop.engine.dtypes import of_dtype, with_dtype
from innerloop.engine.forwards import evenly, tasks_that_fit
from innerloop.engine.groundwork import Groundwork, Say, groundwork, in_a_line
from innerloop.engine.hidden_states import HiddenStates
from innerloop.engine.parts import companies_of, lowest_trained, make_space, make_trainer
from innerloop.engine.sources import encoder_of
from innerloop.engine.task_batches import TaskBatches
from innerloop.engine.trainer import Trainer
from innerloop.learning.methods import Row
from innerloop.loading.architecture import packs
from innerloop.loading.models import LoadedModel, load
from innerloop.machine import chosen_device
from innerloop.numerics.tensors import TensorSet, matching
from innerloop.spaces.space import ParameterSpace
from innerloop.spaces.trunk import Companies


@dataclass(frozen=True, repr=False)
class StartValues:
    """values: (...) of a space, none where the model holds them itself; digest: of the weights that they are from."""

    values: TensorSet
    digest: str


@dataclass(repr=False)
class Session:
    """A config with its model and tasks.

    train     what meta-training reads; for a method that trains one task at a time, the held-out tasks
    dropped   records left out on the way, by reason
    overlaps  examples that tasks of two roles share
    start     where a space begins, if not at the model's own values or a fresh LoRA
    warnings  what looks wrong in the data, and is no fault
    store     hidden states below the cut
    """

    config: RunConfig
    model: LoadedModel
    train: list[EncodedTask]
    validation: list[EncodedTask] = field(default_factory=list)
    held_out: list[EncodedTask] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    store: HiddenStates = field(default_factory=HiddenStates)
    overlaps: list[Overlap] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    start: StartValues | None = None
    device: torch.device = field(init=False)
    dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:
        # of the forward; at rest, a space may keep the model's tensors elsewhere and in another dtype
        self.device, self.dtype = self.model.model.device, self.model.model.dtype

    def __repr__(self) -> str:
        return f"Session({in_a_line(self.config, self.train, self.validation, self.held_out)})"

    @property
    def row(self) -> Row:
        return self.config.method.row

    def space(self) -> ParameterSpace:
        """A space at its starting values, of its own."""
        space = make_space(
            self.config,
            self.model.model,
            device=self.device,
            dtype=self.dtype,
            hidden=self.store,
            companies=self.companies if self.cut else None,
        )
        if self.start and self.start.values:
            for name, value in matching(space.shared, self.start.values).items():
                value.copy_(self.start.values[name])
        return space

    @property
    def encoder(self) -> Encoder:
        return encoder_of(self.config, self.model.tokenizer)

    @property
    def even(self) -> bool:
        """Whether the tasks of a packed forward are filled up to equally many tokens."""
        return evenly(self.device.type)

    @property
    def cut(self) -> int:
        """The lowest trained layer: outputs of those below are computed once per example. 0 = of none."""
        return lowest_trained(self.config, self.model.model)

    @cached_property
    def companies(self) -> Companies:
        """Which examples go through the layers below the cut together."""
        tasks = (*self.train, *self.validation, *self.held_out)
        return companies_of(self.config, self.model.model, tasks, device=self.device, dtype=self.dtype)

    @property
    def groups(self) -> list[list[EncodedTask]]:
        """The tasks of each adapter to train: all of them, or one each."""
        return [[task] for task in self.train] if self.row.one_task else [self.train]

    def streams(self) -> "list[tuple[str, TaskBatches]]":
        """(name, batches) of each adapter to train: one for all tasks, or one per task."""
        names = [task.task.name for task in self.train] if self.row.one_task else [""]
        return [(name, self._batches(group)) for name, group in zip(names, self.groups, strict=True)]

    def _batches(self, tasks: Sequence[EncodedTask]) -> "TaskBatches":
        return TaskBatches(self.config, tasks, packed=packs(self.model.model), even=self.even)

    def trainer(self, space: ParameterSpace, batches: "TaskBatches") -> Trainer:
        return make_trainer(self.config, space, tasks_per_forward=self.tasks_per_forward(batches))

    def tasks_per_forward(self, batches: "TaskBatches") -> int:
        """As configured; `auto` is what fits a token budget of the device."""
        asked = self.config.memory.tasks_per_forward
        if asked != "auto":
            return asked
        return tasks_that_fit(self.config, batches.largest, self.device)

    def settled(self) -> "Session":
        """With `memory.tasks_per_forward` a number, which a run writes down."""
        (_, batches), *_ = self.streams()
        memory = self.config.memory.model_copy(update={"tasks_per_forward": self.tasks_per_forward(batches)})
        return replace(self, config=self.config.model_copy(update={"memory": memory}))


def prepare(
    config: RunConfig,
    *,
    model: LoadedModel | None = None,
    store: HiddenStates | None = None,
    ground: Groundwork | None = None,
    say: Say | None = None,
) -> Session:
    """Load the model, unless one is passed in, for what `groundwork` found, or finds here.

    Raises UserError with all faults of the tasks, before any weights are read.
    """
    found = ground or groundwork(config, model=model, say=say)
    if model is None:
        if say:
            say("loading the model", 0, 0)
        device = chosen_device(config.model.device)
        config = with_dtype(config, torch.device(device).type)
        options = config.model.model_dump(include={"dtype", "revision", "attn_implementation"})
        loaded = load(config.model.name, device=device, tokenizer=found.tokenizer, **options)
    elif config.method.row.space.trains_base:  # the caller keeps theirs
        loaded = replace(model, model=copy.deepcopy(model.model))
    else:
        loaded = model
    if loaded.model.device.type != "meta":  # a model that was passed in is of the dtype that it has
        config = of_dtype(config, loaded.model.dtype)
    return Session(
        # with the date that the tasks were read on, and their number
        config=config.model_copy(update={"tasks": found.config.tasks, "outer": found.config.outer}),
        model=loaded,
        train=found.train,
        validation=found.validation,
        held_out=found.held_out,
        dropped=found.dropped,
        store=HiddenStates() if store is None else store,
        overlaps=found.overlaps,
        warnings=found.warnings,
    )


def roles(session: Session) -> Mapping[str, Any]:
    """Which task had which role, for the manifest."""
    groups = {"train": session.train, "validation": session.validation, "held_out": session.held_out}
    return {role: [task.task.name for task in group] for role, group in groups.items()}


def example_counts(session: Session) -> Mapping[str, Any]:
    """How many examples each task has, for the manifest."""
    every = (*session.train, *session.validation, *session.held_out)
    return {task.task.name: {"pool": len(task.pool), "test": len(task.test)} for task in every}
