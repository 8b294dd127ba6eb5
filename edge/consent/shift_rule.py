"""Which collective shifts a policy allows."""

import torch

from fedperfit.edge.consent.refusal import Refused
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.trust.policy import Policy

_ORTHONORMAL = 0.02
"""Largest entry of R R^T - I: bfloat16 transport rounds the rows by up to this."""


def check_shift(name: str, shift: Shift, policy: Policy) -> None:
    """Refuse a shift that was not agreed to.

    Args:
        name: Request it came with, or what else it is, for the reason.
        shift: The shift.
        policy: What the owner agreed to.

    Raises:
        Refused: Its shape, its R or the size of what it changes was not agreed to.
    """
    if shift.shape != policy.shape:
        raise Refused(f"{name}: a shift of {_told(shift.shape)}; agreed is {_told(policy.shape)}")
    R, W, b = (tensor.detach().double() for tensor in (shift.R, shift.W, shift.b))
    if not all(torch.isfinite(tensor).all() for tensor in (R, W, b)):
        raise Refused(f"{name}: the shift is not finite")
    if (R @ R.mT - torch.eye(R.shape[1], dtype=R.dtype)).abs().max() > _ORTHONORMAL:
        raise Refused(f"{name}: the rows of R are not orthonormal")
    change = max((W - R).flatten(1).norm(dim=1).max().item(), b.norm(dim=1).max().item())
    if change > policy.largest_change:
        raise Refused(f"{name}: the shift changes {change:.3g}, agreed is {policy.largest_change:g}")


def _told(shape: ShiftShape) -> str:
    return f"layers {', '.join(map(str, shape.layers))}, rank {shape.rank}, positions {shape.positions}"
