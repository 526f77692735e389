"""What a run goes through, known without its weights: how many tokens, in which batches, for how many adapters.

Stretch               the steps of one rule: how large a share of the run, and some of their batches
Workload              the batches of a run's first steps, and what follows from its tasks and its model's shape
workload_of           config -> Workload
workload_of_session   the same of a model and tasks that are loaded

Where the tokenizer is on this machine, tasks are read and encoded as a run does it. Elsewhere every example counts as
`tasks.max_length` tokens, all of them scored: the most that a run can come to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from innerloop.config.loading import RunConfig
from innerloop.data.tasks import TaskBatch
from innerloop.engine.dtypes import with_dtype
from innerloop.engine.forwards import evenly, tasks_that_fit
from innerloop.engine.groundwork import Groundwork, groundwork
from innerloop.engine.parts import own_adaptation
from innerloop.engine.schedules import joint_steps, rule_at
from innerloop.engine.session import Session, prepare
from innerloop.engine.sources import examples_a_round
from innerloop.engine.task_batches import TaskBatches
from innerloop.learning.methods import Method
from innerloop.loading.architecture import packs
from innerloop.loading.models import LoadedModel
from innerloop.spaces.lora import find_targets
from innerloop.spaces.trunk import TOGETHER

if TYPE_CHECKING:
    from transformers import PretrainedConfig

STEPS_LOOKED_AT = 256
OF_A_GRADIENT = 3  # a forward pass alone is this part of one with its backward pass


@dataclass(frozen=True)
class Stretch:
    """joint: it comes before the method; share: of the run's steps; steps: the batches that were looked at."""

    rule: Method
    joint: bool
    share: float
    steps: Sequence[TaskBatch]

    @property
    def tokens_per_step(self) -> float:
        return sum(self.rule.tokens(step) for step in self.steps) / len(self.steps)

    def largest_chunk(self, tasks_per_forward: int) -> TaskBatch:
        """The tasks of the forward with the most tokens, of steps with the most inner steps; among equals, with the
        most scored rows."""

        def size(chunk: TaskBatch) -> tuple[int, int, int]:
            tokens, rows = max((batch.computed_tokens, len(batch.scored_rows)) for batch in chunk.batches)
            return len(chunk.support), tokens, rows

        return max((chunk for step in self.steps for chunk in step.split(tasks_per_forward)), key=size)


@dataclass(frozen=True)
class Workload:
    """shape: the model's config; encoded: tokens were counted, not assumed; adapters: trained one after the other;
    stretches: joint training, where some comes first, and the method; largest: the first batch as wide as any is;
    pool: examples that training draws from."""

    session: Session
    shape: "PretrainedConfig"
    encoded: bool
    adapters: int
    stretches: Sequence[Stretch]
    largest: TaskBatch
    pool: int

    @property
    def steps(self) -> list[TaskBatch]:
        """The batches that were looked at."""
        return [step for stretch in self.stretches for step in stretch.steps]

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.session.model.model.parameters())

    @property
    def base_bytes(self) -> int:
        """Of the model's weights in the run's dtype, tied ones once."""
        return self.parameters * getattr(torch, self.session.config.model.dtype).itemsize

    @property
    def trained(self) -> int:
        """Parameters that the method trains."""
        settings = self.session.config.method.lora_settings()
        if settings is None:
            return self.parameters
        targets = find_targets(self.session.model.model, settings).values()
        return sum(settings.r * (target.in_features + target.out_features) for target in targets)

    @property
    def tokens_per_step(self) -> float:
        """That go through the model, every forward counted: the mean of the steps that were looked at."""
        return sum(stretch.share * stretch.tokens_per_step for stretch in self.stretches)

    @property
    def tokens_per_example(self) -> float:
        """The mean: what the trunk cache keeps of each."""
        batches = [batch for step in self.steps for batch in step.batches]
        return sum(batch.token_count for batch in batches) / sum(batch.tokens[..., 0].numel() for batch in batches)

    @property
    def evaluation_tokens(self) -> float:
        """Of all evaluations during training, roughly: as many as would take as long with their gradient."""
        config, asked = self.session.config, self.session.config.evaluate
        if asked is None:
            return 0
        inner = own_adaptation(config)
        adapting = inner.steps * min(asked.k, inner.batch_size or asked.k)
        examples = len(self.session.validation) * (adapting + config.tasks.test / OF_A_GRADIENT)
        return asked.times(config.outer.steps) * examples * self.tokens_per_example

    @property
    def cached_examples(self) -> int:
        """Examples whose hidden states below the cut a run keeps in the end; 0 where nothing is cut off.

        At most the pools of the tasks that it draws, and of each as many as go through the layers with a drawn one.
        """
        if not self.session.cut:
            return 0
        config, tasks = self.session.config, len(self.session.train)
        rounds = config.outer.steps * config.outer.tasks_in_step * self.adapters
        most = TOGETHER.get(self.session.device.type, TOGETHER["cpu"])  # a model without weights is on no device
        together = max(1, int(most / self.tokens_per_example))
        drawn = min(tasks, rounds)
        of_each = math.ceil(rounds / drawn) * sum(examples_a_round(config)) * together
        return round(drawn * min(self.pool / tasks, of_each))

    @property
    def cached_bytes(self) -> int:
        """Of their hidden states, in the end and at most."""
        config, width = self.session.config, self.shape.hidden_size
        itemsize = getattr(torch, config.model.dtype).itemsize
        whole = round(self.cached_examples * self.tokens_per_example) * width * itemsize
        return min(whole, config.memory.trunk_cache_bytes)

    def tasks_per_forward(self, config: RunConfig, *, kind: str) -> int:
        """As the run would choose it on a device of this kind, "cpu" or "cuda"."""
        asked = config.memory.tasks_per_forward
        return tasks_that_fit(config, self.largest, torch.device(kind)) if asked == "auto" else asked


def workload_of(config: RunConfig, *, kind: str, ground: Groundwork | None = None) -> Workload:
    """Read the tasks, encode them where that can be done here, and draw the batches of the first steps.

    kind    of the device that the run is for, "cpu" or "cuda", which wants its batches in another layout
    ground  what is known of the run, where that was looked at before
    Raises UserError for a model without a config or of a family that innerloop can't train, and with all faults of
    the tasks.
    """
    config, found = with_dtype(config, kind), ground or groundwork(config, away=True)
    tokenizer: Any = found.tokenizer
    model = LoadedModel(found.model, tokenizer, config.model.name, config.model.name, fingerprint="")
    session = prepare(config, model=model, ground=found)
    return workload_of_session(session, encoded=tokenizer is not None, even=evenly(kind))


def workload_of_session(session: Session, *, encoded: bool = True, even: bool | None = None) -> Workload:
    """The same of a run that is about to begin.

    encoded: its tokens were counted, not assumed; even: how its examples are packed, None = as the session does it.
    """
    config, inner = session.config, session.config.method.inner
    layout = {"packed": packs(session.model.model), "even": session.even if even is None else even}
    alike = not encoded and (inner is None or len(inner.choices) == 1)  # every step has as many tokens
    groups, joint, steps = session.groups, joint_steps(config.outer), config.outer.steps
    count = 1 if alike else max(1, STEPS_LOOKED_AT // len(groups))
    every = [TaskBatches(config, group, **layout) for group in groups[:STEPS_LOOKED_AT]]
    stretches = [
        Stretch(
            rule_at(config, places[0]),
            joint=places[0] < joint,
            share=len(places) / steps,
            steps=[batches[step] for batches in every for step in places[:count]],
        )
        for places in (range(joint), range(joint, steps))
        if places
    ]
    pool = sum(len(task.pool) for task in session.train)
    known = {"largest": every[0].largest, "pool": pool}
    return Workload(session, session.model.model.config, encoded, len(groups), stretches, **known)
