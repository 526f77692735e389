"""transformers' own TrainerCallbacks, told of a run's events.

Callbacks   begins, a step, ends

The events are train_begin, step_begin, step_end, log, save and train_end. What they set is done: should_training_stop
ends the run well, with what was learned so far exported; should_save writes a checkpoint. Nothing is evaluated during
training, so should_evaluate and on_evaluate have no meaning yet.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from innerloop.config.schema import RunConfig
from innerloop.engine.metrics import Metrics
from innerloop.errors import Faults
from innerloop.runs.adapters import Ask

if TYPE_CHECKING:
    from transformers import TrainerCallback


class Callbacks:
    """`args` is what the callbacks get for transformers' TrainingArguments; equal settings have equal names.

    Raises UserError for what is no callback, and for one that waits for evaluations.
    """

    def __init__(self, callbacks: Sequence["TrainerCallback"], args: Any, config: RunConfig) -> None:
        from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState

        faults = Faults()
        for place, callback in enumerate(callbacks):
            if not isinstance(callback, TrainerCallback):  # pyright: ignore[reportUnnecessaryIsInstance]
                right = "an object of a class derived from transformers.TrainerCallback"
                faults.add("not a callback", f"callbacks[{place}]", type(callback).__name__, right)
            elif isinstance(callback, EarlyStoppingCallback):
                problem = "this callback waits for evaluations during training, which there are none of yet"
                faults.add(problem, f"callbacks[{place}]", type(callback).__name__, "one that looks at on_log's loss")
        faults.raise_if_any()
        self.callbacks, self.args, self.config = callbacks, args, config
        self.state = TrainerState(max_steps=config.outer.steps, save_steps=config.save.every, log_history=[])
        self.control = TrainerControl()

    def begins(self) -> None:
        self._tell("on_train_begin")
        self._tell("on_step_begin")

    def step(self, name: str, metrics: Metrics) -> Ask:
        """After an outer step; what the callbacks ask for. name: of the adapter at hand."""
        state, control = self.state, self.control
        state.global_step = max(state.global_step + 1, metrics.step)  # a run that goes on begins later
        state.num_input_tokens_seen += metrics.tokens
        control.should_save = False
        self._tell("on_step_end")
        logs = metrics.numbers(f"{name}/" if name else "")
        state.log_history.append({**logs, "step": state.global_step})
        self._tell("on_log", logs=logs)
        asked = Ask(stop=control.should_training_stop, save=control.should_save)
        if asked.save or metrics.step % self.config.save.every == 0:
            self._tell("on_save")
        if not asked.stop:
            self._tell("on_step_begin")
        return asked

    def ends(self) -> None:
        self._tell("on_train_end")

    def _tell(self, event: str, **more: Any) -> None:
        for callback in self.callbacks:
            # A callback may give a control of its own; without one, it has changed ours.
            self.control = getattr(callback, event)(self.args, self.state, self.control, **more) or self.control
