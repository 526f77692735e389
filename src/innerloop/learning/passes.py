"""The passes that rules share, beside their inner loop.

Legend: theta = shared values, phi_k = the values after k of K inner steps; S_i, Q_i = a task's support and query set.

query_gradient   the pass on the query sets, as a phase of its own
added_at         what inner.anchor and inner.multi_step add to g at phi_k
Way              from theta to phi_K, of a first-order rule: what is added on the way, and what rates learn
how_far          the inner loop moved
query_of         the query sets of tasks that have some
"""

from collections.abc import Mapping

from torch import Tensor

from innerloop.data.tasks import Batch, TaskBatch
from innerloop.learning.inner_loop import InnerLoop, Reached
from innerloop.numerics.tensors import TensorSet, accumulate, clone, distance, norm
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


class Way:
    """From theta to phi_K, of a first-order rule: every gradient is taken at its phi_k and applied to theta.

    passed   a `before_step` for `adapt`: adds what joins the gradient on the way
    query    adds the query gradient at phi_K, and what it says of learned rates; gives the losses (T,)
    """

    def __init__(
        self, inner: InnerLoop, space: ParameterSpace, start: Mapping[str, Tensor], tasks: TaskBatch, into: TensorSet
    ) -> None:
        self.inner, self.space, self.start, self.tasks, self.into = inner, space, start, tasks, into
        self.rates, self._earlier, self._passed = inner.rates, list[Mapping[str, Tensor]](), 0

    def passed(self, phi: TensorSet, batch: Batch) -> None:
        k = self._passed
        if (added := added_at(self.inner, self.space, self.tasks, k, phi)) is not None:
            accumulate(self.into, added)
            if self.rates and k:
                self.rates.learn(added, [*self._earlier, phi])
        if k == 0:
            self._earlier.append(self.start)
        elif self.rates and self.rates.kind == "tensor-step":
            self._earlier.append(clone(phi))
        self._passed += 1

    def query(self, values: TensorSet) -> Tensor:
        weight = self.inner.weights[-1]
        if self.rates is None:
            return query_gradient(self.space, values, self.tasks, into=self.into, weight=weight)[0]
        loss, gradient = query_gradient(self.space, values, self.tasks, weight=weight)
        assert gradient is not None
        accumulate(self.into, gradient)
        self.rates.learn(gradient, [*self._earlier, values])
        return loss


def how_far(start: Mapping[str, Tensor], reached: Reached) -> Tensor | None:
    """(T,) the distance from theta to phi_K, over theta's norm; None without a step, and across devices.

    To be asked right after the inner loop, whose phase it then belongs to: no pass, and so none of its own.
    """
    pairs = [(start[name], value) for name, value in reached.values.items()]
    if not len(reached.losses) or any(one.device != other.device for one, other in pairs):
        return None
    return distance(reached.values, start) / norm(start)


def query_of(tasks: TaskBatch) -> Batch:
    assert tasks.query is not None
    return tasks.query
