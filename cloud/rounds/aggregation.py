"""The weighted mean of collective updates, with R brought back to orthonormal rows.

An element-wise mean of (R, W, b) compares numbers that depend on each client's gauge: (Q R, Q W, Q b)
is the same shift for every orthogonal Q. So only R is averaged as it is; the maps are averaged as maps:

    R   <- polar factor of S = sum_i w_i R_i             (S S^T)^(-1/2) S
    W   <- R + sum_i w_i (R R_i^T) (W_i - R_i)           the mean of R_i^T (W_i - R_i) on the rows of R
    b   <- sum_i w_i (R R_i^T) b_i                       the mean of R_i^T b_i on the rows of R

Exact when all R_i span the same rows.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from fedperfit.protocol.shift.shift import Shift


@torch.no_grad()
def aggregate(updates: Sequence[tuple[Shift, float]]) -> Shift:
    """Average updates, weighted, and bring R back to orthonormal rows.

    Sums run in float64 in the order given, so the caller sorts for a result that does not depend on
    who replied first.

    Args:
        updates: Shifts of one shape with their positive weights; only ratios of weights matter.

    Returns:
        The mean in fp32.

    Raises:
        ValueError: For no updates, a weight that is not positive and finite, or shifts of different shapes.
    """
    return mean_shift(lambda: (shift for shift, _ in updates), [weight for _, weight in updates])


@torch.no_grad()
def mean_shift(shifts: Callable[[], Iterator[Shift]], weights: Sequence[float]) -> Shift:
    """Average shifts as `aggregate` does, holding one of them at a time.

    Args:
        shifts: Begins to yield them; called twice, as the maps are averaged on the rows of the mean R.
        weights: Their weights, in the same order.

    Returns:
        The mean in fp32.

    Raises:
        ValueError: As `aggregate` raises it.
    """
    if not weights:
        raise ValueError("no updates to aggregate")
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError("a weight is not positive and finite")
    total = math.fsum(weights)
    shares = [weight / total for weight in weights]
    first = next(shifts())
    mean = torch.zeros_like(first.R, dtype=torch.double)
    for shift, share in zip(shifts(), shares, strict=True):
        if shift.shape != first.shape:
            raise ValueError("the updates have different shapes")
        mean += share * shift.R.double()
    basis = polar(mean).float()
    exact = basis.double()
    delta = torch.zeros_like(mean)
    bias = torch.zeros_like(first.b, dtype=torch.double)
    for shift, share in zip(shifts(), shares, strict=True):
        R, W, b = shift.R.double(), shift.W.double(), shift.b.double()
        turn = exact @ R.mT  # (layers, r, r)
        delta += share * (turn @ (W - R))
        bias += share * (turn @ b.unsqueeze(-1)).squeeze(-1)
    return Shift(first.shape, R=basis, W=(exact + delta).float(), b=bias.float())


def polar(S: torch.Tensor) -> torch.Tensor:
    """Return (S S^T)^(-1/2) S, the matrix with orthonormal rows nearest to S.

    By the singular value decomposition U diag V^T -> U V^T, which still has orthonormal rows where S
    has lost rank (two clients with opposite R), where the inverse root would be infinite.

    Args:
        S: (..., r, d), r <= d.
    """
    U, _, Vt = torch.linalg.svd(S, full_matrices=False)
    result: torch.Tensor = U @ Vt
    return result
