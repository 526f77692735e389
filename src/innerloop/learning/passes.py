"""The passes that rules share, beside their inner loop.

Legend: theta = shared values, phi_k = the values after k of K inner steps; S_i, Q_i = a task's support and query set.

query_gradient   the pass on the query sets, as a phase of its own
added_at         what inner.anchor and inner.multi_step add to g at phi_k
on_the_way       the same, as the inner loop goes
query_of         the query sets of tasks that have some
"""

from collections.abc import Callable, Mapping
from itertools import count

from torch import Tensor

from innerloop.data.tasks import Batch, TaskBatch
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.tensors import TensorSet, accumulate
from innerloop.spaces.phases import phase
from innerloop.spaces.space import ParameterSpace


def query_gradient(
    space: ParameterSpace,
    values: Mapping[str, Tensor],
    tasks: TaskBatch,
    *,
    into: TensorSet | None = None,
    weight: float = 1.0,
) -> tuple[Tensor, TensorSet | None]:
    """`space.loss_and_gradient` of the query sets at `values` (T, ...); weight: of the gradient."""
    with phase("query"):
        if weight == 1:
            return space.loss_and_gradient(values, query_of(tasks), into=into)
        loss, gradient = space.loss_and_gradient(values, query_of(tasks))
    assert gradient is not None
    gradient = {name: value.mul_(weight) for name, value in gradient.items()}
    if into is None:
        return loss, gradient
    accumulate(into, gradient)
    return loss, None


def added_at(inner: InnerLoop, space: ParameterSpace, tasks: TaskBatch, k: int, phi: TensorSet) -> TensorSet | None:
    """What joins the gradient at phi_k, k < K: anchor * grad L(theta; S_i), or w_k grad L(phi_k; Q_i) for k > 0."""
    weight, read = (inner.weights[k - 1], query_of(tasks)) if k else (inner.anchor, tasks.support[0])
    if not weight:
        return None
    with phase("query"):
        _, gradient = space.loss_and_gradient(phi, read)
    assert gradient is not None
    return {name: value.mul_(weight) for name, value in gradient.items()}


def on_the_way(
    inner: InnerLoop, space: ParameterSpace, tasks: TaskBatch, into: TensorSet
) -> Callable[[TensorSet, Batch], None] | None:
    """The same for `adapt`, of a first-order rule: every gradient is taken at its phi_k and applied to theta."""
    passed = count()

    def before_step(phi: TensorSet, batch: Batch) -> None:
        if (added := added_at(inner, space, tasks, next(passed), phi)) is not None:
            accumulate(into, added)

    return before_step if inner.anchor or inner.spread else None


def query_of(tasks: TaskBatch) -> Batch:
    assert tasks.query is not None
    return tasks.query
