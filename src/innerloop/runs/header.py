"""The settings and sizes of a run, told before its first step.

Header      what a run is going to do: printed, and written to the manifest
header_of   session -> Header
"""

from dataclasses import asdict, dataclass
from typing import Any

from innerloop.config.loading import RunConfig
from innerloop.data.leaks import Overlap, overlap_lines
from innerloop.engine.dtypes import faster
from innerloop.engine.schedules import first_steps, joint_steps, rule_at
from innerloop.engine.session import Session
from innerloop.errors import RunError
from innerloop.spaces.space import Trained


@dataclass(frozen=True)
class Header:
    """What a run is going to do.

    algorithm, faster, inner, outer, validation   in words
    dtype                 of a forward pass
    examples_per_task     of the smallest pool
    adapters              trained one after the other
    joint_steps           the first ones, of joint training
    start                 the folder of the values to begin with
    tokens_per_step       tokens that go through the model in the first step
    cached_layers         lowest layers whose outputs are computed once per example
    cache_gb              of those outputs that are kept, at most
    keeps_full_gradient   inner steps can't be fused into the backward pass
    overlaps              examples that tasks of two roles share
    warnings              what looks wrong in the data, and is no fault
    """

    method: str
    algorithm: str
    dtype: str
    faster: str | None
    inner: str | None
    outer: str
    validation: str | None
    trained: Trained
    tasks: int
    examples_per_task: int
    adapters: int
    steps: int
    joint_steps: int
    tasks_per_step: int
    tasks_per_forward: int
    tokens_per_step: int
    cached_layers: int
    cache_gb: float
    keeps_full_gradient: bool
    dropped: dict[str, int]
    start: str | None = None
    overlaps: tuple[Overlap, ...] = ()
    warnings: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """For programs and the manifest."""
        trained = {**self.trained._asdict(), "percent": self.trained.percent}
        return {**asdict(self), "trained": trained, "overlaps": [each._asdict() for each in self.overlaps]}

    def lines(self) -> list[str]:
        """For people, one fact per line."""
        trained, kinds = self.trained, sorted({path.rsplit(".", 1)[-1] for path in self.trained.modules})
        joint = f", the first {self.joint_steps} of joint training" if self.joint_steps else ""
        lines = [
            f"method   {self.method} ({self.algorithm})",
            f"trains   {trained.tensors} tensors, {trained.parameters:,} parameters, in {trained.dtype}: "
            f"{trained.percent:.2f} % of the model's {trained.model_parameters:,}",
            f"base     forward passes in {self.dtype}",
            *([f"faster   {self.faster}"] if self.faster else []),
            f"modules  {len(trained.modules)}: {', '.join(kinds)}",
            f"tasks    {self.tasks} for training, with {self.examples_per_task} or more examples each; "
            f"{self.tasks_per_step} per step, {self.tasks_per_forward} per forward pass",
            *([f"start    {self.start}"] if self.start else []),
            *([f"inner    {self.inner}"] if self.inner else []),
            f"outer    {self.outer}",
            f"steps    {self.steps}{joint}; {self.tokens_per_step:,} tokens in the first one",
            *([f"evaluate {self.validation}"] if self.validation else []),
        ]
        if self.adapters > 1:
            lines.append(f"adapters {self.adapters}, one per task, trained one after the other")
        if self.cached_layers:
            layers = f"outputs of the frozen layers 0-{self.cached_layers - 1}"
            lines.append(f"cache    {layers} are computed once per example and kept (up to {self.cache_gb:g} GB)")
        if self.keeps_full_gradient:
            lines.append("memory   each task's full gradient is kept: only plain sgd can step inside the backward pass")
        lines += [f"dropped  {count} {reason}" for reason, count in self.dropped.items()]
        lines += [f"overlap  {line}" for line in overlap_lines(self.overlaps)]
        return lines + [f"warning  {warning}" for warning in self.warnings]


def header_of(session: Session) -> Header:
    """What the session's run will do. Raises RunError where nothing would be trained."""
    config, streams = session.config, session.streams()
    space, inner, batches = session.space(), config.method.inner, streams[0][1]
    trained = space.trained()
    if not trained.parameters:
        raise RunError(f"{config.method.name} would train nothing")
    return Header(
        method=config.method.name,
        algorithm=config.method.row.title,
        dtype=config.model.dtype,
        faster=faster(config.model.dtype, session.device.type),
        inner=inner_in_words(config),
        outer=outer_in_words(config),
        validation=validation_in_words(config, len(session.validation)),
        trained=trained,
        tasks=len(session.train),
        examples_per_task=min(len(task.pool) for task in session.train),
        adapters=len(streams),
        steps=config.outer.steps,
        joint_steps=joint_steps(config.outer),
        tasks_per_step=config.outer.tasks_in_step,
        tasks_per_forward=session.tasks_per_forward(batches),
        tokens_per_step=rule_at(config, 0).tokens(batches[0]),
        cached_layers=session.cut,
        cache_gb=config.memory.trunk_cache_gb or 0,
        keeps_full_gradient=inner is not None and space.keeps_full_gradient(inner.build().optimizer),
        dropped=session.dropped,
        start=str(config.start_from) if config.start_from else None,
        overlaps=tuple(session.overlaps),
        warnings=tuple(session.warnings),
    )


def outer_in_words(config: RunConfig) -> str:
    """What moves the shared values, and how its rate changes."""
    outer = config.outer
    first = first_steps(outer.warmup, outer.steps)
    falls = {"constant": "", "linear": ", falling to 0 linearly", "cosine": ", falling to 0 on a cosine"}
    warm = f", after {first} steps of warm-up" if first else ""
    said = outer.build_optimizer(eight_bit=config.memory.lean).said
    ema = f"; what is learned is the values' moving average, decay {outer.ema:g}" if outer.ema else ""
    return f"{said}{falls[outer.schedule]}{warm}, the mean gradient of a step's tasks{ema}"


def inner_in_words(config: RunConfig) -> str | None:
    """What adapts to a task, in training and after it; None for a method without an inner loop."""
    inner = config.method.inner
    if inner is None:
        return None
    each = inner.batch_size if inner.batch_size < config.tasks.support else f"all {config.tasks.support}"
    comma = "," if len(inner.choices) > 1 else ""
    said = f"{inner.said_steps}{comma} on {each} support examples, {inner.build().optimizer.said}"
    if warm := first_steps(inner.warmup, config.outer.steps):
        said += f"; the rate rises from a tenth over {warm} outer steps"
    if inner.train not in (None, "all"):
        what = "LoRA's B alone" if inner.train == "lora-b" else f"the {inner.train.replace('-', ' ')} layers alone"
        said += f"; {what} adapts to a task" if inner.train == "lora-b" else f"; {what} adapt to a task"
    if config.outer.rates_lr:
        each = {"tensor": "tensor", "tensor-step": "tensor and step", "entry": "entry"}[inner.learned_rates or ""]
        said += f"; a factor of the rate of each {each} is learned, at lr {config.outer.rates_lr:g}"
    if inner.anchor:
        said += f"; the support loss at the start counts too, times {inner.anchor:g}"
    if inner.multi_step:
        said += f"; for {inner.multi_step} outer steps the query loss after every inner step counts, the last ever more"
    return said


def validation_in_words(config: RunConfig, tasks: int) -> str | None:
    """What is evaluated during training, how often, and what follows; None where nothing is."""
    asked = config.evaluate
    if asked is None:
        return None
    times = asked.times(config.outer.steps)
    some = "1 validation task" if tasks == 1 else f"{tasks} validation tasks"
    by = "exact answers, then nats" if asked.metric == "exact" else "nats"
    patience = f"; ends after {asked.patience} evaluations without a better one" if asked.patience else ""
    return (
        f"{some} after {asked.k} examples each, at the start and every {asked.every} steps: {times} times{patience}; "
        f"the {asked.export} values{f' by {by}' * (asked.export == 'best')} are exported"
    )
