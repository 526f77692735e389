"""A trainer whose steps tell a tracker what they are doing.

watched   for as long as it is open, what a trainer does is tracked, by phase and part

A phase lasts until the next one begins: what a rule computes between two passes belongs to the first of them. The
query phase has the query's pass and, under MAML, the sweep back through the inner steps.
"""

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from innerloop.data.tasks import Batch, TaskBatch
from innerloop.engine.trainer import Trainer
from innerloop.learning.methods import Method, Outcome
from innerloop.loading.architecture import head
from innerloop.numerics.optimizers import Optimizer, State
from innerloop.numerics.tensors import TensorSet
from innerloop.planning.tracking import Tracker
from innerloop.spaces.all_parameters import AllParameters
from innerloop.spaces.lora import LoraSpace
from innerloop.spaces.space import ParameterSpace, TaskLoss, Trained


@contextmanager
def watched(trainer: Trainer, tracker: Tracker) -> Generator[None]:
    """The steps of `trainer` inside are tracked, and leave it as they found it otherwise."""
    space, method, loss = trainer.space, trainer.method, trainer.space.loss
    _adopt(trainer, tracker)
    tracker.at(phase="inner", stage="between")
    trainer.space, trainer.method = _WatchedSpace(space, tracker), _WatchedMethod(method, tracker)
    space.loss = _watched_loss(loss, tracker)
    compiled = space.compiled if isinstance(space, LoraSpace) else None
    if isinstance(space, LoraSpace):
        space.compiled = None  # a tracker sees operators, and compiled layers have none: this step runs without
    try:
        with tracker:
            yield
    finally:
        trainer.space, trainer.method, space.loss = space, method, loss
        if isinstance(space, LoraSpace):
            space.compiled = compiled


def _adopt(trainer: Trainer, tracker: Tracker) -> None:
    space, state = trainer.space, trainer._state  # pyright: ignore[reportPrivateUsage]
    tracker.adopt("base", space.model.buffers())
    if not isinstance(space, AllParameters):
        tracker.adopt("base", space.model.parameters())
    resting = {
        "shared values": space.shared.values(),
        "gradients": trainer._gradient.values(),  # pyright: ignore[reportPrivateUsage]
        "meta-optimizer": (leaf for leaf in tree_leaves(vars(state)) if isinstance(leaf, Tensor)),
    }
    for part, tensors in resting.items():
        tracker.adopt(part, tensors, host=tracker.host_follows)
    tracker.train(space.shared, head(space.model)[0])


class _WatchedSpace(ParameterSpace):
    """The same space, which tells the tracker what it is asked for."""

    def __init__(self, space: ParameterSpace, tracker: Tracker) -> None:
        super().__init__(space.model, space.loss, space.device)
        self.space, self.tracker, self.shared, self.limit = space, tracker, space.shared, space.limit

    @contextmanager
    def _call(self, phase: str) -> Generator[None]:
        self.tracker.at(phase=phase, stage="enter")
        yield
        self.tracker.at(stage="between")

    def fork(self, start: Mapping[str, Tensor]) -> TensorSet:
        with self._call("inner"):
            return self.space.fork(start)

    def descend(self, values: TensorSet, state: State, batch: Batch, optimizer: Optimizer) -> Tensor:
        with self._call("inner"):
            return self.space.descend(values, state, batch, optimizer)

    def loss_and_gradient(
        self, values: Mapping[str, Tensor], batch: Batch, *, into: TensorSet | None = None
    ) -> tuple[Tensor, TensorSet | None]:
        with self._call("query"):
            return self.space.loss_and_gradient(self._beside(values), batch, into=into)

    def hessian_vector_product(
        self, values: Mapping[str, Tensor], batch: Batch, vector: Mapping[str, Tensor]
    ) -> TensorSet:
        with self._call("query"):
            return self.space.hessian_vector_product(values, batch, vector)

    def installed(self, values: Mapping[str, Tensor]) -> AbstractContextManager[nn.Module]:
        return self.space.installed(values)

    def trained(self) -> Trained:
        return self.space.trained()

    def _beside(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """With the copies that a GPU would make of values in host memory, where both are one fake device."""
        if not isinstance(self.space, AllParameters):
            return values
        dtype = self.space.dtype  # a cast is a copy already
        far = {name for name, value in values.items() if value.dtype == dtype and self.tracker.stands_for_host(value)}
        return {name: value.clone() if name in far else value for name, value in values.items()}


class _WatchedMethod(Method):
    def __init__(self, method: Method, tracker: Tracker) -> None:
        self.method, self.tracker = method, tracker
        self.inner = getattr(method, "inner", None)  # what a trainer says of a loss that is not finite

    def outer_gradient(
        self, space: ParameterSpace, start: Mapping[str, Tensor], tasks: TaskBatch, into: TensorSet
    ) -> Outcome:
        outcome = self.method.outer_gradient(space, start, tasks, into)
        self.tracker.at(phase="outer", stage="between")
        return outcome

    def forwards(self, tasks: TaskBatch) -> list[Batch]:
        return self.method.forwards(tasks)


def _watched_loss(loss: TaskLoss, tracker: Tracker) -> TaskLoss:
    def watched_loss(batch: Batch, *, twice: bool = False) -> Tensor:
        tracker.at(stage="forward")
        nats_T = loss(batch, twice=twice)
        tracker.at(stage="backward")
        return nats_T

    return watched_loss
