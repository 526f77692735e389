"""A run's numbers in the real trackers: they read back what metrics.jsonl has, and no number of the run moves."""

import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from helpers import same
from innerloop import trackers
from innerloop.config.output_dir import read_lines
from innerloop.errors import UserError
from innerloop.trackers import TRACKERS, TrackerRow, reporting
from small_runs import World, small_run, tensors_of

EVALUATED = {"tasks.validation": ["ada"], "evaluate.every": 1}


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_lines((folder / "metrics.jsonl").read_text()).steps]


def evaluations(folder: Path) -> list[float]:
    return [line["eval"]["nats"] for line in read_lines((folder / "metrics.jsonl").read_text()).evaluations]


def read_tensorboard(folder: Path, key: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(key)]


def read_mlflow(folder: Path, key: str) -> list[float]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("innerloop").experiment_id])
    assert run.data.params["method.name"] == "joint-lora"
    assert run.info.status == "FINISHED"
    return [each.value for each in client.get_metric_history(run.info.run_id, key)]


def read_wandb(folder: Path, key: str) -> list[float]:
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = list[float]()
    for data in _chunks(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        found += [json.loads(items[key])] if key in items else []
    return found


def _chunks(log: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log: blocks of 32 KiB, each part with a checksum, a length and a kind."""
    place, held = 7, b""
    while place + 7 <= len(log):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", log[place + 4 : place + 7])
        held += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield held
            held = b""


READERS = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "wandb": read_wandb}


@pytest.mark.parametrize("name", READERS)
def test_a_tracker_has_the_numbers_of_the_run(
    name: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(TRACKERS[name].module, reason=f"pip install {TRACKERS[name].package}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a tracker that fails is left out with one
        small_run(world, "joint-lora", tmp_path / "told", {"report_to": [name], **EVALUATED})
    small_run(world, "joint-lora", tmp_path / "plain", EVALUATED)
    assert READERS[name](tmp_path / "told", "loss") == pytest.approx(losses(tmp_path / "plain"), rel=1e-6)
    assert READERS[name](tmp_path / "told", "eval/nats") == pytest.approx(evaluations(tmp_path / "plain"), rel=1e-6)
    assert len(evaluations(tmp_path / "plain")) == 3
    assert same(tensors_of(tmp_path / "told"), tensors_of(tmp_path / "plain"))


def test_trackio_is_told_of_every_step(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="pip install trackio")
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    small_run(world, "joint-lora", tmp_path / "told", {"report_to": ["trackio"]})
    found = SQLiteStorage.get_logs("innerloop", "told")
    assert [each["loss"] for each in found] == pytest.approx(losses(tmp_path / "told"), rel=1e-6)


class Failing:
    """A tracker whose network goes away."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.told = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.told += 1
        raise ConnectionError("no network")

    def end(self) -> None:
        raise AssertionError("it was left out before")


def test_a_tracker_that_fails_is_left_out_with_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "failing", TrackerRow("json", "", Failing))
    with warnings.catch_warnings(record=True) as said, reporting(["failing"], tmp_path, {}) as told:
        warnings.simplefilter("always")
        told(1, {"loss": 1.0})
        told(2, {"loss": 1.0})
    (warning,) = said
    assert "failing is left out from here on: ConnectionError: no network" in str(warning.message)


def test_one_that_is_not_installed_is_a_fault_before_anything_is_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", TrackerRow("no_such_module", "wandb", Failing))
    with pytest.raises(UserError, match="pip install wandb"):
        small_run(world, "joint-lora", tmp_path / "run", {"report_to": ["wandb"]})
    with pytest.raises(UserError, match="report_to"):
        small_run(world, "joint-lora", tmp_path / "run", {"report_to": ["zork"]})
    assert not (tmp_path / "run").exists()
