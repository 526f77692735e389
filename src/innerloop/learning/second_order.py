"""Exact second order without an unrolled graph: keep phi_0 .. phi_{K-1}, sweep backwards.

Legend: T = tasks, K = inner steps; phi_{k+1} = phi_k - u(g_k), g_k the support gradient at phi_k, H_k its Jacobian.

sweep   v <- v - H_k D_k^T v for k = K-1 .. 0, D_k the Jacobian of u at g_k (rates, clipping); `beside` adds to v at
        phi_k what is a function of it, too

The chain rule gives d phi_{k+1} / d phi_k = I - D_k H_k, and H_k is symmetric, so its transpose applied to v is
v - H_k D_k^T v: one Hessian-vector product per step, memory flat in K but for the stored phi_k (MAML, Finn et al.
2017, arXiv:1703.03400, section 2.2, differentiated step by step).
"""

from collections.abc import Callable, Collection, Sequence

import torch

from innerloop.data.tasks import Batch
from innerloop.numerics.optimizers import Sgd
from innerloop.numerics.tensors import TensorSet
from innerloop.spaces.phases import phase
from innerloop.spaces.space import ParameterSpace


def sweep(
    space: ParameterSpace,
    trajectory: Sequence[tuple[TensorSet, Batch]],
    optimizer: Sgd,
    vector: TensorSet,
    *,
    only: Collection[str] | None = None,
    beside: Callable[[int, TensorSet], TensorSet | None] | None = None,
) -> TensorSet:
    """J^T v (T, ...), J = d phi_K / d phi_0; trajectory: (phi_k, the batch of step k) for k = 0 .. K-1.

    only: what the steps moved, None = all; u and D are of that part, and H is of all: the rest changes its gradient.
    """
    moved = set(vector if only is None else only)
    for k, (phi, batch) in reversed(list(enumerate(trajectory))):
        gradient = None
        if optimizer.clip is not None:  # clipping's Jacobian depends on the gradient it clipped
            with phase("query"):
                _, gradient = space.loss_and_gradient(phi, batch)
            assert gradient is not None
            gradient = {name: value for name, value in gradient.items() if name in moved}
        turned = optimizer.vjp({name: value for name, value in vector.items() if name in moved}, gradient)
        turned = {name: turned[name] if name in moved else torch.zeros_like(value) for name, value in vector.items()}
        with phase("query"):
            product = space.hessian_vector_product(phi, batch, turned)
        vector = {name: value - product[name] for name, value in vector.items()}
        if beside and (more := beside(k, phi)) is not None:
            vector = {name: value + more[name] for name, value in vector.items()}
    return vector
