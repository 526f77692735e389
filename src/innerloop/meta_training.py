"""A config -> what was learned, with its folder on disk.

meta_train   writes the adapter or model, manifest.json and metrics.jsonl to the config's output_dir
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from innerloop.files import file_digest
from innerloop.learned import Learned, file_name
from innerloop.models import LoadedModel
from innerloop.planning.devices import chosen
from innerloop.planning.forecast import Forecast, forecast
from innerloop.planning.outcome import Taken
from innerloop.planning.tracking import Tracker, footprint
from innerloop.planning.watching import watched
from innerloop.planning.workload import of_session
from innerloop.runs.compiling import compile_layers
from innerloop.runs.config import RunConfig, load_config
from innerloop.runs.hidden_states import HiddenStates
from innerloop.runs.journal import Journal, peak_memory, reset_peak_memory, write_text
from innerloop.runs.pace import paced
from innerloop.runs.preparation import Session, TaskBatches, prepare, roles
from innerloop.runs.trainer import Metrics, Trainer
from innerloop.runs.training import OnStep, Plan, fit, plan
from innerloop.runs.yaml import to_yaml


def meta_train(
    config: RunConfig | Path | str | Mapping[str, Any],
    *,
    model: LoadedModel | None = None,
    store: HiddenStates | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_forecast: Callable[[Forecast], None] | None = None,
    on_step: OnStep | None = None,
) -> Learned:
    """Train as the config says and write what was learned to its output_dir.

    config        a RunConfig, a YAML file, or the same as a mapping
    model, store  a loaded model and its hidden states below the cut, to share between runs
    on_plan       called before the first step
    on_forecast   called after it with what the run should take. Without it no forecast is made; with it the manifest
                  has the forecast, and beside it what the first step was measured to take
    on_step       called after each step
    Raises UserError for a config or data that can't be used, before anything is written; RunError when a loss or
    gradient is not finite.
    """
    reset_peak_memory()
    resident_before = peak_memory()["rss"]
    if isinstance(config, str):
        config = Path(config)
    settings = config if isinstance(config, RunConfig) else load_config(config)
    session = paced(prepare(settings, model=model, store=store))
    compile_layers(session)
    settings = session.config
    what, expected = plan(session), None
    if on_plan:
        on_plan(what)
    if on_forecast:
        expected = forecast(of_session(session), chosen(None, model_device=settings.model.device))
        on_forecast(expected)
    loaded = session.model
    journal = Journal(
        settings.output_dir,
        {
            "config": settings.resolved(),
            "model": {"name": loaded.name, "source": loaded.source, "fingerprint": loaded.fingerprint},
            "plan": what.facts(),
            **({"forecast": expected.facts()} if expected else {}),
            "roles": roles(session),
        },
    )
    write_text(settings.output_dir / "run.yaml", to_yaml(settings.resolved()))
    try:
        return _Training(session, journal, on_step).run(resident_before if expected else None)
    except (Exception, KeyboardInterrupt) as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        journal.finish(status, reason=str(error) or type(error).__name__)
        raise


class _Training:
    """All adapters of a run, one after the other."""

    def __init__(self, session: Session, journal: Journal, on_step: OnStep | None) -> None:
        self.session, self.journal, self.on_step = session, journal, on_step
        self.tokens, self.computed, self.started = 0, 0, time.perf_counter()

    def run(self, resident_before: int | None) -> Learned:
        """resident_before: bytes, where the first step is measured; None: it isn't."""
        session, folder = self.session, self.session.config.output_dir
        reset_peak_memory()
        learned: Learned | None = None
        said: dict[str, Any] = {"weights": {}}
        for name, batches in session.streams():
            space = session.space()
            trainer = session.trainer(space, batches)
            if resident_before is not None and "measured" not in said:
                said["measured"] = self._measured(trainer, batches, name, resident_before).facts()
            fit(trainer, batches, session.config.outer.steps, name=name, on_step=self._record)
            learned = Learned(session.config, session.model, space, folder, trainer.last_round)
            target = folder / "adapters" / file_name(name) if name else learned.exported
            learned.save_pretrained(target)
            files = sorted(target.glob("*.safetensors"))
            said["weights"] |= {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
        assert learned is not None
        _keep_last_round(learned)
        seconds = round(time.perf_counter() - self.started, 3)
        said |= {"tokens": self.tokens, "computed_tokens": self.computed, "seconds": seconds}
        self.journal.finish("done", peak_bytes=peak_memory(), **said)
        return learned

    def _measured(self, trainer: Trainer, batches: TaskBatches, name: str, resident_before: int) -> Taken:
        """Take the first step with an eye on every storage; it changes no number."""
        tracker = Tracker(self.session.device)
        with watched(trainer, tracker):
            fit(trainer, batches, 1, name=name, on_step=self._record)
        if self.session.config.outer.steps > 1:
            reset_peak_memory()  # a watched backward adds up a tied head's gradients out of place
        found, device = footprint(tracker.peaks, tracker.host_peak, tracker.flops), self.session.device
        whole = found.with_cache(self.session.store.kept, on_host=device.type != "cpu")
        return Taken(whole, resident_before)

    def _record(self, name: str, metrics: Metrics) -> None:
        self.tokens, self.computed = self.tokens + metrics.tokens, self.computed + metrics.computed_tokens
        adapter, seconds = {"adapter": name} if name else {}, round(time.perf_counter() - self.started, 3)
        self.journal.record(**adapter, **metrics._asdict(), seconds=seconds)
        if self.on_step:
            self.on_step(name, metrics)


def _keep_last_round(learned: Learned) -> None:
    """META-LORA's stage-1 adapters, the examples of stage 2, and the gradient that these gave."""
    last, folder = learned.last_round, learned.folder / "task_adapters"
    for name, values in last.adapters.items():
        learned.save(folder / file_name(name), values)
    if last.adapters:
        save_file(last.gradient, folder / "outer_gradient.safetensors")
        write_text(folder / "query_ids.json", json.dumps(last.query_ids, indent=2) + "\n")
