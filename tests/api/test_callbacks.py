"""transformers' own callbacks hear a run's events in their order, and what they ask for is done."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback, TrainerCallback

from helpers import same
from innerloop import MetaTrainer, MetaTrainingArguments, load_run
from innerloop.errors import UserError
from small_runs import NAMES, World, records, tensors_of

DATA = {name: records(name) for name in NAMES}


class Heard(TrainerCallback):
    """Writes down each event with its step; stops and saves where it is told to."""

    def __init__(self, *, stop: int = 0, save: int = 0, evaluate: int = 0) -> None:
        self.events, self.stop, self.save, self.evaluate = list[tuple[str, int]](), stop, save, evaluate
        self.metrics, self.best = list[dict[str, float]](), list[tuple[int | None, float | None]]()
        self.logs = list[dict[str, float]]()

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("train_begin", state.global_step))

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("step_begin", state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("step_end", state.global_step))
        control.should_training_stop = state.global_step == self.stop
        control.should_save = state.global_step == self.save
        control.should_evaluate = state.global_step == self.evaluate

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        self.logs.append(logs)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **more: Any) -> None:
        self.events.append(("evaluate", state.global_step))
        self.metrics.append(metrics)
        self.best.append((state.best_global_step, state.best_metric))

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("save", state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("train_end", state.global_step))


def trainer(world: World, output: Path, *callbacks: Any, steps: int = 4, **more: Any) -> MetaTrainer:
    args = MetaTrainingArguments(output_dir=output, method="joint-lora", max_steps=steps, tasks_per_step=2, **more)
    tasks = {"train_dataset": DATA}
    if "eval_steps" in more:
        tasks = {"train_dataset": {name: DATA[name] for name in NAMES[1:]}, "eval_dataset": {NAMES[0]: DATA[NAMES[0]]}}
    return MetaTrainer(str(world.base), args, **tasks, callbacks=list(callbacks))


def test_events_come_in_transformers_order_with_the_numbers_of_metrics_jsonl(world: World, tmp_path: Path) -> None:
    heard = Heard(save=1)
    trainer(world, tmp_path / "run", heard, steps=2).train()
    steps = [("step_begin", 0), ("step_end", 1), ("save", 1), ("step_begin", 1), ("step_end", 2)]
    assert heard.events[:6] == [("train_begin", 0), *steps]
    assert heard.events[-1] == ("train_end", 2)
    written = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [logs["loss"] for logs in heard.logs] == [line["loss"] for line in written]


def test_a_run_that_is_told_to_stop_ends_well_with_what_it_learned(world: World, tmp_path: Path) -> None:
    trainer(world, tmp_path / "stopped", Heard(stop=2)).train()
    trainer(world, tmp_path / "short", steps=2).train()
    trainer(world, tmp_path / "long").train()
    assert same(tensors_of(tmp_path / "stopped"), tensors_of(tmp_path / "short"))
    assert not same(tensors_of(tmp_path / "stopped"), tensors_of(tmp_path / "long"))
    manifest = json.loads((tmp_path / "stopped" / "manifest.json").read_text())
    assert (manifest["status"], manifest["stopped_after"]) == ("done", 2)
    load_run(tmp_path / "stopped")


def test_what_is_no_callback_or_waits_for_evaluations_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"callbacks\[0\][\s\S]*callbacks\[1\]"):
        trainer(world, tmp_path / "run", print, EarlyStoppingCallback())
    assert list(tmp_path.iterdir()) == []


def test_evaluations_are_told_between_steps_with_the_best_before_them(world: World, tmp_path: Path) -> None:
    heard = Heard(evaluate=3)
    trained = trainer(world, tmp_path / "run", heard, eval_steps=2)
    trained.train()
    events = [event for event in heard.events if event[0] in ("step_begin", "step_end", "evaluate")]
    first = [("evaluate", 0), ("step_begin", 0), ("step_end", 1), ("step_begin", 1), ("step_end", 2), ("evaluate", 2)]
    last = [("step_begin", 2), ("step_end", 3), ("evaluate", 3), ("step_begin", 3), ("step_end", 4), ("evaluate", 4)]
    assert events == [*first, *last]
    written = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line["eval"] for line in written if "eval" in line]
    assert [each["eval_nats"] for each in heard.metrics] == [each["nats"] for each in evaluations]
    assert [each["eval_ada_exact"] for each in heard.metrics] == [each["exact"] for each in evaluations]
    logged = [(log["step"], log["eval_nats"]) for log in trained.callbacks.state.log_history if "eval_nats" in log]
    assert logged == [(line["step"], line["eval"]["nats"]) for line in written if "eval" in line]
    so_far = [(line["eval"]["nats"], line["step"]) for line in written if "eval" in line]
    assert heard.best == [(None, None), *((step, nats) for nats, step in (min(so_far[:n]) for n in (1, 2, 3)))]


def test_transformers_own_early_stopping_ends_a_run_that_gets_worse(world: World, tmp_path: Path) -> None:
    """A rate at which training undoes what the model can, and a control that goes on."""
    bad = {"learning_rate": 5.0, "optim": "sgd", "max_grad_norm": None, "steps": 4, "eval_steps": 1}
    stopping = EarlyStoppingCallback(early_stopping_patience=2)
    with pytest.warns(RuntimeWarning, match="untrained start"):
        trainer(world, tmp_path / "stopped", stopping, load_best_model_at_end=True, **bad).train()
    manifest = json.loads((tmp_path / "stopped" / "manifest.json").read_text())
    assert (manifest["stopped_after"], manifest["stopped_by"]) == (2, "a callback")
    assert manifest["validation"]["exported_step"] == 0
    patient = EarlyStoppingCallback(early_stopping_patience=9)
    with pytest.warns(RuntimeWarning, match="untrained start"):
        trainer(world, tmp_path / "whole", patient, load_best_model_at_end=False, **bad).train()
    manifest = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    assert "stopped_after" not in manifest
    assert manifest["validation"]["exported_step"] == 4


def test_an_evaluation_that_there_is_none_of_is_warned_of(world: World, tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="a callback asks for an evaluation, and there is none: eval_dataset"):
        trainer(world, tmp_path / "run", Heard(evaluate=1), steps=1).train()
