"""The forecast of a run before it begins, and the measurement of its first step.

Forecaster   what `meta_train` asks for both
seconds_of   a run's time by its tokens alone
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from innerloop.engine.groundwork import Say
from innerloop.engine.schedules import joint_steps
from innerloop.engine.session import Session
from innerloop.engine.trainer import Trainer
from innerloop.learning.methods import Joint
from innerloop.machine import peak_memory, reset_peak_memory
from innerloop.planning.devices import CPU_FLOAT32, Device, chosen
from innerloop.planning.forecast import Forecast, forecast
from innerloop.planning.measuring import tracked
from innerloop.planning.outcome import Taken
from innerloop.planning.tracking import ByteTracker, footprint
from innerloop.planning.workload import workload_of_session

A_MINUTE = 60.0  # a forecast takes seconds, and a run that is over in a minute soon says itself what it takes
FLOPS = 6  # per parameter and token of a pass: 2 forward, 4 backward


class Forecaster:
    """Made before the model is read: what is resident then is no part of the run.

    on_forecast  told the forecast
    longer_than  seconds by `seconds_of`: a shorter run gets no forecast, and its first step is an ordinary one
    say          told that the forecast is being made
    """

    def __init__(
        self, on_forecast: Callable[[Forecast], None], *, longer_than: float = A_MINUTE, say: Say | None = None
    ) -> None:
        self.on_forecast, self.longer_than, self.say = on_forecast, longer_than, say
        reset_peak_memory()
        self.resident_before = peak_memory()["rss"]

    def begins(self, session: Session) -> dict[str, Any]:
        """The forecast, for the manifest."""
        device = chosen(None, model_device=session.config.model.device)
        if seconds_of(session, device) < self.longer_than:
            return {}
        if self.say:
            self.say("forecasting the run", 0, 0)
        expected = forecast(workload_of_session(session), device)
        self.on_forecast(expected)
        return expected.facts()

    @contextmanager
    def first_step(self, session: Session, trainer: Trainer) -> Generator[dict[str, Any]]:
        """Counts every storage while the step is taken."""
        tracker, found = ByteTracker(session.device), dict[str, Any]()
        with tracked(trainer, tracker):
            yield found
        if session.config.outer.steps > 1:
            reset_peak_memory()  # under a tracker autograd adds up a tied head's gradients out of place
        taken = footprint(tracker.peaks, tracker.host_peak, tracker.flops)
        whole = taken.with_cache(session.store.kept, on_host=session.device.type != "cpu")
        found |= Taken(whole, self.resident_before).facts()


def seconds_of(session: Session, device: Device) -> float:
    """The first step's tokens at most, as many for every step of its rule, at the device's rate, or at a CPU's.

    Rough, and the same on every call: what LoRA saves, attention's products and padding are left out.
    """
    config, streams = session.config, session.streams()
    joint, (_, batches) = joint_steps(config.outer), streams[0]
    parameters = sum(parameter.numel() for parameter in session.model.model.parameters())
    spent = joint * Joint().tokens(batches.of(0, joint=True)) if joint else 0
    spent += (config.outer.steps - joint) * config.method.build().tokens(batches.longest)
    tokens = spent * len(streams)
    rate = device.rate(config.model.dtype) or CPU_FLOAT32
    return FLOPS * parameters * tokens / rate.flops
