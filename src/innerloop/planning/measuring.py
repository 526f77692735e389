"""A trainer's steps with a tracker that listens to them: docs/design/0007-a-plan-is-the-real-step.md.

tracked   for as long as it is open, what a trainer does is counted, by phase and part
"""

from collections.abc import Generator
from contextlib import contextmanager

from innerloop.engine.trainer import Trainer
from innerloop.loading.architecture import head
from innerloop.planning.tracking import ByteTracker
from innerloop.spaces.phases import listening


@contextmanager
def tracked(trainer: Trainer, tracker: ByteTracker) -> Generator[None]:
    """The steps of `trainer` inside. No number of theirs changes."""
    _adopt(trainer, tracker)
    tracker.at(phase="inner", stage="between")
    with listening(tracker.hear), tracker:
        yield


def _adopt(trainer: Trainer, tracker: ByteTracker) -> None:
    """What rests in memory before the step."""
    space = trainer.space
    shared = {value.untyped_storage()._cdata for value in space.shared.values()}
    frozen = (each for each in space.model.parameters() if each.untyped_storage()._cdata not in shared)
    tracker.adopt("base", (*space.model.buffers(), *frozen))
    moments = (value for name, value in trainer.tensors.items() if not name.startswith("shared/"))
    resting = {
        "shared values": space.shared.values(),
        "gradients": (*trainer.gradient.values(), *(trainer.rates.rates.gradient.values() if trainer.rates else ())),
        "meta-optimizer": moments,
    }
    for part, tensors in resting.items():
        tracker.adopt(part, tensors, host=tracker.host_follows)
    tracker.train(space.shared, head(space.model)[0])
