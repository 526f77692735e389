"""Which runs get a forecast and a measured first step, and that neither moves a number."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innerloop.config.loading import load_config
from innerloop.engine.session import Session, prepare
from innerloop.planning.devices import CPU_FLOAT32, DEVICES, cpu
from innerloop.planning.forecast import Forecast
from innerloop.planning.forecaster import A_MINUTE, Forecaster, seconds_of
from innerloop.runs.meta_train import meta_train
from small_runs import World, settings

Trains = Callable[..., tuple[dict[str, Any], list[Forecast]]]


@pytest.fixture
def trains(world: World, tmp_path: Path) -> Trains:
    """name, options of the forecaster -> the manifest of a run of two steps, and the forecasts that were told."""

    def train(name: str, **options: Any) -> tuple[dict[str, Any], list[Forecast]]:
        tree, said = settings(world, "fomaml-lora", tmp_path / name, {"outer.steps": 2}), list[Forecast]()
        meta_train(tree, model=world.model, forecaster=Forecaster(said.append, **options))
        return json.loads((tmp_path / name / "manifest.json").read_text()), said

    return train


def test_a_short_run_has_neither(trains: Trains, tmp_path: Path) -> None:
    short, none = trains("short")
    long, said = trains("long", longer_than=0)
    assert none == []
    assert "forecast" not in short
    assert "measured" not in short["host"]
    assert long["forecast"] == json.loads(json.dumps(said[0].facts()))
    assert {"inner", "query", "outer"} <= set(long["host"]["measured"]["phases"])
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("short", "long")]
    steps = [[{**json.loads(line), "timing": None} for line in each] for each in lines]
    assert steps[0] == steps[1]


def test_the_forecast_is_told_before_the_folder_is_made(world: World, tmp_path: Path) -> None:
    there: list[bool] = []
    tree = settings(world, "fomaml-lora", tmp_path / "run", {"outer.steps": 1})
    stages: list[str] = []
    forecaster = Forecaster(
        lambda _: there.append((tmp_path / "run").exists()), longer_than=0, say=lambda what, *_: stages.append(what)
    )
    meta_train(tree, model=world.model, forecaster=forecaster)
    assert there == [False]
    assert stages == ["forecasting the run"]


def session_of(world: World, method: str, **changes: Any) -> Session:
    return prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)


def test_the_time_of_a_run_by_its_tokens(world: World) -> None:
    session = session_of(world, "fomaml-lora", **{"outer.steps": 7})
    batches = session.streams()[0][1]
    tokens = session.config.method.build().tokens(batches[0])
    parameters = sum(parameter.numel() for parameter in world.model.model.parameters())
    expected = 7 * 6 * parameters * tokens / CPU_FLOAT32.flops
    assert seconds_of(session, cpu()) == pytest.approx(expected)
    assert seconds_of(session, DEVICES["h200"]) < seconds_of(session, cpu())


def test_every_adapter_of_a_one_task_method_counts(world: World) -> None:
    session = session_of(world, "lora", **{"outer.steps": 7})
    assert len(session.streams()) == 2
    one = seconds_of(session_of(world, "lora", **{"outer.steps": 7, "tasks.held_out": ["dee"]}), cpu())
    assert 1.5 * one < seconds_of(session, cpu()) < 2.5 * one


def test_a_minute_is_the_bound_of_the_command_line(world: World) -> None:
    assert Forecaster(lambda _: None).longer_than == A_MINUTE == 60
