"""Frozen bases in which an update of the collective shift is a few hundred coordinates.

    W = R + A P        R: (r, d), P: (k, d), frozen        A: (r, k), b: (r), all that moves

The map of each shifted layer becomes h -> R^T (A P h + b) (the form of LoRA-XS, arXiv 2405.17604, and of
Fed-SB, arXiv 2502.15436). With R fixed the gauge freedom of (R, W, b) is gone: the same coordinate means the
same thing at every client, so means, medians and votes compare like with like.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError

MAGIC = b"FPB1"
"""First bytes of an encoded basis."""
ORTHONORMAL = 1e-4
"""Largest entry of R R^T - I, and of P P^T - I, in a basis, which always travels in fp32."""
_INSIDE = 1e-4
"""Largest part of W - R outside of a basis in which it is said to lie: fp32 rounds W."""
_FIELDS = {
    "columns": int,
    "fingerprint": str,
    "hidden_size": int,
    "layers": list,
    "positions": str,
    "rank": int,
    "task": str,
}
_MOST_HEADER = 65_536


@dataclass(frozen=True, eq=False)
class Basis:
    """R and P of every shifted layer, for one task and base model; equal where the digests are."""

    shape: ShiftShape
    """Layers, rank r, hidden size d and positions of the shifts in this basis."""
    task: str
    """Name of the LaMP task."""
    fingerprint: str
    """Fingerprint of the base model."""
    R: torch.Tensor
    """Rows that span the shifted subspace: (layers, r, d) fp32, orthonormal."""
    P: torch.Tensor
    """Rows along which hidden states are read: (layers, k, d) fp32, orthonormal."""

    def __post_init__(self) -> None:
        layers, rank, size = len(self.shape.layers), self.shape.rank, self.shape.hidden_size
        if tuple(self.R.shape) != (layers, rank, size):
            raise InputError(f"R has shape {tuple(self.R.shape)}, expected {(layers, rank, size)}")
        if self.P.dim() != 3 or (self.P.shape[0], self.P.shape[2]) != (layers, size) or not self.columns:
            raise InputError(f"P has shape {tuple(self.P.shape)}, expected ({layers}, columns, {size})")
        if not all(bool(tensor.isfinite().all()) for tensor in (self.R, self.P)):
            raise InputError("the basis is not finite")
        for name, rows in (("R", self.R.double()), ("P", self.P.double())):
            error = float((rows @ rows.mT - torch.eye(rows.shape[1])).abs().max())
            if not error <= ORTHONORMAL:
                raise InputError(f"the rows of the basis's {name} are not orthonormal: off by {error:.3g}")

    @property
    def columns(self) -> int:
        """Number k of rows of P in each layer."""
        return self.P.shape[1]

    @property
    def numbers(self) -> int:
        """Number of coordinates, n (r k + r) for n layers."""
        return coordinate_count(self.shape, self.columns)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the encoded basis, which names it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Encode as magic, length of the header, header as JSON, then R and P in fp32, little endian."""
        fields: dict[str, Any] = {
            "columns": self.columns,
            "fingerprint": self.fingerprint,
            "hidden_size": self.shape.hidden_size,
            "layers": list(self.shape.layers),
            "positions": str(self.shape.positions),
            "rank": self.shape.rank,
            "task": self.task,
        }
        header = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        values = b"".join(tensor.cpu().numpy().astype("<f4").tobytes() for tensor in (self.R, self.P))
        return MAGIC + struct.pack("<I", len(header)) + header + values

    @classmethod
    def from_bytes(cls, data: bytes) -> "Basis":
        """Decode what `to_bytes` encoded.

        Raises:
            InputError: If the data is malformed.
        """
        fields, offset = _header(data)
        shape = ShiftShape(
            layers=tuple(fields["layers"]),
            rank=fields["rank"],
            hidden_size=fields["hidden_size"],
            positions=Positions.parse(fields["positions"]),
        )
        rows = [len(shape.layers) * shape.rank, len(shape.layers) * fields["columns"]]
        if fields["columns"] < 1 or len(data) - offset != 4 * sum(rows) * shape.hidden_size:
            raise InputError("the basis has too few or too many values")
        values = torch.from_numpy(np.frombuffer(data, "<f4", offset=offset).astype(np.float32))
        R, P = values.view(-1, shape.hidden_size).split(rows)
        slabs = [part.reshape(len(shape.layers), -1, shape.hidden_size).clone() for part in (R, P)]
        return cls(shape, fields["task"], fields["fingerprint"], *slabs)


def coordinate_count(shape: ShiftShape, columns: int) -> int:
    """Return the number of coordinates of a shift in a basis.

    Args:
        shape: Shape of the shift.
        columns: Number k of rows of P in each layer.
    """
    return len(shape.layers) * (shape.rank * columns + shape.rank)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A collective shift as its coordinates in a basis."""

    basis: Basis
    """The frozen R and P."""
    A: torch.Tensor
    """Coordinates of W - R: (layers, r, k)."""
    b: torch.Tensor
    """Bias of each row of R: (layers, r)."""

    @classmethod
    def zero(cls, basis: Basis) -> "Coordinates":
        """Make the coordinates of the identity."""
        return cls.of(basis, torch.zeros(basis.numbers))

    @classmethod
    def of(cls, basis: Basis, numbers: torch.Tensor) -> "Coordinates":
        """Split a vector (n,) of A, row by row, then b.

        Raises:
            InputError: If it has another length.
        """
        if tuple(numbers.shape) != (basis.numbers,):
            raise InputError(f"{tuple(numbers.shape)} coordinates, expected ({basis.numbers},)")
        layers, rank, columns = len(basis.shape.layers), basis.shape.rank, basis.columns
        A, b = numbers.split([layers * rank * columns, layers * rank])
        return cls(basis, A.reshape(layers, rank, columns).clone(), b.reshape(layers, rank).clone())

    @classmethod
    def of_shift(cls, basis: Basis, shift: Shift) -> "Coordinates | None":
        """Return the coordinates of a plain shift; None where it does not lie in the basis.

        Args:
            basis: The basis.
            shift: A shift that was released from this basis or another, in fp32.
        """
        if shift.shape != basis.shape or not torch.equal(shift.R.detach(), basis.R):
            return None
        change = (shift.W - shift.R).detach().double()
        P = basis.P.double()
        A = change @ torch.linalg.pinv(P)
        if float((A @ P - change).norm()) > _INSIDE * max(1.0, float(change.norm())):
            return None
        return cls(basis, A.float(), shift.b.detach().clone())

    @property
    def numbers(self) -> torch.Tensor:
        """The coordinates as one vector (n,): A, row by row, then b."""
        return torch.cat([self.A.flatten(), self.b.flatten()])

    @property
    def shape(self) -> ShiftShape:
        """Shape of the shift."""
        return self.basis.shape

    def shift(self) -> Shift:
        """Make the plain shift R, W = R + A P, b, which knows nothing of the basis any more."""
        R = self.basis.R.clone()
        return Shift(self.shape, R=R, W=R + self.A @ self.basis.P, b=self.b.clone())


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """Read and check the header's fields, and return them with the offset of the values."""
    if data[:4] != MAGIC or len(data) < 8:
        raise InputError("not a basis of format FPB1")
    (length,) = struct.unpack("<I", data[4:8])
    if length > _MOST_HEADER or len(data) < 8 + length:
        raise InputError("the basis is truncated")
    try:
        fields = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        raise InputError("the basis has a header that is not JSON") from None
    if not isinstance(fields, dict) or set(fields) != set(_FIELDS):
        raise InputError("the basis has a header with missing or unknown fields")
    for name, kind in _FIELDS.items():
        if type(fields[name]) is not kind:
            raise InputError(f"the basis has a header whose {name} is not a {kind.__name__}")
    if any(type(layer) is not int for layer in fields["layers"]):
        raise InputError("the basis has a header whose layers are not integers")
    return fields, 8 + length
