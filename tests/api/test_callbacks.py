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

    def __init__(self, *, stop: int = 0, save: int = 0) -> None:
        self.events, self.stop, self.save = list[tuple[str, int]](), stop, save
        self.logs = list[dict[str, float]]()

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("train_begin", state.global_step))

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("step_begin", state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("step_end", state.global_step))
        control.should_training_stop = state.global_step == self.stop
        control.should_save = state.global_step == self.save

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        self.logs.append(logs)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("save", state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.events.append(("train_end", state.global_step))


def trainer(world: World, output: Path, *callbacks: Any, steps: int = 4) -> MetaTrainer:
    args = MetaTrainingArguments(output_dir=output, method="joint-lora", max_steps=steps, tasks_per_step=2)
    return MetaTrainer(str(world.base), args, train_dataset=DATA, callbacks=list(callbacks))


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
