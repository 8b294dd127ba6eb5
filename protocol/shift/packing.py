"""A shift as one array of bytes: a fixed prefix, a JSON header, then R, W and b.

One array because Flower adds about 3 kB per array and transfer. Layout, little endian:
4 bytes magic `FPS1`, 4 bytes header length, the header as UTF-8 JSON with sorted keys, the values.
In bf16 the second slab is W - R, so that the identity stays the identity and a small update its size.
In fp32 it is W: a round trip is exact.
"""

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift, newton_schulz
from fedperfit.protocol.system.errors import InputError

MAGIC = b"FPS1"
"""First bytes of a packed shift."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Encodings of the values, by the name in the header."""
_HEADER_FIELDS = {
    "dtype": str,
    "fingerprint": str,
    "hidden_size": int,
    "layers": list,
    "positions": str,
    "rank": int,
    "round": int,
    "task": str,
}
_MAX_HEADER = 65_536


@dataclass(frozen=True)
class ShiftHeader:
    """What a packed shift says about itself."""

    shape: ShiftShape
    """Layers, rank, hidden size and positions."""
    task: str
    """Name of the LaMP task the shift was trained for."""
    fingerprint: str
    """Fingerprint of the base model that it shifts."""
    round: int
    """Number of federation rounds behind the shift."""
    dtype: str = "float32"
    """Encoding of the values, `float32` or `bfloat16`."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"dtype={self.dtype!r}: expected one of {', '.join(DTYPES)}")
        if self.round < 0:
            raise InputError(f"round={self.round}: must not be negative")


def pack(shift: Shift, header: ShiftHeader) -> bytes:
    """Pack a collective shift into bytes.

    Args:
        shift: The collective shift.
        header: Its description, of the same shape; its `dtype` decides the encoding.

    Raises:
        TypeError: For any other type of shift: a personal shift never travels.
        InputError: If the header describes another shape.
    """
    if type(shift) is not Shift:
        raise TypeError(f"{type(shift).__name__} cannot be packed: only a collective shift travels")
    if header.shape != shift.shape:
        raise InputError("the header describes a shift of another shape")
    fields: dict[str, Any] = {
        "dtype": header.dtype,
        "fingerprint": header.fingerprint,
        "hidden_size": header.shape.hidden_size,
        "layers": list(header.shape.layers),
        "positions": str(header.shape.positions),
        "rank": header.shape.rank,
        "round": header.round,
        "task": header.task,
    }
    encoded = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    second = shift.W if header.dtype == "float32" else shift.W - shift.R
    values = torch.cat([t.detach().reshape(-1) for t in (shift.R, second, shift.b)])
    data = values.cpu().to(DTYPES[header.dtype]).contiguous().view(torch.uint8).numpy().tobytes()
    return MAGIC + struct.pack("<I", len(encoded)) + encoded + data


def packed_size(shape: ShiftShape, dtype: str) -> int:
    """Return about how many bytes a packed shift has, known before it is trained.

    Args:
        shape: Layers, rank and hidden size.
        dtype: Encoding of the values, `float32` or `bfloat16`.
    """
    return _MAX_HEADER + shape.parameters * DTYPES[dtype].itemsize


def read_header(data: bytes) -> tuple[ShiftHeader, int]:
    """Read the header of a packed shift.

    Args:
        data: A packed shift, or at least its beginning.

    Returns:
        The header and the offset of the values, in bytes.

    Raises:
        InputError: If the data is malformed.
    """
    if data[:4] != MAGIC:
        raise InputError("not a packed shift of format FPS1")
    if len(data) < 8:
        raise InputError("packed shift is truncated")
    (length,) = struct.unpack("<I", data[4:8])
    if length > _MAX_HEADER or len(data) < 8 + length:
        raise InputError("packed shift is truncated")
    try:
        fields = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        raise InputError("packed shift has a header that is not JSON") from None
    if not isinstance(fields, dict) or set(fields) != set(_HEADER_FIELDS):
        raise InputError("packed shift has a header with missing or unknown fields")
    for name, kind in _HEADER_FIELDS.items():
        if type(fields[name]) is not kind:
            raise InputError(f"packed shift has a header whose {name} is not a {kind.__name__}")
    if any(type(layer) is not int for layer in fields["layers"]):
        raise InputError("packed shift has a header whose layers are not integers")
    header = ShiftHeader(
        shape=ShiftShape(
            layers=tuple(fields["layers"]),
            rank=fields["rank"],
            hidden_size=fields["hidden_size"],
            positions=Positions.parse(fields["positions"]),
        ),
        task=fields["task"],
        fingerprint=fields["fingerprint"],
        round=fields["round"],
        dtype=fields["dtype"],
    )
    return header, 8 + length


def slab_sizes(data: bytes) -> dict[str, int]:
    """Return how many bytes of a packed shift are its header, R, W and b.

    Raises:
        InputError: If it is malformed or has too few or too many values.
    """
    header, offset = read_header(data)
    shape, width = header.shape, DTYPES[header.dtype].itemsize
    if len(data) - offset != shape.parameters * width:
        raise InputError(
            f"packed shift has {len(data) - offset} bytes of values, expected {shape.parameters * width}"
        )
    rows = len(shape.layers) * shape.rank
    slab = rows * shape.hidden_size * width
    return {"header": offset, "R": slab, "W": slab, "b": rows * width}


def unpack(data: bytes) -> tuple[Shift, ShiftHeader]:
    """Unpack a collective shift; the inverse of `pack`.

    Returns:
        The shift in fp32, and its header. A shift packed in bf16 has R retracted to orthonormal rows.

    Raises:
        InputError: If the header is malformed, or the values are too few or too many.
    """
    slab_sizes(data)
    header, offset = read_header(data)
    shape = header.shape
    dtype = DTYPES[header.dtype]
    values = torch.from_numpy(np.frombuffer(data, np.uint8, offset=offset).copy()).view(dtype).float()
    slab = (len(shape.layers), shape.rank, shape.hidden_size)
    size = shape.parameters // (2 * shape.hidden_size + 1)
    R, W, b = torch.split(values, [size * shape.hidden_size, size * shape.hidden_size, size])
    R, W, b = R.reshape(slab).clone(), W.reshape(slab).clone(), b.reshape(slab[:2]).clone()
    if header.dtype != "float32":
        R = newton_schulz(R)
        W += R
    return Shift(shape, R=R, W=W, b=b), header
