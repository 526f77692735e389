"""What adapting to new tasks will take, predicted before it is done, and what it took.

Work, work_of      tokens that go through the model to choose steps, to adapt and to judge
Speed, speed_of    seconds per token and bytes, from the run's own training, or from the machine's rate
Cost               seconds of each part of the work, and bytes: predicted, or measured
predicted          what the work will take at a speed
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from innerloop.comparison.adapt_arguments import Wanted
from innerloop.comparison.judging import parts_of
from innerloop.config.output_dir import read_manifest
from innerloop.data.encoding import EncodedTask
from innerloop.data.token_ids import Encoded
from innerloop.evaluation.cross_validation import folds, most_steps
from innerloop.evaluation.generation import allowance, prompt_of
from innerloop.machine import environment
from innerloop.planning.devices import chosen
from innerloop.planning.forecast import bytes_in_words, duration
from innerloop.planning.forecaster import FLOPS
from innerloop.runs.learned import Learned

PASSES = 2  # forwards that a token of an inner step costs, roughly: of small batches, and of a LoRA or of all layers
STAGES = {"choosing": "choose steps", "adapting": "adapt", "judging": "judge"}
SAME = ("platform", "threads", "cuda")  # of two environments whose speed is one


class Work(NamedTuple):
    """Tokens of a stage: with a gradient, and of forwards alone, those that are generated among them."""

    gradient: int
    forward: int


class Speed(NamedTuple):
    """Seconds per token of each kind; memory: bytes at the peak; source: in words. None: not known."""

    gradient: float | None
    forward: float | None
    memory: int
    source: str


class Cost(NamedTuple):
    """seconds: by stage; None: not known."""

    seconds: Mapping[str, float] | None
    memory: int

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {"seconds": self.seconds, "memory_bytes": self.memory}

    @property
    def said(self) -> str:
        """In words."""
        bytes_ = bytes_in_words(self.memory)
        if self.seconds is None:
            return f"time unknown; {bytes_} of memory"
        parts = [f"{duration(each)} to {STAGES[stage]}" for stage, each in self.seconds.items() if each]
        return f"{duration(sum(self.seconds.values()))} ({', '.join(parts)}), {bytes_} of memory"


def work_of(learned: Learned, tasks: Sequence[EncodedTask], wanted: Wanted, *, judging: bool) -> dict[str, Work]:
    """Where steps are going to be chosen, adapting is taken to be as many as the inner loop has by itself."""
    auto, alone = (
        wanted.steps == "auto",
        learned.config.method.row.space.trains_base,
    )  # the run's own start is the only one that adapts
    found = {"choosing": Work(0, 0), "adapting": Work(0, 0), "judging": Work(0, 0)}
    for task in tasks:
        loop, pool = wanted.inner(learned, len(task.pool)), _tokens(task.pool)
        found["adapting"] = _sum(found["adapting"], loop.steps * pool, 2 * pool)
        if auto:
            times = 2 if judging and not alone else 1
            for fold in folds(task):
                steps = most_steps(loop)
                forward = (steps + 1) * _tokens(fold.test)
                found["choosing"] = _sum(found["choosing"], times * steps * _tokens(fold.pool), times * forward)
        for part in parts_of(task) if judging else []:
            adapting, arms = (not alone) + (not task.test), 2 if alone else 4
            asked = sum(len(prompt_of(each)) + allowance(part) + len(each.tokens) for each in part.test)
            in_context = 0 if alone else 2 * len(part.test) * _tokens(part.pool)
            gradient = adapting * loop.steps * _tokens(part.pool)
            found["judging"] = _sum(found["judging"], gradient, arms * asked + in_context)
    return found


def speed_of(learned: Learned) -> Speed:
    """From what the run's training took, where that was on a machine like this one."""
    said, model, config = read_manifest(learned.folder) or {}, learned.model.model, learned.config
    host, here = said.get("host", {}), environment()
    before, peaks = host.get("environment", {}), host.get("peak_bytes", {})
    tokens, seconds = said.get("computed_tokens", 0), said.get("timing", {}).get("seconds", 0)
    if tokens and seconds and peaks and all(before.get(key) == here[key] for key in SAME):
        return Speed(
            seconds / tokens,
            seconds / tokens / PASSES,
            peaks.get("allocated", peaks.get("rss", 0)),
            "roughly, from what training took here",
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    device = chosen(None, model_device=config.model.device)
    rate = device.rate(config.model.dtype)
    if rate is None:
        return Speed(None, None, weights, f"no rate is known of {device.title}; the weights alone")
    gradient = FLOPS * parameters / rate.flops
    return Speed(gradient, gradient / PASSES, weights, f"at the rate of {device.title}; memory of the weights alone")


def predicted(work: Mapping[str, Work], speed: Speed) -> Cost:
    """Every stage's tokens at this speed."""
    gradient, forward = speed.gradient, speed.forward
    if gradient is None or forward is None:
        return Cost(None, speed.memory)
    return Cost({name: each.gradient * gradient + each.forward * forward for name, each in work.items()}, speed.memory)


def _sum(work: Work, gradient: int, forward: int) -> Work:
    return Work(work.gradient + gradient, work.forward + forward)


def _tokens(examples: Sequence[Encoded]) -> int:
    return sum(len(example.tokens) for example in examples)
