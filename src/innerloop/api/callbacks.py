"""transformers' own TrainerCallbacks, told of a run's events.

Callbacks   begins, a step, an evaluation, ends

The events are train_begin, step_begin, step_end, log, save, evaluate and train_end. What they set is done:
should_training_stop ends the run well, with what was learned so far exported, or the best of it; should_save writes a
checkpoint; should_evaluate evaluates the validation tasks.
"""

import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from innerloop.api.arguments import FLAT, MetaTrainingArguments
from innerloop.config.schema import ABSENT, RunConfig, get
from innerloop.engine.metrics import Metrics, ValidationScore
from innerloop.errors import Faults
from innerloop.runs.adapters import Ask

if TYPE_CHECKING:
    from transformers import TrainerCallback


class Callbacks:
    """`args` is what the callbacks get for transformers' TrainingArguments; equal settings have equal names.

    Raises UserError for what is no callback, and for one that waits for evaluations where there are none.
    """

    def __init__(self, callbacks: Sequence["TrainerCallback"], given: MetaTrainingArguments, config: RunConfig) -> None:
        from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState

        faults = Faults()
        for place, callback in enumerate(callbacks):
            if not isinstance(callback, TrainerCallback):  # pyright: ignore[reportUnnecessaryIsInstance]
                right = "an object of a class derived from transformers.TrainerCallback"
                faults.add("not a callback", f"callbacks[{place}]", type(callback).__name__, right)
            elif isinstance(callback, EarlyStoppingCallback) and config.evaluate is None:
                right = 'eval_dataset, and eval_strategy="steps" with eval_steps'
                faults.add("this callback waits for evaluations", f"callbacks[{place}]", type(callback).__name__, right)
        faults.raise_if_any()
        self.callbacks, self.args, self.config = callbacks, _training_arguments(given, config), config
        self.state = TrainerState(max_steps=config.outer.steps, save_steps=config.save.every, log_history=[])
        self.state.eval_steps = config.evaluate.every if config.evaluate else 0
        self.control, self._in_a_step = TrainerControl(), False

    def begins(self) -> None:
        self._tell("on_train_begin")
        if self.config.evaluate is None:
            self._begin_step()

    def step(self, name: str, metrics: Metrics) -> Ask:
        """After an outer step; what the callbacks ask for. name: of the adapter at hand."""
        self._begin_step()  # of a run that goes on, which evaluates nothing before its first step
        state, control = self.state, self.control
        state.global_step = max(state.global_step + 1, metrics.step)  # a run that goes on begins later
        state.num_input_tokens_seen += metrics.tokens
        control.should_save = control.should_evaluate = self._in_a_step = False
        self._tell("on_step_end")
        self._log(metrics.numbers(f"{name}/" if name else ""))
        asked = self._asked()
        if asked.evaluate and self.config.evaluate is None:
            said = "a callback asks for an evaluation, and there is none: eval_dataset and eval_steps are missing"
            warnings.warn(said, RuntimeWarning, stacklevel=2)
        if asked.save or metrics.step % self.config.save.every == 0:
            self._tell("on_save")
        if not (asked.stop or self._is_evaluated(metrics.step)):
            self._begin_step()
        return asked

    def evaluated(self, found: ValidationScore, best: ValidationScore | None) -> Ask:
        """After an evaluation, the best of which so far is given; what the callbacks ask for."""
        state, control, numbers = self.state, self.control, found.numbers("eval_")
        if best is not None and best is not found:
            self._remember(best)  # a run that goes on has forgotten it
        control.should_save = False
        self._log(numbers)
        tasks = {f"eval_{task}_{name}": value for task, own in found.tasks.items() for name, value in own.items()}
        self._tell("on_evaluate", metrics={**numbers, **tasks})
        if best is found:
            self._remember(found)
        asked = self._asked()
        if asked.save:
            self._tell("on_save")
        if not asked.stop and state.global_step < self.config.outer.steps:
            self._begin_step()
        return asked._replace(evaluate=False)

    def ends(self) -> None:
        self._tell("on_train_end")

    def _begin_step(self) -> None:
        if not self._in_a_step:
            self._in_a_step = True
            self._tell("on_step_begin")

    def _is_evaluated(self, step: int) -> bool:
        settings, asked = self.config.evaluate, self.control.should_evaluate
        return settings is not None and (asked or step % settings.every == 0 or step == self.config.outer.steps)

    def _remember(self, best: ValidationScore) -> None:
        self.state.best_metric = best.numbers("eval_").get(self.args.metric_for_best_model)
        self.state.best_global_step = best.step

    def _log(self, logs: dict[str, float]) -> None:
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self._tell("on_log", logs=logs)

    def _asked(self) -> Ask:
        control = self.control
        return Ask(stop=control.should_training_stop, save=control.should_save, evaluate=control.should_evaluate)

    def _tell(self, event: str, **more: Any) -> None:
        for callback in self.callbacks:
            # A callback may give a control of its own; without one, it has changed ours.
            self.control = getattr(callback, event)(self.args, self.state, self.control, **more) or self.control


def _training_arguments(given: MetaTrainingArguments, config: RunConfig) -> SimpleNamespace:
    """The run's settings under transformers' names: as they were given, else as the run has them."""
    tree, settings = config.resolved(), config.evaluate
    known = {name: value for name, flat in FLAT.items() if (value := get(tree, flat.key)) is not ABSENT}
    metric = settings.metric if settings else None
    evaluations = {
        "eval_strategy": "steps" if settings else "no",
        "metric_for_best_model": metric and f"eval_{metric}",
        "greater_is_better": metric and metric == "exact",
        "load_best_model_at_end": settings is not None and settings.export == "best",
    }
    return SimpleNamespace(**{"logging_steps": 1, **known, **given.given, **evaluations})
