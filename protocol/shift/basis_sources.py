"""Where a basis comes from: a seed, public pairs that belong to no client, or the clients' own gradients.

R follows the leading gradients of the loss at each shifted layer, the directions in which a shift helps; P
reads the hidden states along their mean and their leading principal components, in which they differ. What a
basis leaves out no update can reach: random rows lose most of what a collective shift gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedperfit.protocol.shift.basis import Basis
from fedperfit.protocol.shift.selection import LayerGradient, leading_axes
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.seeds import seed_from


@dataclass(frozen=True)
class StateMoments:
    """Moments of the hidden states at the shifted positions; fp64."""

    mean: torch.Tensor
    """Mean state: (layers, d)."""
    covariance: torch.Tensor
    """Covariance of the states: (layers, d, d)."""


def random_basis(shape: ShiftShape, columns: int, *, task: str, fingerprint: str, seed: int) -> Basis:
    """Draw a basis whose R and P have random orthonormal rows.

    Args:
        shape: Shape of the shifts.
        columns: Number k of rows of P.
        task: Name of the LaMP task.
        fingerprint: Fingerprint of the base model.
        seed: Seed of both.
    """
    check_columns(shape, columns)
    wide = ShiftShape(shape.layers, columns, shape.hidden_size, shape.positions)
    R = Shift.identity(shape, seed=seed_from(f"{seed}/basis R")).R.detach()
    P = Shift.identity(wide, seed=seed_from(f"{seed}/basis P")).R.detach()
    return Basis(shape, task, fingerprint, R, P)


def public_basis(
    layer_gradients: Sequence[LayerGradient],
    moments: StateMoments,
    shape: ShiftShape,
    columns: int,
    *,
    task: str,
    fingerprint: str,
    seed: int,
) -> Basis:
    """Make a basis that follows what public pairs show.

    Args:
        layer_gradients: One per public person or group of pairs, of all decoder layers.
        moments: Moments of the states in the shifted layers.
        shape: Shape of the shifts.
        columns: Number k of rows of P: the mean direction, then k - 1 principal components.
        task: Name of the LaMP task.
        fingerprint: Fingerprint of the base model.
        seed: Seed of the rows of R that fill up where there are fewer gradients than rows.
    """
    check_columns(shape, columns)
    drawn = Shift.identity(shape, seed=seed).R.detach()
    R = [leading_axes(layer_gradients, layer, drawn[index]) for index, layer in enumerate(shape.layers)]
    P = [
        _reading_rows(mean, covariance, columns)
        for mean, covariance in zip(*vars(moments).values(), strict=True)
    ]
    return Basis(shape, task, fingerprint, torch.stack(R), torch.stack(P))


def federated_basis(
    layer_gradients: Sequence[LayerGradient],
    shape: ShiftShape,
    columns: int,
    *,
    task: str,
    fingerprint: str,
    seed: int,
) -> Basis:
    """Make a basis that follows clients' gradients alone, where nobody has public pairs.

    R is that of `public_basis`. What states differ along is not known; P reads them along R, where they
    matter to the loss, and along random rows.

    Args:
        layer_gradients: One per client, of all decoder layers.
        shape: Shape of the shifts.
        columns: Number k of rows of P: those of R first.
        task: Name of the LaMP task.
        fingerprint: Fingerprint of the base model.
        seed: Seed of the rows of R and P that fill up.
    """
    drawn = random_basis(shape, columns, task=task, fingerprint=fingerprint, seed=seed)
    R = torch.stack(
        [leading_axes(layer_gradients, layer, drawn.R[index]) for index, layer in enumerate(shape.layers)]
    )
    rows = torch.cat([R, drawn.P], dim=1)[:, :columns].double()
    P = torch.linalg.qr(rows.transpose(1, 2)).Q.transpose(1, 2).float().contiguous()
    return Basis(shape, task, fingerprint, R, P)


def _reading_rows(mean: torch.Tensor, covariance: torch.Tensor, columns: int) -> torch.Tensor:
    """Return (k, d) orthonormal rows along the mean (d,) and the leading components of the covariance."""
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :columns]  # (d, k), largest first
    whole = torch.cat([mean[:, None], axes], dim=1)[:, :columns]
    rows = torch.linalg.qr(whole).Q.T
    signs = torch.where(rows.gather(1, rows.abs().argmax(1, keepdim=True)) < 0, -1.0, 1.0)
    signed: torch.Tensor = rows * signs
    return signed.float()


def check_columns(shape: ShiftShape, columns: int) -> None:
    """Raise InputError unless so many rows of P can be orthonormal."""
    if not 1 <= columns <= shape.hidden_size:
        raise InputError(f"update-columns={columns} is outside 1..{shape.hidden_size}, the hidden size")
