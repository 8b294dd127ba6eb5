"""Aggregation that a minority of malicious clients cannot lead far astray.

(Q R, Q W, Q b) is the same shift for every orthogonal Q, so medians and distances of raw tensors compare
numbers that mean nothing. Here every update is first turned to the gauge nearest to the broadcast shift's,
Q = polar(R_0 R_i^T); medians and trimmed means are then taken entry by entry of R, and of the maps
R_i^T (W_i - R_i) and R_i^T b_i on the rows of the result. Krum needs distances only, and those of the maps
follow from r x r products:

    <M_i, M_j> = sum (R_i R_j^T) o ((W_i - R_i) (W_j - R_j)^T),    <v_i, v_j> = b_i^T R_i R_j^T b_j

All rules give every client the same weight: with claimed counts a malicious client would weigh more.
"""

import math
from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
import torch

from fedperfit.cloud.rounds.aggregation import aggregate, polar
from fedperfit.cloud.rounds.settings import AggregationRule
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.flower_internals import multi_krum, trimmed_mean

RULES: tuple[str, ...] = get_args(AggregationRule)
"""`mean` is `cloud.rounds.aggregation`; the others are here."""


class TooFew(Exception):
    """Too few updates for the rule to tell malicious ones apart; the text says how many it needs."""


def assumed(updates: int, share: float) -> int:
    """Return how many updates are assumed to be malicious.

    Args:
        updates: Number of updates.
        share: Share of them that may be malicious.
    """
    return math.ceil(round(share * updates, 6))


def needed(rule: str, updates: int, share: float) -> int:
    """Return how many updates a robust rule needs.

    Args:
        rule: One of RULES but the mean.
        updates: Number of updates in all.
        share: Share of them that may be malicious.
    """
    liars = assumed(updates, share)
    return max(2 * liars + (3 if rule in ("krum", "multi-krum") else 1), 3)


@torch.no_grad()
def robust(rule: str, shifts: Sequence[Shift], share: float, reference: Shift) -> Shift:
    """Aggregate updates under a robust rule (Yin et al. 2018; Blanchard et al. 2017).

    Args:
        rule: One of RULES but the mean.
        shifts: Updates of one shape.
        share: Share of them that may be malicious, below one half.
        reference: The shift that was broadcast.

    Raises:
        TooFew: If the rule needs more updates.
    """
    liars = _enough(rule, len(shifts), share)
    turned = [_turned(shift, reference) for shift in shifts]
    if rule == "krum":
        return _krum(turned, liars, 1)
    if rule == "multi-krum":
        return _krum(turned, liars, len(turned) - liars)
    return _entrywise(turned, _entry_rule(rule, liars, len(turned)))


def robust_numbers(rule: str, changes: torch.Tensor, share: float) -> torch.Tensor:
    """Aggregate vectors whose numbers mean the same at every client, under the same rules.

    Args:
        rule: One of RULES but the mean.
        changes: One row for each update, (updates, n) fp64.
        share: Share of them that may be malicious, below one half.

    Returns:
        (n,) fp64.

    Raises:
        TooFew: If the rule needs more updates.
    """
    liars = _enough(rule, len(changes), share)
    values = changes.numpy()
    if rule in ("krum", "multi-krum"):
        chosen = multi_krum(values, liars, 1 if rule == "krum" else len(values) - liars)
        return changes[list(chosen)].mean(dim=0)
    return torch.from_numpy(_entry_rule(rule, liars, len(values))(values))


def _enough(rule: str, updates: int, share: float) -> int:
    """Return how many liars are assumed; raises TooFew where the rule cannot tell them apart."""
    liars, least = assumed(updates, share), needed(rule, updates, share)
    if updates < least:
        raise TooFew(f"{rule} against {liars} malicious clients needs {least} updates")
    return liars


def _entry_rule(rule: str, liars: int, updates: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that reduces (updates, ...) to (...)."""
    if rule == "median":
        return lambda values: np.median(values, axis=0)
    cut = (liars + 0.25) / updates  # rounded down there, and refused at one half
    return lambda values: trimmed_mean(values, cut)


def _turned(shift: Shift, reference: Shift) -> Shift:
    turn = polar(reference.R.double() @ shift.R.double().mT)
    R, W, b = (getattr(shift, name).double() for name in ("R", "W", "b"))
    return Shift(shift.shape, R=turn @ R, W=turn @ W, b=(turn @ b.unsqueeze(-1)).squeeze(-1))


def _entrywise(shifts: Sequence[Shift], rule: Callable[[np.ndarray], np.ndarray]) -> Shift:
    def over(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.from_numpy(rule(torch.stack(list(tensors)).numpy()))

    basis = polar(over([shift.R.detach() for shift in shifts])).float()
    exact = basis.double()
    turns = [exact @ shift.R.mT for shift in shifts]
    delta = over([turn @ (s.W - s.R) for turn, s in zip(turns, shifts, strict=True)])
    bias = over([(turn @ s.b.unsqueeze(-1)).squeeze(-1) for turn, s in zip(turns, shifts, strict=True)])
    return Shift(shifts[0].shape, R=basis, W=(exact + delta).float(), b=bias.float())


def _krum(shifts: Sequence[Shift], liars: int, chosen: int) -> Shift:
    values, vectors = np.linalg.eigh(_inner_products(shifts))
    points = vectors * np.sqrt(values.clip(min=0))  # (n, n), with the maps' own distances
    return aggregate([(shifts[index], 1.0) for index in multi_krum(points, liars, chosen)])


def _inner_products(shifts: Sequence[Shift]) -> np.ndarray:
    """Return the products (n, n) of the maps, summed over all layers."""
    R = torch.stack([shift.R.detach() for shift in shifts])  # (n, layers, r, d)
    D = torch.stack([(shift.W - shift.R).detach() for shift in shifts])
    b = torch.stack([shift.b.detach() for shift in shifts])
    gram = torch.einsum("ilrd,jlsd->ijlrs", R, R)
    maps = (gram * torch.einsum("ilrd,jlsd->ijlrs", D, D)).sum(dim=(2, 3, 4))
    products: np.ndarray = (maps + torch.einsum("ilr,ijlrs,jls->ij", b, gram, b)).numpy()
    return products
