"""Where a run's numbers go beside its own metrics.jsonl: `report_to`.

Tracker    told of a run's settings when it is opened, of every step, and of the end
TRACKERS   name -> TrackerRow: what it is installed with, and how one is opened
missing    faults of those whose package is not here
reporting  the trackers of a run, as one function that is told of a step

A tracker sees numbers and changes none. What goes wrong in one is said once, and the run goes on without it.
"""

import os
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from innerloop.errors import Fault

PROJECT = "innerloop"

Flat = Mapping[str, Any]  # dotted config key -> value
Told = Callable[[int, Mapping[str, float]], None]  # the outer step, and what was measured


class Tracker(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def end(self) -> None: ...


class TrackerRow(NamedTuple):
    """module: that has to be importable; package: what installs it; opened: the run's folder, its settings."""

    module: str
    package: str
    opened: Callable[[Path, Flat], Tracker]


class TensorBoard:
    """Event files in the run's folder: tensorboard --logdir RUN."""

    def __init__(self, folder: Path, settings: Flat) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))
        self.writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in settings.items()))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def end(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """Weights & Biases, where its own settings say: WANDB_MODE=offline keeps everything in the run's folder."""

    def __init__(self, folder: Path, settings: Flat) -> None:
        wandb: Any = import_module("wandb")  # an extra: there may be no types of it here
        self.run = wandb.init(project=PROJECT, name=folder.name, dir=str(folder), config=dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def end(self) -> None:
        self.run.finish()


class Trackio:
    """Hugging Face's local tracker: trackio show --project innerloop."""

    def __init__(self, folder: Path, settings: Flat) -> None:
        trackio: Any = import_module("trackio")  # an extra: there may be no types of it here
        self.run = trackio.init(project=PROJECT, name=folder.name, config=dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def end(self) -> None:
        self.run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI, else a database in the run's folder."""

    def __init__(self, folder: Path, settings: Flat) -> None:
        mlflow: Any = import_module("mlflow")  # an extra: there may be no types of it here
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
        self.client = mlflow.MlflowClient(place)
        found = self.client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self.client.create_experiment(PROJECT)
        self.run = self.client.create_run(experiment, run_name=folder.name).info.run_id
        for key, value in settings.items():
            self.client.log_param(self.run, key, str(value)[:500])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, name, value, step=step)

    def end(self) -> None:
        self.client.set_terminated(self.run)


TRACKERS: dict[str, TrackerRow] = {
    "tensorboard": TrackerRow("tensorboard", "tensorboard", TensorBoard),
    "trackio": TrackerRow("trackio", "trackio", Trackio),
    "wandb": TrackerRow("wandb", "wandb", WeightsAndBiases),
    "mlflow": TrackerRow("mlflow", "mlflow", MLflow),
}


def missing(names: Sequence[str]) -> list[Fault]:
    """Of the trackers that are asked for and not installed."""
    gone = [name for name in names if find_spec(TRACKERS[name].module) is None]
    return [
        Fault("this tracker is not installed", "report_to", name, f"pip install {TRACKERS[name].package}")
        for name in gone
    ]


@contextmanager
def reporting(names: Sequence[str], folder: Path, settings: Flat) -> Generator[Told]:
    """Tells all of them of each step, and that the run has ended, however it does."""
    live = dict[str, Tracker]()

    def tell(name: str, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except Exception as error:  # anyone's code, on anyone's network: a run is worth more than its plot
            live.pop(name, None)
            said = f"report_to: {name} is left out from here on: {type(error).__name__}: {error}"
            warnings.warn(said, RuntimeWarning, stacklevel=3)

    def told(step: int, values: Mapping[str, float]) -> None:
        for name, tracker in list(live.items()):
            tell(name, lambda tracker=tracker: tracker.log(step, values))

    for name in names:
        opened = tell(name, lambda name=name: TRACKERS[name].opened(folder, settings))
        if opened is not None:
            live[name] = opened
    try:
        yield told
    finally:
        for name, tracker in list(live.items()):
            tell(name, tracker.end)
