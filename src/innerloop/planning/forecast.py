"""What a run will take on a device: bytes by part and phase, tokens and arithmetic, time, disk.

Forecast   of one config: lines() for people, facts() for programs
forecast   workload and device -> Forecast; a config may change what the workload's own says about memory

GB are 10^9 bytes. Nothing here loads weights: the memory is that of the real step on tensors without storage.
"""

import math
from dataclasses import dataclass
from typing import Any

from innerloop.config.loading import RunConfig
from innerloop.data.tasks import TaskBatch
from innerloop.engine.dtypes import faster
from innerloop.engine.schedules import joint_steps
from innerloop.errors import Fault, UserError
from innerloop.learning.methods import Method
from innerloop.planning.devices import Device
from innerloop.planning.tracing import trace
from innerloop.planning.tracking import PARTS, Footprint
from innerloop.planning.workload import Stretch, Workload

SLACK = "allocator slack"


@dataclass(frozen=True)
class Forecast:
    """tasks_per_forward, footprint: of one device; flops: of one outer step over all its tasks; gpus: that share
    the tasks of a step."""

    config: RunConfig
    workload: Workload
    device: Device
    gpus: int
    tasks_per_forward: int
    footprint: Footprint
    flops: float

    @property
    def phases(self) -> dict[str, dict[str, int]]:
        """Phase -> part -> bytes at that phase's peak, allocator slack included."""
        peaks = self.footprint.peaks
        slack = {phase: int(self.device.slack * sum(parts.values())) for phase, parts in peaks.items()}
        return {phase: {**parts, **({SLACK: slack[phase]} if slack[phase] else {})} for phase, parts in peaks.items()}

    @property
    def peak(self) -> int:
        """Bytes that the device needs."""
        return max(sum(parts.values()) for parts in self.phases.values())

    @property
    def peak_phase(self) -> str:
        return self.footprint.peak_phase

    @property
    def seconds(self) -> float | None:
        """One outer step; None where no rate of the device is known."""
        rate, tasks = self.device.rate(self.config.model.dtype), self.config.outer.tasks_in_step
        return rate and self.flops / rate.flops * math.ceil(tasks / self.gpus) / tasks

    @property
    def total_seconds(self) -> float | None:
        """All steps of all adapters, and evaluations; adapters of a one-task method are shared out over the GPUs."""
        turns = math.ceil(self.workload.adapters / self.gpus)
        return self.seconds and self.seconds * self.config.outer.steps * turns + (self.evaluation_seconds or 0)

    @property
    def evaluation_seconds(self) -> float | None:
        """Of the validation tasks during training, roughly: their tokens at the pace of a step's."""
        rate, work = self.device.rate(self.config.model.dtype), self.workload
        return rate and self.flops / work.tokens_per_step * work.evaluation_tokens / rate.flops

    @property
    def disk(self) -> dict[str, int]:
        """Bytes of the weights that the run writes, and of what lies there while it runs."""
        work, method = self.workload, self.config.method
        running = {"checkpoints": self.checkpoint_bytes * (self.config.save.keep + 1)}
        if method.row.space.exported == "model":
            return {"model": work.base_bytes} | running
        adapter = 4 * work.trained  # float32, whatever the model's dtype
        written = {"adapters" if work.adapters > 1 else "adapter": work.adapters * adapter}
        if method.build().keeps_adapted:  # beside them the outer gradient, of the same size
            written["task_adapters"] = (self.config.outer.tasks_in_step + 1) * adapter
        if work.cached_bytes:
            written["hidden_states"] = work.cached_bytes
        return written | running

    @property
    def checkpoint_bytes(self) -> int:
        """Of the values, their average, the best of them, the optimizer's moments and learned rates, as they lie."""
        values, moment = (2, 1) if self.config.memory.lean else (4, 4)
        moments = 2 * moment if self.config.outer.optimizer.name == "adamw" else 0
        average = 4 if self.config.outer.ema else 0
        inner = self.config.method.inner
        rates = 12 if inner and inner.learned_rates == "entry" else 0  # of each tensor, or step, there are few
        evaluate = self.config.evaluate
        best = (average or values) + rates // 3 if evaluate and evaluate.export == "best" else 0
        return self.workload.trained * (values + moments + average + rates + best)

    def facts(self) -> dict[str, Any]:
        """For programs: bytes, seconds and operations as plain numbers."""
        rate, work = self.device.rate(self.config.model.dtype), self.workload
        return {
            "method": self.config.method.name,
            "model": {
                "name": self.config.model.name,
                "parameters": work.parameters,
                "dtype": self.config.model.dtype,
                "trained": work.trained,
            },
            "device": {"name": self.device.title, "memory": self.device.memory, "gpus": self.gpus},
            "peak_bytes": self.peak,
            "peak_phase": self.peak_phase,
            "phases": self.phases,
            "host_bytes": self.footprint.host,
            "tasks_per_step": self.config.outer.tasks_in_step,
            "tasks_per_forward": self.tasks_per_forward,
            "adapters": work.adapters,
            "steps": self.config.outer.steps,
            "tokens_per_step": work.tokens_per_step,
            "tokens_from": "encoded tasks" if work.encoded else "tasks.max_length",
            "steps_looked_at": len(work.steps),
            "flops_per_step": self.flops,
            "rate": rate and rate._asdict(),
            "seconds_per_step": self.seconds,
            "seconds": self.total_seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "disk_bytes": self.disk,
        }

    def lines(self) -> list[str]:
        """For people: what it comes to, then bytes by part and phase."""
        config, count = self.config, f"{self.gpus} x " if self.gpus > 1 else ""
        size = f"{self.workload.parameters / 1e9:.3g} B parameters, {config.model.dtype}"
        head = f"{config.method.name} on {config.model.name} ({size}), {count}{self.device.title}"
        return [head, *self._work_lines(), *self.cost()]

    def cost(self) -> list[str]:
        """What of that the run's own plan doesn't say."""
        return [
            f"memory   {bytes_in_words(self.peak)} at the peak, in the {self.peak_phase} phase; "
            f"the device has {bytes_in_words(self.device.memory)}",
            *self._host_lines(),
            *self._time_lines(),
            "disk     " + ", ".join(f"{bytes_in_words(size)} {what}" for what, size in self.disk.items()),
            "",
            *self.table(),
        ]

    def table(self) -> list[str]:
        """One row per part, one column per phase."""
        phases = self.phases
        unit, name = (1e9, "GB") if self.peak >= 1e9 else (1e6, "MB")
        rows = [(f"{name} at the peak of", list(phases))]
        for part in (*PARTS, SLACK):
            cells = [f"{parts.get(part, 0) / unit:.2f}" for parts in phases.values()]
            if any(cell != "0.00" for cell in cells):
                label = f"{part}, assumed" if part == SLACK else part
                rows.append((label, ["-" if cell == "0.00" else cell for cell in cells]))
        rows.append(("together", [f"{sum(parts.values()) / unit:.2f}" for parts in phases.values()]))
        return [f"{label:<25}" + "".join(f"{cell:>9}" for cell in cells) for label, cells in rows]

    def _host_lines(self) -> list[str]:
        parts = self.footprint.host
        listed = ", ".join(f"{part} {bytes_in_words(size)}" for part, size in parts.items())
        return [f"host     {bytes_in_words(sum(parts.values()))} beside it: {listed}"] if parts else []

    def _time_lines(self) -> list[str]:
        rate, steps = self.device.rate(self.config.model.dtype), self.config.outer.steps
        compute = f"compute  {significant(self.flops / 1e12)} TFLOP per step"
        if rate is None or self.seconds is None or self.total_seconds is None:
            return [f"time     unknown: no rate is known for {self.config.model.dtype} on {self.device.title}", compute]
        adapters = self.workload.adapters
        many = f"{steps:,} steps" if adapters == 1 else f"{adapters} adapters of {steps:,} steps each"
        if self.config.evaluate and self.evaluation_seconds:
            times = self.config.evaluate.times(steps)
            many += f" and {times} evaluations (about {duration(self.evaluation_seconds)} of it)"
        return [
            f"time     {duration(self.total_seconds)} for {many}, {duration(self.seconds)} per step",
            f"compute  {significant(self.flops / 1e12)} TFLOP per step, at {significant(rate.flops / 1e12)} TFLOP/s: "
            f"{rate.source}{', assumed' * rate.assumed}",
        ]

    def _work_lines(self) -> list[str]:
        config, work = self.config, self.workload
        if work.encoded:
            source = f"the mean of {len(work.steps)} steps"
        else:
            longest = config.tasks.max_length
            source = f"every example taken as {longest} (tasks.max_length), all scored: no tokenizer is here"
        lines = [
            f"tasks    {config.outer.tasks_in_step} per step, {self.tasks_per_forward} per forward pass",
            f"tokens   {work.tokens_per_step:,.0f} per step, {source}",
        ]
        if len(work.stretches) > 1:
            joint, method = (f"{stretch.tokens_per_step:,.0f}" for stretch in work.stretches)
            lines.append(
                f"joint    {joint} of them in each of the first {joint_steps(config.outer)}, {method} after those"
            )
        if better := faster(config.model.dtype, self.device.kind):
            lines.append(f"faster   {better}")
        if config.method.row.one_task:
            lines.append(f"adapters {work.adapters}, one per task of tasks.held_out; memory and step of one")
        return lines


def forecast(work: Workload, device: Device, *, config: RunConfig | None = None, gpus: int = 1) -> Forecast:
    """Trace one outer step over the tasks of the largest forward that was looked at.

    config   the workload's with other values in its memory section; by default its own
    gpus     a step's tasks are shared out over them
    Raises UserError for memory.offload on a CPU.
    """
    config = config or work.session.config
    if config.memory.offload and device.kind == "cpu":
        right = "false: there is no other memory than the host's; or --device with a GPU"
        raise UserError(Fault("nothing to offload from", "memory.offload", True, right))
    a_device = math.ceil(config.outer.tasks_in_step / gpus)
    tasks_per_forward = min(work.tasks_per_forward(config, kind=device.kind), a_device)
    found: Footprint | None = None
    flops = 0.0
    for stretch in work.stretches:
        traced, chunk = _shortened(_alone(config, stretch), stretch.largest_chunk(tasks_per_forward))
        own = trace(traced, work.shape, chunk, on_cpu=device.kind == "cpu")
        repetitions = _repetitions(stretch, chunk, tasks_per_forward)
        flops += stretch.share * sum(own.flops[phase] * times for phase, times in repetitions.items())
        found = found.or_higher(own) if found else own
    assert found is not None
    whole = found.with_cache(work.cached_bytes, on_host=device.kind != "cpu")
    return Forecast(config, work, device, gpus, tasks_per_forward, whole, flops)


def _alone(config: RunConfig, stretch: Stretch) -> RunConfig:
    """A run whose first step is one of these."""
    outer = config.outer.model_copy(update={"joint_steps": float(stretch.joint)})
    return config.model_copy(update={"outer": outer})


def _shortened(config: RunConfig, chunk: TaskBatch) -> tuple[RunConfig, TaskBatch]:
    """One inner step instead of all, the largest: memory doesn't grow with them, except where a rule keeps them.

    All that is trained is taken to adapt, which is the most, since few layers stand for all.
    """
    inner = config.method.inner
    if inner is None or not chunk.support:
        return config, chunk
    if config.method.row.rule.second_order and inner.train in (None, "all"):
        return config, chunk
    inner = inner.model_copy(update={"train": inner.train and "all"})
    if config.method.row.rule.second_order:
        return config.model_copy(update={"method": config.method.model_copy(update={"inner": inner})}), chunk
    largest = max(chunk.support, key=lambda batch: (batch.computed_tokens, len(batch.scored_rows)))
    method = config.method.model_copy(update={"inner": inner.model_copy(update={"steps": 1})})
    return config.model_copy(update={"method": method}), chunk._replace(support=[largest])


def _repetitions(stretch: Stretch, chunk: TaskBatch, tasks_per_forward: int) -> dict[str, float]:
    """How often a step of the run does what was traced of a phase, by the tokens that go through it."""
    every = [tokens_by_phase(stretch.rule, part) for step in stretch.steps for part in step.split(tasks_per_forward)]
    return {
        phase: sum(part[phase] for part in every) / len(stretch.steps) / tokens
        for phase, tokens in tokens_by_phase(stretch.rule, chunk).items()
    }


def tokens_by_phase(method: Method, tasks: TaskBatch) -> dict[str, int]:
    """Padding included; a phase without a pass is left out. What goes back through the inner steps is the query's."""
    inner = sum(batch.computed_tokens for batch in tasks.support)
    every = sum(batch.computed_tokens for batch in method.forwards(tasks))
    tokens = {"inner": inner, "query": every - inner}
    return {phase: count for phase, count in tokens.items() if count}


def bytes_in_words(size: float) -> str:
    """Bytes in words: 141 GB, 1.23 GB, 45 MB."""
    if size < 1e8:
        return f"{size / 1e6:.3g} MB"
    return f"{size / 1e9:.2f}".rstrip("0").rstrip(".") + " GB"


def duration(seconds: float) -> str:
    """0.31 s, 12 s, 4.5 min, 3.2 h."""
    amount, unit = seconds / 3600, "h"
    if seconds < 7200:
        amount, unit = (seconds, "s") if seconds < 120 else (seconds / 60, "min")
    return f"{significant(amount)} {unit}"


def significant(number: float) -> str:
    """Two digits at least, and no exponent: 0.0031, 4.5, 29, 1,234."""
    if number >= 10:
        return f"{number:,.0f}"
    digits = 1 - math.floor(math.log10(number)) if number > 0 else 0
    return f"{number:.{digits}f}"
