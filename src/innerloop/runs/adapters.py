"""The adapters of a run, one after the other: their steps, checkpoints and exports.

MetaRun      run() trains and exports all of them; save() keeps where they are
fill_trunk   has the hidden states below a cut before the first step
fit          runs outer steps
OnStep       called after each: (the adapter's name, its metrics) -> Ask, or None for nothing
OnEvaluation called after each evaluation on validation tasks: (what it came to, the best so far) -> Ask, or None
Forecasting  predicts a run's cost and measures its first step: planning.forecaster has one
"""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

from safetensors.torch import save

from innerloop.artifacts.finished import damaged
from innerloop.artifacts.rates_file import write_rates
from innerloop.config.output_dir import read_lines
from innerloop.engine.groundwork import Say
from innerloop.engine.last_round import LastRound
from innerloop.engine.metrics import Metrics, ValidationScore
from innerloop.engine.session import Session
from innerloop.engine.stopping import held, raise_if_stopped
from innerloop.engine.task_batches import TaskBatches
from innerloop.engine.trainer import RATE, Trainer
from innerloop.errors import RunError
from innerloop.files import file_digest, file_name, write_text, write_whole
from innerloop.learning.inner_rates import InnerRates
from innerloop.machine import peak_memory, reset_peak_memory
from innerloop.numerics.tensors import TensorSet
from innerloop.runs.checkpoint import Checkpoints, Saved, fill, require_room, size_of
from innerloop.runs.journal import Journal
from innerloop.runs.learned import Learned
from innerloop.runs.validation import Validation
from innerloop.spaces.loss import AnswerLoss
from innerloop.trackers import Told


class Ask(NamedTuple):
    """What who is told of a step or an evaluation may ask for.

    stop, save, evaluate: that the run ends here, with what it learned; a checkpoint now; an evaluation now.
    """

    stop: bool = False
    save: bool = False
    evaluate: bool = False


OnStep = Callable[[str, Metrics], Ask | None]
OnEvaluation = Callable[[ValidationScore, ValidationScore | None], Ask | None]


class Forecasting(Protocol):
    """It changes no number of the run. What it gives goes to the manifest."""

    def begins(self, session: Session) -> dict[str, Any]:
        """The forecast of a run that is about to begin; empty where none is made. Not called on resume."""
        ...

    def first_step(self, session: Session, trainer: Trainer) -> AbstractContextManager[dict[str, Any]]:
        """Around the first step of a run with a forecast; what the step took is in the mapping at the end."""
        ...


class MetaRun:
    """start: what is gone on from; forecaster: measures the first step, where there is one.

    adapter, trainer   the one at hand
    counts, weights, host, seconds   so far; the exported files with their digests; what this machine needed; active
    """

    def __init__(
        self,
        session: Session,
        journal: Journal,
        *,
        start: Saved | None,
        forecaster: Forecasting | None = None,
        on_step: OnStep | None = None,
        on_evaluation: OnEvaluation | None = None,
        say: Say | None = None,
        report: Told | None = None,
    ) -> None:
        self.session, self.journal, self.forecaster = session, journal, forecaster
        self.on_step, self.on_evaluation, self.say, self.report = on_step, on_evaluation, say, report
        self.folder, self.save_every = session.config.output_dir, session.config.save.every
        self.checkpoints = Checkpoints(self.folder, keep=session.config.save.keep)
        self.adapter, self.trainer = 0, cast(Trainer | None, None)
        self.asked = Ask()  # by somebody who is told of the steps
        self.validation = _validation(session, start)
        self.counts = {"tokens": 0, "computed_tokens": 0, "skipped_tasks": 0}
        self.weights: dict[str, str] = {}
        self.host: dict[str, Any] = {}
        self._before, self._started = 0.0, time.perf_counter()
        self._start = start
        if start:
            facts = start.facts
            self.adapter, self.weights, self.host = facts["adapter"], facts["weights"], facts["host"]
            self.counts = {name: facts[name] for name in self.counts}
            self._before = facts["timing"]["seconds"]

    @property
    def enough(self) -> bool:
        """Whether no more steps are taken, although there are more."""
        return self.asked.stop or (self.validation is not None and self.validation.gives_up)

    @property
    def seconds(self) -> float:
        return round(self._before + time.perf_counter() - self._started, 3)

    def facts(self) -> dict[str, Any]:
        """What a manifest says at the end, and a checkpoint on the way."""
        peaks, before = peak_memory(), self.host.get("peak_bytes", {})
        most = {kind: max(size, before.get(kind, 0)) for kind, size in peaks.items()}
        steps, ended = self.trainer.steps if self.trainer else 0, {}
        if self.enough and steps < self.session.config.outer.steps:
            ended = {"stopped_after": steps, "stopped_by": "a callback" if self.asked.stop else "evaluate.patience"}
        return {
            **self.counts,
            **ended,
            **({"validation": self.validation.facts(steps)} if self.validation else {}),
            "weights": self.weights,
            "host": {**self.host, "peak_bytes": most},
            "timing": {"seconds": self.seconds},
        }

    def run(self) -> Learned:
        """Raises OSError or SafetensorError where the disk refuses, RunError for exports that were changed."""
        reset_peak_memory()
        if lost := damaged(self.folder, self.weights):
            raise RunError(f"{self.folder / lost[0]} is not as this run wrote it: what it trained before is lost")
        learned: Learned | None = None
        streams = self.session.streams()
        for index, (name, batches) in list(enumerate(streams))[self.adapter :]:
            self.adapter, space = index, self.session.space()
            self.trainer = trainer = self.session.trainer(space, batches)
            self._fill(trainer)
            exports = (len(streams) - self.adapter) * size_of(space.shared)
            best = size_of(trainer.learned_values) if self.validation and self.validation.keeps_best else 0
            require_room(self.folder, (self.checkpoints.keep + 1) * (size_of(trainer.tensors) + best) + exports)
            fill_trunk(trainer, batches, self.session.config.outer.steps, say=self.say)
            self._validate()  # the untrained start
            if self.forecaster and "measured" not in self.host and not trainer.steps:
                with self.forecaster.first_step(self.session, trainer) as taken:
                    fit(trainer, batches, 1, name=name, on_step=self._record)
                self.host["measured"] = taken
            last = self.session.config.outer.steps
            fit(trainer, batches, last, name=name, on_step=self._record, enough=self._is_enough)
            self._validate(now=True)
            values, rates = self._chosen(trainer)
            reached = space.at(values)
            learned = Learned(self.session.config, self.session.model, reached, self.folder, trainer.last_round, rates)
            self._export(learned, name)
            if self.enough:
                break
        assert learned is not None
        _keep_last_round(learned)
        return learned

    def save(self) -> None:
        """A checkpoint of where the trainer is; nothing before the first step."""
        trainer, last, metrics = self.trainer, LastRound(), self.journal.metrics
        if trainer is None or not self.journal.steps:
            return
        if self.validation or trainer.steps == self.session.config.outer.steps:
            last = trainer.last_round  # is exported where this step is the last, and no later process can make it again
        counters = {"adapter": self.adapter, "steps": trainer.steps, "query_ids": last.query_ids}
        tensors = trainer.tensors | last.tensors | (self.validation.tensors if self.validation else {})
        self.checkpoints.save(Saved(self.journal.steps, tensors, counters | self.facts(), metrics))

    def _fill(self, trainer: Trainer) -> None:
        """The first trainer of a run that goes on starts where the run was; its state is let go of then."""
        start, self._start = self._start, None
        if start is None:
            return
        round_ = {name: value for name, value in start.tensors.items() if name.startswith(LastRound.PLACES)}
        others = (*LastRound.PLACES, Validation.PLACE)
        rest: TensorSet = {name: value for name, value in start.tensors.items() if not name.startswith(others)}
        fill(trainer.tensors, rest, self.folder)
        trainer.last_round = LastRound.from_tensors(round_, start.facts["query_ids"])
        trainer.go_on_from(start.facts["steps"])

    def _record(self, name: str, metrics: Metrics) -> None:
        trainer, last = self.trainer, self.session.config.outer.steps
        assert trainer is not None
        self.counts["tokens"] += metrics.tokens
        self.counts["computed_tokens"] += metrics.computed_tokens
        self.counts["skipped_tasks"] += len(metrics.skipped)
        adapter = {"adapter": name} if name else {}
        joint = {"joint": True} if metrics.step <= trainer.joint_steps else {}
        self.journal.record(**adapter, **joint, **metrics._asdict(), timing={"seconds": self.seconds})
        if trainer.steps % self.save_every == 0 or trainer.steps == last:
            self.save()
        if self.report:
            self.report(self.journal.steps, metrics.numbers(f"{name}/" if name else ""))
        self._heed(self.on_step(name, metrics) if self.on_step else None)

    def _heed(self, asked: Ask | None) -> None:
        asked = asked or Ask()
        self.asked = asked._replace(stop=asked.stop or self.asked.stop)
        if asked.save:
            self.save()

    def _is_enough(self) -> bool:
        """Between two steps, where an evaluation may have its turn."""
        self._validate(now=self.asked.evaluate)
        return self.enough

    def _validate(self, *, now: bool = False) -> None:
        """Evaluates the values at hand where that is due, or asked for `now` and not done yet."""
        trainer, validation = self.trainer, self.validation
        assert trainer is not None
        if validation is None or not validation.is_due(trainer.steps, asked=now):
            return
        if self.say and not trainer.steps:
            self.say("evaluating the untrained start", 0, 0)
        values, rates = trainer.learned_values, trainer.rates and trainer.rates.rates
        found = validation.evaluate(trainer.space.at(values), step=trainer.steps, rates=rates)
        with held():  # what is kept and what is said about it go together
            validation.keep(found, values | trainer.learned_rates)
            self.journal.record(**found.line(), timing={"seconds": self.seconds})
        if self.report:
            self.report(found.step, found.numbers())
        if self.on_evaluation:
            self._heed(self.on_evaluation(found, validation.best))

    def _chosen(self, trainer: Trainer) -> tuple[TensorSet, InnerRates | None]:
        """The values that are exported, and the inner loop's rates that belong to them, where those were learned."""
        values, logs, validation = trainer.learned_values, trainer.learned_rates, self.validation
        if trainer.rates is None:
            return validation.chosen(values) if validation else values, None
        chosen = validation.chosen(values | logs) if validation else values | logs
        rates = {name.removeprefix(RATE): chosen[name] for name in logs}
        return {name: chosen[name] for name in values}, replace(trainer.rates.rates, logs=rates)

    def _export(self, learned: Learned, name: str) -> None:
        target = self.folder / "adapters" / file_name(name) if name else learned.exported
        learned.save_pretrained(target)
        files = sorted(target.glob("*.safetensors"))
        if learned.rates:
            files.append(write_rates(self.folder, learned.rates.logs))
        self.weights |= {path.relative_to(self.folder).as_posix(): file_digest(path) for path in files}


def _validation(session: Session, start: Saved | None) -> Validation | None:
    """With what came out of it before, where the run goes on."""
    settings = session.config.evaluate
    if settings is None:
        return None
    lines = read_lines(start.metrics).evaluations if start else []
    tensors = start.tensors if start else {}
    best = {name: value for name, value in tensors.items() if name.startswith(Validation.PLACE)}
    return Validation(session, settings, history=[ValidationScore.of_line(line) for line in lines], tensors=best)


def _keep_last_round(learned: Learned) -> None:
    """META-LORA's stage-1 adapters, the examples of stage 2, and the gradient that these gave."""
    last, folder = learned.last_round, learned.folder / "task_adapters"
    for name, values in last.adapters.items():
        learned.portable(values, holds="task").save(folder / file_name(name))
    if last.adapters:
        write_whole(folder / "outer_gradient.safetensors", save(last.gradient))
        write_text(folder / "query_ids.json", json.dumps(last.query_ids, indent=2) + "\n")


def fill_trunk(trainer: Trainer, batches: TaskBatches, steps: int, *, say: Say | None) -> None:
    """Where a trunk is cached: run its layers once for each example that steps trainer.steps .. steps - 1 read."""
    loss = trainer.space.loss
    if not isinstance(loss, AnswerLoss) or loss.trunk is None:
        return

    def on_company(done: int, total: int) -> None:
        raise_if_stopped()
        if say:
            say("hidden states", done, total)

    loss.fill(batches.drawn(range(trainer.steps, steps)), trainer.space.device, on_company)


def fit(
    trainer: Trainer,
    batches: TaskBatches,
    steps: int,
    *,
    name: str,
    on_step: Callable[[str, Metrics], None],
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Outer steps trainer.steps .. steps - 1, until there are enough."""
    for step in range(trainer.steps, steps):
        if enough():
            return
        raise_if_stopped()
        trainer.step(batches[step], then=partial(on_step, name))
